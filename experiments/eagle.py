"""EAGLE, from ratings to report: `python -m experiments.eagle --config=... --workdir=...`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.eagle.run import run_eagle
from eagle_jax.eagle.settings import EagleExperiment


def main(config: ConfigDict, workdir: Path) -> None:
    report = run_eagle(to_settings(EagleExperiment, config.to_dict()), workdir)
    print(f"report: {report}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/eagle_minilens.py",
        default_workdir="runs/eagle_minilens",
    )
