"""ELM's toy end to end: it learns."""

import dataclasses
import json

import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.language_model.checkpoints.hf_checkpoints import save_language_model
from eagle_jax.studies.elm_toy import run as elm_toy
from tests.elm.model.small_embedding_lm import small_model

CONFIG = load_config("experiments/configs/elm_toy.py:quick").to_dict()
SETTINGS = dataclasses.replace(
    to_settings(elm_toy.ElmToySettings, CONFIG),
    texts=("w1", "w2"),
    learning_rates=(0.02,),
    num_steps=24,
    adapter_steps=16,
    log_every=8,
)


def test_it_learns(tmp_path):
    save_language_model(small_model("qwen2_5", tmp_path, 1), tmp_path / "model", "float32")
    settings = dataclasses.replace(SETTINGS, model=str(tmp_path / "model"))
    report = elm_toy.run_elm_toy(settings, tmp_path / "work")
    assert "one stage" in report.read_text()
    runs = json.loads((tmp_path / "work" / "runs" / "runs.json").read_text())
    curves = {run["training"]: run["curve"] for run in runs}
    assert [point["step"] for point in curves["one stage"]] == [0, 8, 16, 24]
    assert [point["step"] for point in curves["two stages"]] == [0, 8, 16, 24]
    starts = [curve[0] for curve in curves.values()]
    assert starts[0] == starts[1] and starts[0]["nats"] > 1.0
    assert all(c[-1]["nats"] < 0.1 and c[-1]["accuracy"] == 1.0 for c in curves.values())


def test_both_stages_of_two_need_steps():
    with pytest.raises(UserError, match=r"between 0 and num_steps \(24\), got 24"):
        dataclasses.replace(SETTINGS, adapter_steps=24)
