"""RLAIF: `python -m experiments.rlaif --config=...`.

An ELM that learned from a teacher's texts learns from the consistency of its own.
"""

from eagle_jax.base import command_line


def load():
    from eagle_jax.elm.rlaif.report import report_rlaif
    from eagle_jax.elm.rlaif.run import RlaifRun
    from eagle_jax.elm.rlaif.settings import RlaifExperiment

    def run_rlaif(experiment, workdir):
        run = RlaifRun(experiment, workdir)
        run.run()
        return report_rlaif(run)

    return RlaifExperiment, run_rlaif


if __name__ == "__main__":
    command_line.main(load, config="rlaif_minilens")
