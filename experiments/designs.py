"""Designs of a whole catalogue: `python -m experiments.designs --config.next_embeddings=...`."""

import os
from pathlib import Path

# Before JAX loads it: LAPACK's threads on matrices this small wait for each other, which is ten
# times slower on a busy machine; the problems themselves are spread over threads instead.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.studies.catalogue_designs.run import (
    CatalogueDesignsExperiment,
    run_catalogue_designs,
)


def main(config: ConfigDict, workdir: Path) -> None:
    experiment = to_settings(CatalogueDesignsExperiment, config.to_dict())
    print(f"report: {run_catalogue_designs(experiment, workdir)}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/catalogue_designs.py",
        default_workdir="runs/catalogue_designs",
    )
