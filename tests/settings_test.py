"""The settings of all experiments: each has a sentence, none takes a number without sense."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.base.settings_reference import described_settings, settings_page
from experiments import reference

CLASSES = reference.settings_classes()
# --config -> the program that it is for.
CONFIGS = {
    "eagle_minilens_dpo.py:quick": "eagle",
    "eagle_minilens_elm.py:quick": "eagle",
    "eagle_minilens_expert.py:quick": "eagle",
    "eagle_remote.py:vllm": "eagle",
    "elm_minilens.py": "elm",
    "rlaif_minilens.py": "rlaif",
    "real_minilens.py": "real",
    "pretrain_minilens.py:policy": "pretrain",
    "elm_toy.py": "elm_toy",
    "soft_attributes.py": "soft_attributes",
    "people_minilens.py": "people",
    "design_study.py:quick": "design_study",
    "catalogue_designs.py": "designs",
}
# Where -1 makes sense: all devices that remain; a reward; films moved against a tag; directions
# that grow.
MAY_BE_NEGATIVE = {
    ("mesh", "data"),
    ("mesh", "fsdp"),
    ("mesh", "tensor"),
    ("malformed_reward",),
    ("curves", "steps", 0),
    ("synthetic", "spectrum_exponent"),
}


def _numbers(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, float]]:
    """Every number of a config, with the keys that lead to it; of a list the first item."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, (*path, name))
    elif isinstance(value, tuple) and value:
        yield from _numbers(value[0], (*path, 0))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def _with(config: Any, path: tuple, value: Any) -> Any:
    """A copy of the config with another value there."""
    if not path:
        return value
    copied = list(config) if isinstance(config, tuple) else copy.copy(config)
    copied[path[0]] = _with(config[path[0]], path[1:], value)
    return copied


@pytest.mark.parametrize("name", CONFIGS)
def test_no_number_is_out_of_all_sense(name):
    experiment, config = CLASSES[CONFIGS[name]], load_config(f"experiments/configs/{name}").to_dict()
    config = config.get("policy", config)  # of pretraining one role's
    to_settings(experiment, config)  # fits as it is
    numbers = list(_numbers(config))
    assert len(numbers) > 8
    for path, given in numbers:
        extremes = [-1, -(2**63), 2**63] if isinstance(given, int) else [-1.0, math.nan, math.inf]
        if any(path[-len(end) :] == end for end in MAY_BE_NEGATIVE):
            extremes = extremes[1:]
        key = "config" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
        for value in extremes:
            if "request_fields" in path:
                continue
            with pytest.raises(SettingsError) as refused:
                to_settings(experiment, _with(config, path, value))
                pytest.fail(f"{key}={value} is taken")
            assert str(refused.value).startswith(f"{key} must be "), refused.value
            assert str(refused.value).endswith(f", got {value!r}")


@pytest.mark.parametrize("program", CLASSES)
def test_every_setting_has_a_sentence(program):
    rows = list(described_settings(CLASSES[program]))
    assert [row.key for row in rows if not row.sentence.endswith(".")] == []
    assert len({row.key for row in rows}) == len(rows) > 10
    assert settings_page("Settings", CLASSES[program]).count("\n| `") == len(rows)
