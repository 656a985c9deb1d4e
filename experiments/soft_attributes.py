"""CAVs against raters' orderings of films: `python -m experiments.soft_attributes`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.studies.soft_attributes.run import SoftAttributesExperiment, run_soft_attributes


def main(config: ConfigDict, workdir: Path) -> None:
    experiment = to_settings(SoftAttributesExperiment, config.to_dict())
    print(f"report: {run_soft_attributes(experiment, workdir)}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/soft_attributes.py",
        default_workdir="runs/soft_attributes",
    )
