"""The tiny run with low-rank policies, whose agents begin by imitation and are served at equal calls in all."""

import numpy as np
import pytest

from eagle_jax.eagle.serving.export import export_agent
from eagle_jax.eagle.serving.loading import load_agent
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.checkpoints.peft_adapters import load_peft_adapter
from eagle_jax.language_model.decoder.transformer import forward
from eagle_jax.stages.models import load_model
from tests.eagle.run_test import AGENT, REFERENCE, flags, read, run_to_its_end

LOW_RANK = {"mode": "lora", "lora.rank": 2, "remat": True, "scan_layers": True}
WITH_EXPERT = "experiments/configs/eagle_minilens_expert.py:quick"
EXPERT_STAGE, EXPERT = "expert_g_optimal_0", "imitation of chosen actions, g_optimal"
TINY_EXPERT = {
    "num_episodes": 2,
    "actions_per_state": 3,
    "users_per_state": 4,
    "candidates": True,
    "fit.batch_size": 4,
    "fit.training.num_steps": 3,
    "fit.training.warmup_steps": 1,
}


def logits(model):
    tokens = np.random.default_rng(0).integers(4, model.config.vocab_size, (2, 12))
    return np.asarray(forward(model.config, model.params, tokens, np.ones((2, 12), bool)).logits)


def checkpoint_bytes(stage):
    return sum(path.stat().st_size for path in (stage / "checkpoints").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def by_imitation(eagle, finished, tmp_path_factory):
    """The run with low-rank policies, whose agents begin by imitation; at equal calls in all as well."""
    workdir = finished.copy(tmp_path_factory.mktemp("imitation") / "run", without=(REFERENCE, AGENT, "evaluation"))
    budgets = flags("evaluation", {"best_of_n": "('test_calls', 'all_calls')", "search_actions": "2"})
    overrides = flags("policy_training", LOW_RANK) + flags("expert", TINY_EXPERT) + budgets
    run_to_its_end(eagle, workdir, overrides, config=WITH_EXPERT)
    return workdir


def test_low_rank_policies_are_updates_of_one_model_and_exported_as_whole_ones(by_imitation, finished, tmp_path):
    workdir = by_imitation
    pretrained = load_model("minilens/policy")
    moved = []
    for model in (f"{REFERENCE}/model", f"{EXPERT_STAGE}/model", f"{AGENT}/model", f"{AGENT}/last"):
        adapted = load_peft_adapter(pretrained, workdir / model / "adapter")
        assert adapted.config.lora.rank == 2 and adapted.config.lora.scale == 8.0
        assert not list((workdir / model).glob("*.safetensors"))
        moved.append(logits(adapted))
    reference, begun, best, last = moved  # the best agent may be the one that it began as
    export_agent(workdir, tmp_path / "handed_on", AGENT)
    whole = load_language_model(tmp_path / "handed_on")
    assert whole.config == pretrained.config
    np.testing.assert_allclose(logits(whole), best, atol=1e-3)
    again = load_peft_adapter(pretrained, tmp_path / "handed_on" / "adapter")
    np.testing.assert_array_equal(logits(again), best)
    for before, after, least in ((logits(pretrained), reference, 0.01), (reference, begun, 1e-4), (begun, last, 1e-4)):
        assert np.abs(after - before).max() > least
    for stage in (REFERENCE, AGENT):
        assert checkpoint_bytes(workdir / stage) < 0.3 * checkpoint_bytes(finished.workdir / stage)


def test_an_agent_may_begin_by_imitation(by_imitation):
    workdir = by_imitation
    facts = read(workdir / EXPERT_STAGE / "facts.json")
    assert facts["states"] == 4 + 3  # of two episodes of two steps, and three entities that have candidates
    assert facts["actions"] == 12 and 0 < facts["environment_calls"] <= facts["different"]
    rows = [row["row"] for row in read(workdir / "evaluation" / "table.json")]
    after_reference = rows.index("reference policy, g_optimal") + 1
    assert rows[after_reference : after_reference + 2] == [EXPERT, "EAGLE, g_optimal"]
    compared = [(c["row"], c["baseline"]) for c in read(workdir / "evaluation" / "comparisons.json")]
    assert ("EAGLE, g_optimal", EXPERT) in compared and (EXPERT, "reference policy, g_optimal") in compared
    assert "What agents imitate before they are rewarded" in (workdir / "report.md").read_text()
    assert load_agent(workdir, AGENT).name == AGENT


def test_at_equal_calls_in_all_agents_are_served_as_their_reference_policy_is(by_imitation):
    rows = {row["row"]: row for row in read(by_imitation / "evaluation" / "table.json")}
    spent = {
        system: sum(read(by_imitation / stage / "facts.json")["environment_calls"] for stage in stages)
        for system, stages in ((None, ()), (EXPERT, [EXPERT_STAGE]), ("EAGLE, g_optimal", [EXPERT_STAGE, AGENT]))
    }
    most = -(-(16 + spent["EAGLE, g_optimal"]) // 16)  # 8 pairs, episodes of 2 steps
    best_of = f"best of {most} x 2 steps (equal calls with training)"
    for agent, calls in spent.items():
        assert f"{best_of}, {agent or 'g_optimal'}" in rows
        width = int(most - calls / 16)
        name = f"greedy search {width} actions x 2 steps (equal calls with training), {agent or 'g_optimal'}"
        assert (name in rows) == (width > 1)
        assert width < 2 or rows[name]["num_episodes"] == 8
        served = rows[f"greedy search 2 actions x 2 steps, {agent or 'g_optimal'}"]["cells"]
        assert 0 < served["environment_calls"]["mean"] <= 4
    lines = read(by_imitation / "evaluation" / "break_even.json")
    assert [(line["agent"], line["episodes"]) for line in lines] == [
        (agent, count) for agent in (EXPERT, "EAGLE, g_optimal") for count in range(1, most)
    ]
    for line in lines:
        calls = spent[line["agent"]] + line["pairs"] * 2 * line["episodes"]
        assert calls == pytest.approx(line["pairs"] * 2 * most)
    assert "From where on training pays" in (by_imitation / "report.md").read_text()
