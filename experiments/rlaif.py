"""RLAIF on MiniLens: `python -m experiments.rlaif --config=...`.

An ELM that learned from a teacher's texts learns from the consistency of its own.
"""

from pathlib import Path

from eagle_jax.base import command_line
from eagle_jax.elm.rlaif.report import report_rlaif
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import RlaifExperiment


def run_rlaif(experiment: RlaifExperiment, workdir: Path) -> Path:
    run = RlaifRun(experiment, workdir)
    run.run()
    return report_rlaif(run)


if __name__ == "__main__":
    command_line.main(RlaifExperiment, run_rlaif, config="rlaif_minilens")
