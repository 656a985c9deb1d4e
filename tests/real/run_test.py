"""The tiny REAL experiment from its command line: artifacts, their arithmetic, faults."""

import dataclasses
import json
import re

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.real.selection.stage import Embeddings, PairChooser
from eagle_jax.real.settings import RealExperiment

CONFIG = "experiments/configs/real_minilens.py:quick"


def read(workdir, name):
    return json.loads((workdir / name).read_text())


def examples(workdir, part):
    return [json.loads(line) for line in (workdir / f"responses/{part}.jsonl").open()]


def test_every_run_of_the_plan_is_measured(finished_real):
    runs = sorted(path.parent.name for path in finished_real.workdir.glob("policy_*/run.json"))
    assert runs == sorted(
        f"policy_{strategy}_{count}_0"
        for strategy in ("easy", "random", "implicit_reward_gap_small")
        for count in (8, 12)
    )
    for name in runs:
        run = read(finished_real.workdir, f"{name}/run.json")
        assert f"policy_{run['strategy']}_{run['num_labels']}_{run['seed']}" == name
        assert run["num_pairs"] == run["num_labels"]
        assert 0.0 <= run["win_rate_true"] <= 1.0
        is_largest = run["num_labels"] == 12
        assert (run["win_rate_rater"] is not None) == is_largest
        assert (finished_real.workdir / name / "model").is_dir() == is_largest
    assert not list(finished_real.workdir.glob("policy_*/checkpoints"))


def test_easy_pairs_are_the_least_similar_by_a_float64_loop(finished_real):
    with np.load(finished_real.workdir / "embeddings/mean_states_00000.npz") as arrays:
        vectors, is_valid = arrays["vectors"].astype(np.float64), arrays["is_valid"]
    for pair in read(finished_real.workdir, "pairs_0/pairs.json")["easy"]:
        own = vectors[pair["prompt_index"]][is_valid[pair["prompt_index"]]]
        cosines = {}
        for j in range(len(own)):
            for i in range(j):
                lengths = np.linalg.norm(own[i]) * np.linalg.norm(own[j])
                cosines[i, j] = own[i] @ own[j] / lengths
        least = min(cosines.values())
        assert cosines[pair["first"], pair["second"]] == pytest.approx(least, abs=1e-5)
        assert pair["similarity"] == pytest.approx(least, abs=1e-5)


def test_labels_are_judged_by_the_true_utilities(finished_real):
    rows = examples(finished_real.workdir, "train")
    for name, pairs in read(finished_real.workdir, "pairs_0/pairs.json").items():
        for pair in pairs:
            scores = rows[pair["prompt_index"]]["scores"]
            chosen, rejected = pair["label"]
            assert pair["is_error"] == (scores[chosen] < scores[rejected]), name
            assert pair["true_gap"] == pytest.approx(abs(scores[chosen] - scores[rejected]))
        run = read(finished_real.workdir, f"policy_{name}_12_0/run.json")
        errors = [pair["is_error"] for pair in pairs]
        assert run["label_error_rate"] == pytest.approx(np.mean(errors))


def test_gap_strategies_pay_for_their_warm_up(finished_real):
    pairs = read(finished_real.workdir, "pairs_0/pairs.json")
    assert pairs["implicit_reward_gap_small"][:4] == pairs["random"][:4]
    prompts = [pair["prompt_index"] for pair in pairs["implicit_reward_gap_small"]]
    assert len(set(prompts)) == len(prompts) == 12
    assert prompts == [pair["prompt_index"] for pair in pairs["random"]]


