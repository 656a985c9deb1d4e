"""Whether data are right, in seconds: `python -m experiments.catalogue --config=...` reads the catalogue of an
experiment's config and tells what it holds, what is wrong with its files and what of it can be used."""

import dataclasses

from eagle_jax.base import command_line
from eagle_jax.base.errors import UserError


def load():
    from eagle_jax.data.catalogue_report import DataSettings, tell_catalogue

    return DataSettings, tell_catalogue


def tell(config, _):
    """Of the whole config of an experiment these are the groups that say where its data come from."""
    from eagle_jax.base.settings import to_settings

    settings, told = load()
    groups = [field.name for field in dataclasses.fields(settings)]
    if missing := [name for name in groups if name not in config]:
        raise UserError(f"the config has no group {', '.join(missing)}: its experiment reads no catalogue")
    print(told(to_settings(settings, {name: config[name] for name in groups})))


if __name__ == "__main__":
    command_line.run(tell, config="eagle_minilens")
