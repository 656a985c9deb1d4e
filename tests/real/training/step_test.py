"""Settings of preference optimisation that are refused; a step is held against TRL's elsewhere."""

import dataclasses

import pytest

from eagle_jax.real.training.step import PreferenceSettings

SETTINGS = PreferenceSettings(
    loss="dpo", beta=0.1, label_smoothing=0.0, initial_error_rate=0.2, batch_size=4,
    accumulation=2, num_epochs=3, optimizer="rmsprop", learning_rate=3e-3, warmup_steps=2,
    weight_decay=1e-4, max_gradient_norm=5.0, max_prompt_tokens=8, max_tokens=16, log_every=1,
    checkpoint_every=3, probe_every=4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", 0.0), ("beta", -0.1), ("beta", float("nan")), ("beta", float("inf")),
        ("label_smoothing", -0.1), ("label_smoothing", 0.5), ("label_smoothing", float("nan")),
        ("initial_error_rate", 0.5), ("accumulation", 3),
        ("batch_size", 0), ("learning_rate", 0.0), ("warmup_steps", -1), ("weight_decay", -1.0),
        ("max_gradient_norm", float("nan")), ("max_tokens", 8),
    ],
)  # fmt: skip
def test_settings_name_the_field_and_its_value(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*, got {value!r}"):
        dataclasses.replace(SETTINGS, **{name: value})


def test_smoothing_is_of_dpo_only():
    dataclasses.replace(SETTINGS, label_smoothing=0.2)
    with pytest.raises(ValueError, match="label_smoothing must be 0 where loss is 'ipo'"):
        dataclasses.replace(SETTINGS, label_smoothing=0.2, loss="ipo")
