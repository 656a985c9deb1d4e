"""Designs of a whole catalogue: `python -m experiments.designs --config.next_embeddings=...`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.pipeline.catalogue_designs import (
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
