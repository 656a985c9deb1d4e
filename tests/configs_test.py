"""Every config is a page of a lab notebook: it loads, is locked, and says what to expect."""

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eagle_jax.base.command_line import load_config
from experiments.cli import programs

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "experiments" / "configs").glob("[!_]*.py"))
HEADINGS = ("Paper:", "Command:", "Hardware:", "Time:", "Expect:")

each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@each_config
def test_config_loads_and_is_locked(path):
    config = load_config(str(path))
    assert isinstance(config, ConfigDict) and config.is_locked
    with pytest.raises(AttributeError):
        config.a_key_that_is_not_there = 1
    json.dumps(config.to_dict())  # goes into every manifest


@each_config
def test_config_carries_a_schema(path):
    assert re.search(r"^SCHEMA = \d+$", path.read_text(), re.MULTILINE)


@each_config
def test_docstring_has_every_heading_with_something_after_it(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    for heading in HEADINGS:
        said = re.search(rf"^{heading}[ \t]*\n?[ \t]*(\S.*)", text, re.MULTILINE)
        assert said, f"{path.name}: its docstring lacks {heading!r}"
        assert not said[1].startswith(HEADINGS), f"{path.name}: nothing is said after {heading!r}"


@pytest.mark.parametrize(
    "path", [ROOT / "experiments" / f"{name}.py" for name in programs()], ids=lambda path: path.stem
)
def test_every_doorway_opens_and_has_a_config(path):
    importlib.import_module(f"experiments.{path.stem}")
    (config,) = re.findall(r'config="(\w+)"', path.read_text())
    assert config in {path.stem for path in CONFIGS}


@each_config
def test_command_in_the_docstring_runs_this_config(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    modules = re.findall(r"(?:launch/run\.sh|python -m) (experiments\.\w+)", text)
    assert modules, f"{path.name}: no command of the form `bash launch/run.sh experiments.<name>`"
    for module in modules:
        assert importlib.util.find_spec(module), f"{path.name} names {module}, which is not there"
    for name in re.findall(r"--config=(\S+?\.py)", text):
        assert (ROOT / name).is_file(), f"{path.name} names {name}, which is not there"
    own = path.relative_to(ROOT).as_posix()
    doorways = [(ROOT / f"{module.replace('.', '/')}.py").read_text() for module in modules]
    is_default = any(f'config="{path.stem}"' in text for text in doorways)
    assert is_default or f"--config={own}" in text, f"{path.name}: its command runs another config"
