"""RLAIF on MiniLens: `python -m experiments.rlaif --config=...`.

An ELM that learned from a teacher's texts learns from the consistency of its own.
"""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.base.work_directory import WorkDirectory
from eagle_jax.elm.rlaif.report import report_rlaif
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import RlaifExperiment


def main(config: ConfigDict, workdir: Path) -> None:
    run = RlaifRun(to_settings(RlaifExperiment, config.to_dict()), WorkDirectory(workdir))
    run.run()
    print(f"report: {report_rlaif(run)}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/rlaif_minilens.py",
        default_workdir="runs/rlaif_minilens",
    )
