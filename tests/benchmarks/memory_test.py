"""Steps are planned and run for the shapes asked for, and the table judges them."""

import json

import pytest

from benchmarks import memory_contenders
from benchmarks.memory_table import Plan, Timing, page
from tests.programs import run_module

DECODER = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
PARAMETERS = 64 * 16 + 2 * (16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 32 + 2 * 16) + 16


@pytest.mark.parametrize(("program", "copies"), [("sft", 3), ("reinforce", 4), ("dpo", 3)])
def test_a_plan_counts_parameters_moments_and_reference(program, copies):
    shape = {"decoder": DECODER, "remat": True, "batch": 2, "prompt": 4, "length": 8, "checkout": None}
    _, values = memory_contenders.planned(program=program, **shape)(0)
    assert 4 * copies * PARAMETERS < values["arguments"] < 4 * copies * PARAMETERS + 4000
    assert values["temporaries"] > 4 * PARAMETERS


def test_the_script_plans_what_is_asked_for(tmp_path):
    arguments = ("--only=plans", "--programs=sft", "--layers=2", "--shrink=64", f"--out={tmp_path}")
    done = run_module("benchmarks.memory", *arguments)
    assert done.returncode == 0, done.stderr
    (plan,) = json.loads((tmp_path / "results.json").read_text())["plans"]
    matrices = 640 * (262_144 // 64 + 2 * (2 * 1024 + 2 * 256 + 3 * 2048))  # table, heads, feed-forward
    assert plan["program"] == "sft"
    assert 3 * 4 * matrices < plan["arguments"] < 1.01 * 3 * 4 * matrices  # and two moments
    assert (tmp_path / "results.md").read_text().strip() in done.stdout


def test_a_timed_step_learns():
    shape = {"decoder": DECODER, "remat": False, "batch": 2, "prompt": 0, "length": 8, "checkout": None}
    run = memory_contenders.timed(program="sft", **shape)
    losses = [run(turn)[1]["loss"] for turn in range(20)]
    assert losses[-1] < losses[0]


def test_targets_are_judged_beside_the_earlier_build():
    plans = [
        Plan("sft", (8, 0, 1024), "this build", 1.0, 50, 7),
        Plan("sft", (8, 0, 1024), "earlier build", 1.0, 500, 7),
        Plan("dpo", (8, 512, 512), "this build", 1.0, 210, 7),
        Plan("dpo", (8, 512, 512), "earlier build", 1.0, 1000, 7),
    ]
    times = [
        Timing("sft", (4, 0, 512), 49_152, who, [1.0], [1.0], [ratio], [ratio], 0.0)
        for who, ratio in (("this build", 1.0), ("earlier build", 1.1))
    ]
    written = page({}, [], plans, times)
    assert "| SFT 8 x 1024 | 0.100 | met |" in written
    assert "| DPO, pairs 8 x (512 + 512) | 0.210 | **missed** |" in written
    assert "| SFT 4 x 512, 49,152 | 1.10 | **missed** |" in written
