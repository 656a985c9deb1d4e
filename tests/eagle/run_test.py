"""One tiny run from the command line that nothing interrupts, and what becomes of others beside it:
killed, asked for with other settings, or with what is off by default."""

import dataclasses
import json
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import read_metrics
from eagle_jax.eagle.run import run_eagle
from eagle_jax.eagle.screen import planned_stages
from eagle_jax.eagle.serving import loading
from eagle_jax.eagle.serving.loading import load_agent, read_experiment
from tests.toy_world import dpo_settings

REFERENCE, AGENT = "reference_g_optimal", "agent_g_optimal_0"
DPO_AGENT, DPO, ELM = "preference_agent_g_optimal_0", "DPO, g_optimal", "ELM decoder"
ELM_CHOICE = "Which point the ELM decoder is asked for"
CEILING_INSTRUCTIONS = {"instructions.file": "", "instructions.num_candidates": 3}
WITH_ELM = "experiments/configs/eagle_minilens_elm.py:quick"
TINY_ELM = {
    "decoder.adapter_hidden_width": 16,
    "decoder.batch_size": 16,
    "decoder.training.stage1.num_steps": 0,
    "decoder.training.stage2.num_steps": 6,
    "decoder.training.stage2.warmup_steps": 1,
    "search.num_pairs": 8,
    "search.num_centers": 2,
    "search.radii": "(0.0, 1.0)",
    "search.ascent.num_starts": 1,
    "search.ascent.num_steps": 5,
}
# The tiny experiment's agent plays 2 x 4 episodes of two steps: as many in two rounds of 2 x 2.
_COUNTS = {"num_samples": 2, "starts_per_round": 2, "num_epochs": 1, "batch_size": 2, "beta": 1.0}
TINY_DPO = dataclasses.asdict(
    dpo_settings(strategy="easy", learning_rate=5e-4, validate_every=1, checkpoint_every=1, **_COUNTS)
)


def read(path):
    return json.loads(path.read_text())


def flags(group, values):
    return [f"--config.{group}.{key}={value}" for key, value in values.items()]


def run_to_its_end(eagle, workdir, overrides=(), **options):
    code, _, stderr = eagle.run(workdir, overrides, **options)
    assert code == 0, stderr


def unfinish(stage: Path) -> None:
    """As if the run had ended before the last files of the stage."""
    for name in ("MANIFEST.json", "facts.json", "records.jsonl", "table.json"):
        (stage / name).unlink(missing_ok=True)


def test_the_terminal_is_told_plan_stages_results_files_and_time(finished):
    lines = (finished.workdir.parent / "screen.txt").read_text().splitlines()
    plan = planned_stages(read_experiment(finished.workdir))
    assert lines[0] == f"{finished.workdir}: {len(plan)} stages"
    headings = [line for line in lines if line.startswith("== ")]
    assert headings == [f"== {name} ({number} of {len(plan)})" for number, name in enumerate(plan, start=1)]
    ends = [line for line in lines if re.match(r"   (\d+ min )?\d+ s", line)]
    assert len(ends) == len(plan)
    assert [name for name, line in zip(plan, ends, strict=True) if ": " not in line] == ["design", "evaluation"]
    assert any(re.match(r"EAGLE, g_optimal +-?\d\.\d{3}", line) for line in lines)
    files = [f"numbers: {finished.workdir / name}" for name in ("results.json", "results.csv")]
    assert lines[-4:-1] == [*files, f"curves: tensorboard --logdir={finished.workdir}"]
    assert lines[-1].startswith("took ")


