"""Designs of a whole catalogue: `python -m experiments.designs --config.next_embeddings=...`."""

import os

# Before JAX loads it: LAPACK's threads on matrices this small wait for each other, which is ten
# times slower on a busy machine; the problems themselves are spread over threads instead.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from eagle_jax.base import command_line


def load():
    from eagle_jax.studies.catalogue_designs.run import CatalogueDesignsExperiment, run_catalogue_designs

    return CatalogueDesignsExperiment, run_catalogue_designs


if __name__ == "__main__":
    command_line.main(load, config="catalogue_designs")
