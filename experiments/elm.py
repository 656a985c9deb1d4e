"""ELM, from ratings to report: `python -m experiments.elm --config=...`.

With --ask a dialogue in the terminal follows: name films, users, mixtures and directions.
"""

from absl import flags

from eagle_jax.base import command_line

_ASK = flags.DEFINE_bool("ask", False, "Answer questions from the terminal when all is done.")


def load():
    from eagle_jax.elm.ask import ask_elm
    from eagle_jax.elm.report import report_elm
    from eagle_jax.elm.run import ElmRun
    from eagle_jax.elm.settings import ElmExperiment

    def run_elm(experiment, workdir):
        run = ElmRun(experiment, workdir)
        run.run()
        report = report_elm(run)
        if _ASK.value:
            ask_elm(run)
        return report

    return ElmExperiment, run_elm


if __name__ == "__main__":
    command_line.main(load, config="elm_minilens")