def test_rewards_are_those_of_the_saved_models_under_transformers(finished_real):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    workdir = finished_real.workdir
    ending = " #END_REASONS_TO_DISLIKE"

    def log_probs(folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        values = []
        for row in examples(workdir, "test"):
            prompt = tokenizer(row["prompt"], return_tensors="pt").input_ids
            for response in row["responses"]:
                text = f"{row['prompt']} {response}{ending}"
                ids = tokenizer(text, return_tensors="pt").input_ids
                with torch.no_grad():
                    logits = model(ids).logits[0, prompt.shape[1] - 1 : -1]
                own = ids[0, prompt.shape[1] :]
                values.append(logits.log_softmax(-1).gather(1, own[:, None]).sum().item())
        return np.array(values)

    rewards = log_probs(workdir / "policy_random_12_0/model") - log_probs(workdir / "supervised/model")
    margins, first = [], 0
    for row in examples(workdir, "test"):
        own, scores = rewards[first : first + len(row["scores"])], row["scores"]
        first += len(scores)
        better = [(i, j) for i in range(len(own)) for j in range(len(own)) if scores[i] > scores[j]]
        margins += [own[i] - own[j] for i, j in better]
    held_out = read(workdir, "policy_random_12_0/run.json")["held_out"]
    assert len(margins) > 6
    assert held_out["rewards/margin"] == pytest.approx(np.mean(margins), abs=2e-4)
    assert held_out["rewards/accuracy"] == pytest.approx(np.mean(np.array(margins) > 0), abs=0.06)
    losses = np.log1p(np.exp(-np.array(margins)))
    assert held_out["loss"] == pytest.approx(losses.mean(), abs=2e-4)


def test_files_of_your_own_are_selected_across_prompts(real, tmp_path):
    path = tmp_path / "own.csv"
    words = [("grim", "revenge"), ("tender", "rescue"), ("eerie", "betrayal"), ("wry", "trial")]
    rows = [
        f"write the film {slot} for user {user}.,make the tone {good}.,bring in {bad}.,1"
        for slot in ("story", "mood", "hero")
        for user, (good, bad) in enumerate(words)
    ]
    path.write_text("prompt,response_1,response_2,label\n" + "\n".join(rows) + "\nlost,,,\n")
    overrides = [
        f"--config.{name}={value}"
        for name, value in {
            "source": "files",
            "files.paths": f"('{path}',)",
            "files.file_format": "table",
            "models.policy": "minilens/policy",
            "selection.strategies": "('easy', 'random')",
            "selection.embedding": "states",
            "num_labels": "(4,)",
            "supervised.training.num_steps": "4",
        }.items()
    ]
    changed = ("minilens.", "generation.", "selection.", "num_labels", "supervised.training.num_")
    own = {key: value for key, value in real.settings.items() if not key.startswith(changed)}
    tiny = dataclasses.replace(real, config="experiments/configs/real_hh_rlhf.py", settings=own)
    code, _, stderr = tiny.run(tmp_path / "run", overrides)
    assert code == 0, stderr
    pairs = read(tmp_path / "run", "pairs_0/pairs.json")
    assert len(pairs["easy"]) == 4
    assert all(pair["label"] == [0, 1] for pair in pairs["easy"])
    similarities = sorted(pair["similarity"] for pair in pairs["easy"])
    assert similarities == [pair["similarity"] for pair in pairs["easy"]]
    run = read(tmp_path / "run", "policy_easy_4_0/run.json")
    assert run["win_rate_true"] is None and run["label_error_rate"] is None
    report = (tmp_path / "run" / "report.md").read_text()
    assert "own.csv" in report and "fewer than two responses" in report


def test_more_labels_than_prompts_are_refused(finished_real):
    stage = StageFolder(finished_real.workdir / "embeddings", {})
    settings = to_settings(RealExperiment, load_config(CONFIG)).selection
    chooser = PairChooser(Embeddings(stage, "mean_states", "cosine", 1), settings, 0)
    with pytest.raises(UserError, match="99 labels are wanted, but only 12 of 12 prompts have two usable responses"):
        chooser.choose("easy", 99, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"selection.strategies": ("easy",)}, "random is missing"),
        ({"selection.strategies": ("random", "medium")}, "strategies[1]: expected one of 'easy'"),
        ({"selection.scope": "across"}, "centroid selects within a prompt"),
        ({"selection.embedding": "other"}, "selection.embedding 'other' is none of mean_states"),
        ({"labels.source": "rater", "rater": None}, "labels.source is rater, but rater is None"),
        ({"labels.source": "nobody"}, "source 'nobody' is none of data, simulated, rater"),
        ({"source": "files"}, "source is files, but files is None"),
        ({"generation": None}, "MiniLens' requests have no responses yet"),
        ({"num_labels": (48, 24)}, "num_labels must increase"),
        ({"generation.generator": "remote/x"}, "'remote/x' is not in the table remote"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes, said):
    config = load_config(CONFIG)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(changes)
    with pytest.raises(SettingsError, match=re.escape(said)):
        to_settings(RealExperiment, config)
