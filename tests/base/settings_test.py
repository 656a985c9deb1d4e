"""Configs become frozen settings; every mistake names the key, and what would be right is said."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import pytest
from ml_collections import ConfigDict

from eagle_jax.base.settings import SettingsError, setting, settings, to_settings
from eagle_jax.base.settings_reference import described_settings, settings_page


@settings
class Sampling:
    """How texts are drawn.

    More of it.
    """

    temperature: float = setting("0 is greedy.", at_least=0, unit="nats")
    top_p: float | None = setting("Nucleus | its sum.", above=0, at_most=1)

    def __post_init__(self):
        if self.temperature == 0 and self.top_p == 1:
            raise ValueError("temperature and top_p do not go together")


@settings
class Training:
    """Made up."""

    steps: int = setting("Updates.", at_least=1)
    shift: int = setting("Of the seed.")
    budget: int = setting("Of tokens.", at_least=0, at_most=2**53)
    kind: Literal["ridge", "mlp"] = setting("Of the head.")
    widths: tuple[int, ...] = setting("Hidden units.", at_least=1)
    seeds: tuple[int, ...] = setting("One training each.", may_be_empty=True, distinct=True)
    shares: Mapping[str, float] = setting("Of each task.", at_least=0, below=1)
    range: tuple[float, float] = setting("From, to.")
    clip: bool = setting("Whether.")
    sampling: Sampling
    other: Sampling | None = setting("Of the others; None: as sampling.")
    models: dict[str, Sampling] = setting("By name.")
    name: str = setting("Of the report.", default="given")


GOOD = {
    "steps": 3,
    "shift": -3,
    "budget": 2**40,
    "kind": "mlp",
    "widths": [8, 4],
    "seeds": [],
    "shares": {"a": 0, "b": 0.5},
    "range": (-1, 10**20),
    "clip": True,
    "sampling": {"temperature": 1, "top_p": None},
    "other": None,
    "models": {"x": {"temperature": 2.0, "top_p": 0.5}},
}


@pytest.mark.parametrize("make", [dict, ConfigDict])
def test_nested_settings_are_built_with_their_types(make):
    built = to_settings(Training, make(GOOD))
    assert built.sampling == Sampling(temperature=1.0, top_p=None)
    assert (built.widths, built.seeds, built.name) == ((8, 4), (), "given")
    assert built.shares == {"a": 0.0, "b": 0.5} and built.range == (-1.0, 1e20)
    for value in (built.sampling.temperature, built.shares["a"], *built.range):
        assert isinstance(value, float)
    assert built.models == {"x": Sampling(temperature=2.0, top_p=0.5)}
    assert hash(built.sampling) == hash(Sampling(temperature=1, top_p=None))  # fit for jit
    assert dataclasses.replace(built, steps=4).steps == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 1}, r"^config: unknown setting 'stepz'; allowed are: budget, clip, kind, model"),
        ({"steps": 1.5}, r"^config.steps: expected int, got 1.5 \(float\)$"),
        ({"steps": True}, r"^config.steps: expected int, got True \(bool\)$"),
        ({"steps": "3"}, r"^config.steps: expected int, got '3' \(str\)$"),
        ({"steps": 0}, r"^config.steps must be at least 1, got 0$"),
        ({"steps": 2**31}, r"^config.steps must be at most 2147483647 in size, got 2147483648$"),
        ({"shift": -(2**63)}, r"^config.shift must be at most 2147483647 in size, got -92"),
        ({"budget": 2**53 + 1}, r"^config.budget must be at least 0 and at most 90071992547409"),
        ({"clip": 1}, r"^config.clip: expected bool, got 1"),
        ({"name": 1}, r"^config.name: expected str, got 1"),
        ({"kind": "svm"}, r"^config.kind: expected one of 'ridge', 'mlp', got 'svm'"),
        ({"widths": "84"}, r"^config.widths: expected list of int, got '84'"),
        ({"widths": [8, "x"]}, r"^config.widths\[1\]: expected int, got 'x'"),
        ({"widths": [8, 0]}, r"^config.widths\[1\] must be at least 1, got 0$"),
        ({"widths": []}, r"^config.widths: at least one, got none$"),
        ({"seeds": [1, 2, 1]}, r"^config.seeds: none twice, got \(1, 2, 1\)$"),
        ({"shares": {"a": 1}}, r"^config.shares.a must be at least 0 and below 1, got 1.0$"),
        ({"shares": 3}, r"^config.shares: expected table of float, got 3"),
        ({"range": (0, math.nan)}, r"^config.range\[1\] must be a finite number, got nan$"),
        ({"range": (-math.inf, 0)}, r"^config.range\[0\] must be a finite number, got -inf$"),
        ({"range": (0, 10**400)}, r"^config.range\[1\] must be a finite number, got inf$"),
        ({"range": (0,)}, r"^config.range: expected list \(float, float\), got \(0,\)"),
        ({"sampling": 3}, r"^config.sampling: expected a group of settings, got 3"),
        ({"sampling": {"temperature": 1}}, r"^config.sampling: missing setting 'top_p'$"),
        ({"sampling": {"temperature": 1, "top_p": "x"}}, r"^config.sampling.top_p: expected float"),
        ({"other": {"temperature": -1, "top_p": 1}}, r"^config.other.temperature must be at lea"),
        ({"other": {"temperature": 0, "top_p": 1}}, r"^config.other: temperature and top_p do not"),
        (
            {"models": {"x": {"temperature": 1, "top_p": 1.1}}},
            r"^config.models.x.top_p must be above 0 and at most 1, got 1.1$",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change, message):
    with pytest.raises(SettingsError, match=message):
        to_settings(Training, {**GOOD, **change})


def test_missing_settings_are_all_named():
    with pytest.raises(SettingsError, match="config: missing setting 'steps', 'kind'$"):
        to_settings(Training, {key: GOOD[key] for key in GOOD if key not in ("steps", "kind")})


def test_whatever_builds_settings_they_are_checked():
    with pytest.raises(SettingsError, match="^top_p must be above 0 and at most 1, got 0.0$"):
        Sampling(temperature=1.0, top_p=0.0)
    with pytest.raises(ValueError, match="^temperature and top_p do not go together$"):
        dataclasses.replace(Sampling(temperature=0.0, top_p=0.5), top_p=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sampling(temperature=1.0, top_p=0.5).top_p = 2.0


def test_the_reference_tells_every_key_of_every_group():
    rows = {row.key: tuple(row[1:]) for row in described_settings(Training)}
    assert rows["steps"] == ("int", "at least 1", "", "Updates.")
    assert rows["shares"] == ("table of float", "at least 0 and below 1", "", "Of each task.")
    assert rows["sampling"] == ("group", "", "", "How texts are drawn.")
    assert rows["sampling.temperature"] == ("float", "at least 0", "nats", "0 is greedy.")
    assert rows["other"] == ("group or None", "", "", "Of the others; None: as sampling.")
    assert rows["other.top_p"][:2] == ("float or None", "above 0 and at most 1")
    assert rows["models"] == ("table of group", "", "", "By name.")
    assert "models.<name>.top_p" in rows and len(rows) == 13 + 3 * 2


def test_the_page_of_the_reference_is_a_markdown_table():
    title, empty, *table = settings_page("Made up", Training).splitlines()
    assert (title, empty) == ("# Made up", "")
    assert table[0] == "| setting | type | range | unit | meaning |"
    assert table[2] == "| `steps` | int | at least 1 |  | Updates. |"
    top_p = r"| `sampling.top_p` | float or None | above 0 and at most 1 |  | Nucleus \| its sum. |"
    assert top_p in table and len(table) == 2 + 19
