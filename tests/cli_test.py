"""The commands that come with the package: quick to ask, exact about what is wrong."""

import importlib.metadata
import json
import os
import re

import pytest

import eagle_jax
from experiments import cli, reference
from tests.programs import ROOT, run_module


def test_help_says_what_it_does_its_flags_its_keys_and_examples(tmp_path):
    done = run_module("experiments.elm", "--help", cwd=tmp_path, options=["-X", "importtime"])
    assert done.returncode == 0
    assert not re.search(r"\b(jax|flax|numpy|transformers)$", done.stderr, re.MULTILINE)
    told = done.stdout
    assert told.startswith("ELM, from ratings to report")
    order = [
        "usage: python -m experiments.elm",
        "--ask Answer questions",
        "(default: runs/elm_minilens)",
        "keys of experiments/configs/elm_minilens.py",
        "seed = ",
        "examples:",
    ]
    words = " ".join(told.split())
    places = [words.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize("program", cli.programs())
def test_every_program_has_help(program, tmp_path):
    done = run_module("eagle_jax", "run", program, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m experiments.{program}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "eagel"], "no experiment 'eagel', did you mean eagle?; there are: catalogue, design_study,"),
        (["rnu"], "no command 'rnu', did you mean run?"),
    ],
)
def test_a_wrong_word_is_one_line_with_what_was_meant(arguments, said, tmp_path):
    done = run_module("eagle_jax", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr


def test_without_a_command_and_by_version():
    assert "run EXPERIMENT" in cli.usage()
    assert eagle_jax.__version__ == importlib.metadata.version("eagle_jax")


def test_a_foreign_package_of_the_name_is_named(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("")
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    done = run_module("eagle_jax", "run", "eagle", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 2
    assert f"{tmp_path / 'experiments'} is another package of the name experiments" in done.stderr


def test_every_public_name_is_there():
    for name in eagle_jax.__all__:
        assert getattr(eagle_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eagle_jax.nothing  # noqa: B018


def test_the_reference_of_settings_is_that_of_the_classes():
    classes = reference.settings_classes()
    assert set(classes) == set(cli.programs())
    told = reference.sentences(classes)
    assert (ROOT / "experiments" / reference.SENTENCES).read_text(encoding="utf-8") == told
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference.page(classes)
    assert all(all(keys.values()) for keys in json.loads(told).values())  # none is left unsaid
