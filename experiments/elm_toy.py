"""ELM's toy of two vectors and two words: `python -m experiments.elm_toy --config=...`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.studies.elm_toy.run import ElmToySettings, run_elm_toy


def main(config: ConfigDict, workdir: Path) -> None:
    report = run_elm_toy(to_settings(ElmToySettings, config.to_dict()), workdir)
    print(f"report: {report}")


if __name__ == "__main__":
    command_line.run(
        main,
        default_config="experiments/configs/elm_toy.py",
        default_workdir="runs/elm_toy",
    )
