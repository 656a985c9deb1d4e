"""Pretrains MiniLens-LM: `python -m experiments.pretrain --workdir=...`."""

from eagle_jax.base import command_line


def load():
    from eagle_jax.studies.pretraining import PretrainingSettings, pretrain

    return PretrainingSettings, pretrain


def main(config, workdir):
    from eagle_jax.base.settings import to_settings

    settings_class, pretrain = load()
    roles = {name: to_settings(settings_class, role, f"config.{name}") for name, role in config.to_dict().items()}
    for name, settings in roles.items():
        quality = pretrain(name, settings, workdir)
        print(f"{name}: {', '.join(f'{key} {value:.3f}' for key, value in quality.items())}")


if __name__ == "__main__":
    command_line.run(main, config="pretrain_minilens")
