"""ELM on MiniLens, from ratings to report: `python -m experiments.elm --config=...`.

With --ask a dialogue in the terminal follows: name films, users, mixtures and directions.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.elm.ask import ask_elm
from eagle_jax.elm.report import report_elm
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import ElmExperiment

_ASK = flags.DEFINE_bool("ask", False, "Answer questions from the terminal when all is done.")


def main(config: ConfigDict, workdir: Path) -> None:
    run = ElmRun(to_settings(ElmExperiment, config), workdir)
    run.run()
    print(f"report: {report_elm(run)}")
    if _ASK.value:
        ask_elm(run)


if __name__ == "__main__":
    command_line.run(main, config="elm_minilens")
