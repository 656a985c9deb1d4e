"""DPO agents beside the REINFORCE ones, from the command line: their stage, row and comparisons."""

import json

import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.eagle.evaluation.rows import (
    ANCHOR,
    BEST_OF_N,
    DPO,
    EAGLE,
    HOME,
    REFERENCE,
    TRANSFER,
    EvalRow,
    comparison_pairs,
)
from eagle_jax.eagle.serving import loading
from eagle_jax.eagle.serving.loading import load_agent
from eagle_jax.eagle.settings import EagleExperiment

CONFIG = "experiments/configs/eagle_minilens_dpo.py:quick"
STAGE, ROW = "preference_agent_g_optimal_0", "DPO, g_optimal"
# The tiny experiment's agent plays 3 x 4 episodes of two steps: as many in three rounds of 2 x 2.
PAIRS = {
    "starts_per_round": 2,
    "num_samples": 2,
    "num_epochs": 1,
    "batch_size": 2,
    "validate_every": 1,
    "checkpoint_every": 1,
}


def test_dpo_agents_get_a_stage_a_row_and_comparisons(eagle, finished, tmp_path, monkeypatch):
    workdir = finished.copy(tmp_path / "run", without=("evaluation",))
    overrides = [f"--config.preference_agent.{key}={value}" for key, value in PAIRS.items()]
    code, _, stderr = eagle.run(workdir, overrides, config=CONFIG)
    assert code == 0, stderr

    facts, rows = {}, {}
    for stage in (STAGE, "agent_g_optimal_0"):
        assert (workdir / stage / "model" / "model.safetensors").exists()
        facts[stage] = json.loads((workdir / stage / "facts.json").read_text())
        lines = (workdir / stage / "metrics" / "metrics.jsonl").read_text().splitlines()
        rows[stage] = list(map(json.loads, lines))
    # Both were validated four times, on the same starts: before training on the same texts.
    for name in ("validation/reward", "validation/environment_calls"):
        assert rows[STAGE][0][name] == rows["agent_g_optimal_0"][0][name]
    assert len(rows[STAGE]) == len(rows["agent_g_optimal_0"]) == 4
    for row in rows[STAGE][1:]:
        assert row["environment_calls"] == round(8 * (1 - row["malformed_actions"]))
        assert row["pairs"] + row["pairs/ties"] + row["pairs/without_choice"] == 4

    table = json.loads((workdir / "evaluation" / "table.json").read_text())
    names = [row["row"] for row in table]
    assert names[names.index("EAGLE, g_optimal") + 1] == ROW
    compared = json.loads((workdir / "evaluation" / "comparisons.json").read_text())
    against = {c["baseline"] for c in compared if c["row"] == ROW}
    assert against == {"anchor", "reference policy, g_optimal", "EAGLE, g_optimal"}
    report = (workdir / "report.md").read_text()
    assert f"| {ROW}" in report.replace("\\", "") and "Pairs of the DPO agents" in report

    other = finished.workdir / "agent_g_optimal_0" / "model" / "model.safetensors"
    assert (workdir / other.relative_to(finished.workdir)).read_bytes() == other.read_bytes()

    # Both can be asked for proposals; without a name it is the one that gained most where it was kept.
    assert load_agent(workdir, STAGE).name == STAGE
    kept = {stage: max(of_stage, key=lambda row: row["validation/reward"]) for stage, of_stage in rows.items()}
    monkeypatch.setattr(loading._FinishedRun, "load", lambda self, chosen: chosen.name)
    best = max(sorted(kept), key=lambda stage: kept[stage]["validation/gain"])
    assert load_agent(workdir) == best
    with pytest.raises(UserError, match="it has agent_g_optimal_0, preference_agent_g_optimal_0"):
        load_agent(workdir, "agent_uniform_0")


def test_dpo_is_compared_with_its_anchor_its_reference_and_eagle():
    anchor = EvalRow(system=ANCHOR, environment=None)
    of_kinds = [
        {system: EvalRow(system=system, kind=kind, environment=environment) for system in (REFERENCE, EAGLE, DPO)}
        for kind, environment in (("uniform", HOME), ("g_optimal", HOME), ("g_optimal", TRANSFER))
    ]
    rows = [anchor, EvalRow(system=BEST_OF_N, kind="g_optimal", budget="all_calls")]
    rows += [row for of_kind in of_kinds for row in of_kind.values()]
    pairs = [pair for pair in comparison_pairs(rows, ["g_optimal"]) if pair[0].system == DPO]
    assert pairs == [
        (of_kind[DPO], other) for of_kind in of_kinds for other in (anchor, of_kind[REFERENCE], of_kind[EAGLE])
    ]


def test_rounds_that_do_not_make_up_the_budget_are_refused_by_name():
    config = load_config(CONFIG).to_dict()
    config["preference_agent"]["starts_per_round"] = 7
    with pytest.raises(SettingsError, match="config: starts_per_round x num_samples = 7 x 4"):
        to_settings(EagleExperiment, config)
