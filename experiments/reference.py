"""Writes the reference of settings, docs/settings.md and the sentences of --help, from what the
settings' classes declare: `python -m experiments.reference`."""

import importlib
import json
import pkgutil
from pathlib import Path

import experiments
from eagle_jax.base.config_overrides import SENTENCES
from eagle_jax.base.settings_reference import described_settings, settings_page

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "settings.md"
# Keys of pretraining come after the role's name.
PREFIXES = {"pretrain": "<name>."}


def settings_classes():
    """Program -> the class of its settings."""
    names = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names}
    return {name: module.load()[0] for name, module in modules.items() if hasattr(module, "load")}


def sentences(classes):
    """The file that --help reads."""
    told = {
        name: {row.key: row.sentence for row in described_settings(cls, PREFIXES.get(name, ""))}
        for name, cls in classes.items()
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def page(classes):
    """The page of the documentation."""
    parts = [settings_page(f"`experiments.{name}`", cls) for name, cls in classes.items()]
    return "# Settings\n\n" + "\n".join(part.replace("# ", "## ", 1) for part in parts)


if __name__ == "__main__":
    found = settings_classes()
    (HERE / SENTENCES).write_text(sentences(found), encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{HERE / SENTENCES}, {PAGE}")
