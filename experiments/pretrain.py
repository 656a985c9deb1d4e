"""Pretrains MiniLens-LM: `python -m experiments.pretrain --workdir=...`."""

from pathlib import Path

from ml_collections import ConfigDict

from eagle_jax.base import command_line
from eagle_jax.base.settings import to_settings
from eagle_jax.studies.pretraining import PretrainingSettings, pretrain


def main(config: ConfigDict, workdir: Path) -> None:
    roles = {
        name: to_settings(PretrainingSettings, role, f"config.{name}")
        for name, role in config.to_dict().items()
    }
    for name, settings in roles.items():
        quality = pretrain(name, settings, workdir)
        print(f"{name}: {', '.join(f'{key} {value:.3f}' for key, value in quality.items())}")


if __name__ == "__main__":
    command_line.run(main, config="pretrain_minilens")
