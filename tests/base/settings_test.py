"""Settings: what is accepted, and what is said about the rest."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
from ml_collections import ConfigDict

from eagle_jax.base.settings import SettingsError, to_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    temperature: float
    top_p: float | None

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    steps: int
    kind: Literal["ridge", "mlp"]
    widths: tuple[int, ...]
    clip: bool
    sampling: Sampling
    other: Sampling | None
    name: str = "given"


GOOD = {
    "steps": 3,
    "kind": "mlp",
    "widths": [8, 4],
    "clip": True,
    "sampling": {"temperature": 1, "top_p": None},
    "other": None,
}


@pytest.mark.parametrize("make", [dict, ConfigDict])
def test_nested_settings_are_built_with_their_types(make):
    built = to_settings(Training, make(GOOD))
    assert built == Training(
        steps=3,
        kind="mlp",
        widths=(8, 4),
        clip=True,
        sampling=Sampling(temperature=1.0, top_p=None),
        other=None,
        name="given",
    )
    assert isinstance(built.sampling.temperature, float)
    assert hash(built) == hash(to_settings(Training, GOOD))  # fit for a static argument of jit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 1}, r"config: unknown setting 'stepz'; allowed are: clip, kind, name, other"),
        ({"steps": 1.5}, r"config.steps: expected int, got 1.5 \(float\)"),
        ({"steps": True}, r"config.steps: expected int, got True \(bool\)"),
        ({"steps": "3"}, r"config.steps: expected int, got '3' \(str\)"),
        ({"clip": 1}, r"config.clip: expected bool, got 1"),
        ({"kind": "svm"}, r"config.kind: expected one of 'ridge', 'mlp', got 'svm'"),
        ({"widths": "84"}, r"config.widths: expected tuple\[int, ...\], got '84'"),
        ({"widths": [8, "x"]}, r"config.widths\[1\]: expected int, got 'x'"),
        ({"sampling": 3}, r"config.sampling: expected a group of settings, got 3"),
        ({"sampling": {"temperature": 1}}, r"config.sampling: missing setting 'top_p'"),
        ({"other": {"temperature": "hot", "top_p": 1}}, r"config.other.temperature: expected flo"),
        ({"other": {"temperature": -1, "top_p": 1}}, r"config.other: temperature must be 0 or mor"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(change, message):
    with pytest.raises(SettingsError, match=message):
        to_settings(Training, {**GOOD, **change})


def test_missing_settings_are_all_named():
    with pytest.raises(SettingsError, match="config: missing setting 'steps', 'kind'"):
        to_settings(Training, {key: GOOD[key] for key in GOOD if key not in ("steps", "kind")})