def test_every_stage_has_results_and_nothing_is_there_that_was_not_asked_for(finished):
    found = finished.results()
    assert {
        "catalogue/wals.npz",
        "encoders/train.npz",
        "profiles/profiles.jsonl",
        "candidates/candidates.jsonl",
        "design/chosen.json",
        f"{REFERENCE}/model/model.safetensors",
        f"{AGENT}/model/model.safetensors",
        f"{AGENT}/last/model.safetensors",
        f"{AGENT}/metrics/metrics.jsonl",
        "evaluation/records.jsonl",
        "evaluation/table.json",
        "evaluation/comparisons.json",
    } <= set(found)
    assert [row["step"] for row in found[f"{AGENT}/metrics/metrics.jsonl"]] == [0, 1, 2]
    for manifest in finished.workdir.glob("*/MANIFEST.json"):
        told = read(manifest)
        assert "elm" not in json.dumps([told["settings"], told["depends_on"]]), manifest
    assert not list(finished.workdir.glob("elm*"))
    assert not (finished.workdir / "remote_usage.json").exists()
    assert not list(finished.workdir.glob("generations.sqlite*"))
    for kind in ("html", "md"):
        report = (finished.workdir / f"report.{kind}").read_text()
        assert "Remote language models" not in report and ELM_CHOICE not in report
        assert "The ELM decoder as a baseline" in report  # among what is not reproduced


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Returns when `path` is there; fails when the process ends first or minutes go by."""
    deadline = time.monotonic() + 900
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path}"
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue


def kill_between_pieces(eagle, finished, workdir, stage):
    """Stops the run at a rename of the stage, drawn. Every one is proven on a stub, `tests/stages/run_test.py`."""
    draw = random.Random(stage)
    moment = draw.choice(("before", "after"))
    once = [name for name in finished.renames if finished.renames.count(name) == 1]
    target = draw.choice([name for name in once if name.startswith(f"{stage}/parts/")])
    code, _, stderr = eagle.run(workdir, watch=[moment, target])
    assert code == -signal.SIGKILL, f"{moment} {target}: {stderr}"
    assert (workdir / target).exists() == (moment == "after")


def interrupt_out_of_the_blue(eagle, workdir):
    process = eagle.start(workdir)
    wait_for(workdir / AGENT / "checkpoints" / "step_00000001", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    # A slow machine tells its progress before.
    assert stderr.endswith("eagle.py: interrupted; the same command resumes\n") and "Traceback" not in stderr
    assert not (workdir / AGENT / "MANIFEST.json").exists()


def test_a_run_killed_in_its_stages_and_interrupted_in_one_ends_with_the_same_results(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run", since=AGENT)
    interrupt_out_of_the_blue(eagle, workdir)
    kill_between_pieces(eagle, finished, workdir, "evaluation")
    run_to_its_end(eagle, workdir)
    finished.assert_same_results(workdir)


def snapshot(workdir: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and its content; how long it took is another matter."""
    files = [path for path in workdir.rglob("*") if path.is_file() and path.name != "times.json"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_other_settings_are_one_line_and_all_is_left_alone(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run")
    unfinish(workdir / AGENT)  # its checkpoints are not gone on from
    before = snapshot(workdir)
    code, stdout, stderr = eagle.run(workdir, ["--config.agent.training.policy_learning_rate=0.1"])
    assert (code, stdout) == (2, ""), stderr
    plan, *_, line = stderr.splitlines()
    assert plan == f"{workdir}: 8 stages" and "Traceback" not in stderr
    said = rf"eagle\.py: .*{AGENT} was .*: training\.policy_learning_rate: 0\.0005 there, 0\.1 now. Remove it "
    assert re.match(said, line), line
    assert snapshot(workdir) == before


def test_a_run_may_end_at_its_ceiling_and_go_on_from_there(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run", since="candidates")
    ceiling = flags("ceiling", {"num_anchors": 2, "num_users": 5, "stops": False, **CEILING_INSTRUCTIONS})
    run_to_its_end(eagle, workdir, [*ceiling, "--stop_after=ceiling"])
    assert {path.parent.name for path in workdir.glob("*/MANIFEST.json")} == {
        "catalogue",
        "encoders",
        "profiles",
        "ceiling",
    }
    page = (workdir / "report.md").read_text()
    assert "best of as many other entities" in page and "of 6" in page  # three instructions for two anchors
    assert read(workdir / "results.json")["report"] == "eagle/ceiling/report"
    with pytest.raises(UserError, match=r"config\.ceiling is None"):
        run_eagle(read_experiment(finished.workdir), workdir, "ceiling")
    with pytest.raises(UserError, match="is a run of eagle/ceiling, not of eagle"):
        load_agent(workdir)


@pytest.fixture(scope="module")
def with_baselines(eagle, finished, tmp_path_factory):
    """The run once more, with DPO agents and the ELM decoder beside what was there."""
    workdir = finished.copy(tmp_path_factory.mktemp("baselines") / "run", without=("evaluation",))
    overrides = flags("elm_baseline", TINY_ELM) + flags("preference_agent", TINY_DPO)
    run_to_its_end(eagle, workdir, overrides, config=WITH_ELM)
    return workdir


def test_baselines_get_rows_and_comparisons_and_change_no_other_row(with_baselines, finished):
    table = read(with_baselines / "evaluation" / "table.json")
    rows = [row["row"] for row in table]
    assert rows[:2] == ["anchor", ELM] and rows[rows.index("EAGLE, g_optimal") + 1] == DPO
    assert [row for row in table if row["row"] not in (DPO, ELM)] == read(
        finished.workdir / "evaluation" / "table.json"
    )
    assert table[1]["num_pairs"] == table[0]["num_pairs"]
    assert table[1]["cells"]["environment_calls"]["mean"] == 0
    compared = [(c["row"], c["baseline"]) for c in read(with_baselines / "evaluation" / "comparisons.json")]
    assert {pair for pair in compared if ELM in pair} == {(ELM, "anchor"), ("EAGLE, g_optimal", ELM)}
    against = {baseline for row, baseline in compared if row == DPO}
    assert against == {"anchor", "reference policy, g_optimal", "EAGLE, g_optimal"}
    model = Path(AGENT, "model", "model.safetensors")  # what was there before is read as it is
    assert (with_baselines / model).read_bytes() == (finished.workdir / model).read_bytes()
    report = (with_baselines / "report.md").read_text().replace("\\", "")
    for told in (f"| {DPO}", "Pairs of the DPO agents", ELM_CHOICE, "forward passes per jacobian"):
        assert told in report
    assert "The ELM decoder as a baseline" not in report


def test_dpo_is_validated_as_reinforce_is_and_counts_its_calls(with_baselines):
    rows = {}
    for stage in (DPO_AGENT, AGENT):
        assert (with_baselines / stage / "model" / "model.safetensors").exists()
        rows[stage] = read_metrics(with_baselines / stage / "metrics" / "metrics.jsonl")
    # Both were validated three times, on the same starts: before training on the same texts.
    for name in ("validation/reward", "validation/environment_calls"):
        assert rows[DPO_AGENT][0][name] == rows[AGENT][0][name]
    assert len(rows[DPO_AGENT]) == len(rows[AGENT]) == 3
    for row in rows[DPO_AGENT][1:]:
        assert row["environment_calls"] == round(8 * (1 - row["malformed_actions"]))
        assert row["pairs"] + row["pairs/ties"] + row["pairs/without_choice"] == 4


def test_both_agents_can_be_asked_for_proposals_and_the_better_one_is_by_itself(with_baselines, monkeypatch):
    assert load_agent(with_baselines, DPO_AGENT).name == DPO_AGENT
    kept = {}
    for stage in (AGENT, DPO_AGENT):
        rows = read_metrics(with_baselines / stage / "metrics" / "metrics.jsonl")
        kept[stage] = max(rows, key=lambda row: row["validation/reward"])
    monkeypatch.setattr(loading._FinishedRun, "load", lambda self, chosen: (chosen.name, None))
    assert load_agent(with_baselines) == max(sorted(kept), key=lambda stage: kept[stage]["validation/gain"])
    said = f"has no agent 'agent_g_optimal_1'; did you mean '{AGENT}'.*; it has {AGENT}, {DPO_AGENT}"
    with pytest.raises(UserError, match=said):
        load_agent(with_baselines, "agent_g_optimal_1")


def test_the_decoders_metric_and_radius_are_the_best_of_a_sweep(with_baselines):
    facts, chosen = read(with_baselines / "elm_0" / "facts.json"), read(with_baselines / "elm_search" / "facts.json")
    assert facts["num_points"] == 30 and 0 < facts["loss_given_own_point"] < 10
    assert (with_baselines / "elm_0" / "model" / "embedding_lm.json").exists()
    sweep = read(with_baselines / "elm_search" / "sweep.json")
    wanted = [(metric, radius) for metric in ("euclidean", "pull_back") for radius in (0.0, 1.0)]
    assert [(row["metric"], row["radius"]) for row in sweep] == wanted
    best = max(sweep, key=lambda row: row["cells"]["train/utility"]["mean"])
    assert (chosen["metric"], chosen["radius"]) == (best["metric"], best["radius"])
    promised = [row["point_utility"] for row in sweep]
    assert promised[0] == pytest.approx(promised[2])  # a ball of radius 0 has no shape
    assert promised[1] > promised[0] and promised[3] > promised[2]
    assert chosen["forward_passes_per_jacobian"] > 1
