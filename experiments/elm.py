"""ELM on MiniLens, from ratings to scores: `python -m experiments.elm --config=...`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.pipeline.elm import run_elm
from eagle_jax.pipeline.elm_settings import ElmExperiment


def main(config: ConfigDict, workdir: Path) -> None:
    results = run_elm(to_settings(ElmExperiment, config.to_dict()), workdir)
    print(f"results: {results}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/elm_minilens.py",
        default_workdir="runs/elm_minilens",
    )
