"""REAL, from prompts to report: `python -m experiments.real --config=... --workdir=...`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.real.run import run_real
from eagle_jax.real.settings import RealExperiment


def main(config: ConfigDict, workdir: Path) -> None:
    report = run_real(to_settings(RealExperiment, config.to_dict()), workdir)
    print(f"report: {report}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/real_minilens.py",
        default_workdir="runs/real_minilens",
    )
