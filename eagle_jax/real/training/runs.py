"""One policy for each strategy, number of labels and seed: trained, then measured held out.

Axis letters: N held-out prompts, R all responses to them, P pairs of these.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.preferences.examples import PreferenceExample, PreferencePair, known_label
from eagle_jax.data.prompts import PromptBook
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.learning.loop import Records
from eagle_jax.real.annotators import Answers, Question, rate_questions
from eagle_jax.real.evaluation.measures import (
    STABILITY_PERCENTS,
    mean_rewards,
    rater_win_rate,
    stability_row,
    utility_win_rate,
)
from eagle_jax.real.labels import LabelledPair, summarize_pairs, training_pairs
from eagle_jax.real.selection.embeddings import StabilityPairs
from eagle_jax.real.settings import RealExperiment
from eagle_jax.real.task import RealTask
from eagle_jax.real.training.losses import PairValues
from eagle_jax.real.training.preference import Probe, log_probs_of, num_training_steps, train_preference
from eagle_jax.real.training.step import PreferenceSettings
from eagle_jax.stages.models import model_path
from eagle_jax.stages.policy_models import for_training, save_policy

_CHECKPOINTS = "checkpoints"  # of a run that goes on; removed when it is done
_QUANTILES = [f"similarity_{percent}" for percent in STABILITY_PERCENTS]


@dataclasses.dataclass(frozen=True)
class StartMeasures:
    """What the policy before any label says of the held-out part; runs are compared with it."""

    log_probs: np.ndarray  # [R]
    texts: list[str]  # [N], one sampled response to each prompt


class HeldOut:
    """The held-out prompts and responses, and every measure on them."""

    def __init__(
        self,
        experiment: RealExperiment,
        task: RealTask,
        examples: Sequence[PreferenceExample],
        rater: TextGenerator | None,
        book: PromptBook,
    ):
        self.experiment, self.task, self.rater, self.book = experiment, task, rater, book
        self.prompts = [example.prompt for example in examples for _ in example.responses]
        self.responses = [response for example in examples for response in example.responses]
        self.chosen, self.rejected = _known_pairs(examples)

    @property
    def rater_name(self) -> str | None:
        return None if self.rater is None else self.rater.name

    def log_probs(self, policy: LanguageModel) -> np.ndarray:
        """log pi of every held-out response [R]."""
        experiment = self.experiment
        return log_probs_of(
            policy, self.prompts, self.responses, self.task.ending, experiment.training, experiment.models.batch_size
        )

    def texts(self, policy: LanguageModel) -> list[str]:
        """One response to each held-out prompt, drawn with the same seed for every policy."""
        models, evaluation = self.experiment.models, self.experiment.evaluation
        generator = LocalGenerator(policy, models.batch_size, models.length_multiple)
        seed = derive_seed(self.experiment.seed, 5)
        made = generator.generate(self.task.prompts["test"], evaluation.sampling, seed)
        return [generation.text.strip() for generation in made]

    def measure(
        self, policy: LanguageModel, start: StartMeasures, asks_rater: bool
    ) -> tuple[dict[str, Any], list[str]]:
        """Metrics of the report's rows, and the policy's own responses."""
        texts = self.texts(policy)
        prompts = [prompt.text for prompt in self.task.prompts["test"]]
        malformed = [self.task.is_malformed(*row) for row in zip(prompts, texts, strict=True)]
        values: dict[str, Any] = {
            "held_out": self._rewards(self.log_probs(policy), start),
            "malformed_share": float(np.mean(malformed)),
            "win_rate_true": None,
            "mean_true_utility": None,
            "win_rate_rater": None,
            "rater_agreement": None,
        }
        if self.task.has_utility:
            ours, theirs = (
                np.array([self.task.utility(p, t) for p, t in zip(prompts, responses, strict=True)])
                for responses in (texts, start.texts)
            )
            values["win_rate_true"] = utility_win_rate(ours, theirs).rate
            values["mean_true_utility"] = float(ours.mean())
        if asks_rater and self.rater is not None:
            answers, num_identical = self._rated(prompts, texts, start.texts)
            values["win_rate_rater"] = rater_win_rate(answers, num_identical).rate
            values["rater_agreement"] = answers.agreement
        return values, texts

    def _rewards(self, log_probs: np.ndarray, start: StartMeasures) -> dict[str, float]:
        """Means over all held-out pairs whose true order is known; DPO's loss on them."""
        policy, reference = (
            PairValues(values[self.chosen], values[self.rejected]) for values in (log_probs, start.log_probs)
        )
        beta = self.experiment.training.beta
        margins = beta * (policy.chosen - policy.rejected - reference.chosen + reference.rejected)
        loss = float(np.logaddexp(0.0, -margins.astype(np.float64)).mean())
        return {"loss": loss, **mean_rewards(policy, reference, beta)}

    def _rated(self, prompts: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> tuple[Answers, int]:
        """Only texts that differ and are not empty are asked about; an empty one is left out."""
        rows = list(zip(prompts, ours, theirs, strict=True))
        asked = [Question(*row) for row in rows if all(row) and row[1].split() != row[2].split()]
        num_identical = sum(row[1].split() == row[2].split() for row in rows)
        seed = derive_seed(self.experiment.seed, 6)
        sampling = self.experiment.rater.sampling
        return rate_questions(asked, self.rater, self.book, sampling, seed), num_identical


def _known_pairs(examples: Sequence[PreferenceExample]) -> tuple[np.ndarray, np.ndarray]:
    """Places [P] among all R responses of the better and the worse one of every pair that the data
    knows the order of. Raises UserError where it knows none."""
    chosen, rejected = [], []
    first = 0
    for example in examples:
        for i in range(len(example.responses)):
            for j in range(i):
                if (label := known_label(example, j, i)) is not None:
                    chosen.append(first + label[0])
                    rejected.append(first + label[1])
        first += len(example.responses)
    if not chosen:
        raise UserError(
            "the held-out prompts have no pair of responses with a known order: their file needs "
            "labels or scores, which accuracy and margin are measured on"
        )
    return np.array(chosen), np.array(rejected)


def run_start_stage(stage: StageFolder, held_out: HeldOut, policy: LanguageModel) -> StartMeasures:
    """What every run is compared with; writes log_probs.npz and texts.json."""
    if not stage.is_complete():
        stage.write_arrays("log_probs.npz", {"log_probs": held_out.log_probs(policy)})
        stage.write_json("texts.json", held_out.texts(policy))
        stage.finish()
    log_probs = stage.read_arrays("log_probs.npz")["log_probs"]
    return StartMeasures(log_probs, stage.read_json("texts.json"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run's place in the table, and what it is trained on."""

    strategy: str
    num_labels: int
    seed: int
    pairs: Sequence[LabelledPair]

    @property
    def stage_name(self) -> str:
        return f"policy_{self.strategy}_{self.num_labels}_{self.seed}"

    @property
    def place(self) -> dict[str, Any]:
        return {"strategy": self.strategy, "num_labels": self.num_labels, "seed": self.seed}


def run_policy_stage(
    stage: StageFolder,
    plan: RunPlan,
    policy: LanguageModel,
    examples: Sequence[PreferenceExample],
    held_out: HeldOut,
    start: StartMeasures,
    stability: StabilityPairs | None,
) -> None:
    """Trains and measures one policy; writes run.json, texts.json, metrics/ and, of the largest
    number of labels, model/ and how similarities moved."""
    if stage.is_complete():
        return
    stage.begin()
    experiment = held_out.experiment
    is_largest = plan.num_labels == experiment.num_labels[-1]
    probe = None
    if is_largest and stability is not None:
        probe = stability_probe(policy, stability, plan)
    trained, history = train_policy(
        stage.path,
        stage.digest,
        policy,
        training_pairs(examples, plan.pairs),
        held_out.task.ending,
        experiment,
        seed=derive_seed(experiment.seed, 7, plan.seed),
        description=stage.name,
        probe=probe,
    )
    values, texts = held_out.measure(trained, start, asks_rater=is_largest)
    stage.write_json(
        "run.json",
        {
            **plan.place,
            **summarize_pairs(plan.pairs),
            "train": _last_epoch(history, len(plan.pairs), experiment.training),
            **values,
        },
    )
    stage.write_json("texts.json", texts)
    if is_largest:
        save_policy(trained, stage.path / "model", model_path(experiment.models.policy))
    stage.finish()


def _last_epoch(history: Sequence[Mapping[str, Any]], num_pairs: int, settings: PreferenceSettings) -> dict[str, float]:
    """Means over the logged steps of the last epoch, in which every pair is seen once."""
    last = max(row["step"] for row in history)
    first = last - num_training_steps(num_pairs, settings) // settings.num_epochs
    rows = [row for row in history if row["step"] > first and "loss" in row]
    names = ("loss", "rewards/margin", "rewards/accuracy")
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def train_policy(
    folder: Path,
    digest: str,
    policy: LanguageModel,
    pairs: Sequence[PreferencePair],
    ending: str | None,
    experiment: RealExperiment,
    *,
    seed: int,
    description: str,
    probe: Probe | None,
) -> tuple[LanguageModel, list[dict[str, Any]]]:
    """The policy after its pairs, and the rows of metrics/ in `folder`."""
    result = train_preference(
        for_training(policy, experiment.policy_training),
        experiment.policy_training.mode,
        pairs,
        ending,
        experiment.training,
        records=Records(
            Checkpoints(folder / _CHECKPOINTS, digest=digest, max_to_keep=1), folder / "metrics", description
        ),
        seed=seed,
        probe=probe,
    )
    # Dozens of runs are trained: what they needed on the way would fill the disk.
    shutil.rmtree(folder / _CHECKPOINTS)
    return dataclasses.replace(policy, name=description, params=result.params), result.history


def stability_probe(policy: LanguageModel, pairs: StabilityPairs, plan: RunPlan) -> Probe:
    """Quantiles of the fixed pairs' similarities at a step, and their order against the start's."""
    start = pairs.similarities(policy.params)

    def probe(step: int, params: Params) -> Mapping[str, float]:
        now = pairs.similarities(params)
        row = stability_row(now, start, pairs.prompt_index, strategy=plan.strategy, seed=plan.seed, step=step)
        values = dict(zip(_QUANTILES, row["quantiles"], strict=True))
        for name in ("rank_correlation", "easy_overlap"):
            if row[name] is not None:
                values[name] = row[name]
        return values

    return probe


def stability_rows(plan: RunPlan, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the report from what the probe wrote into the metrics."""
    return [
        {
            "strategy": plan.strategy,
            "seed": plan.seed,
            "step": row["step"],
            "quantiles": [row[f"probe/{name}"] for name in _QUANTILES],
            "rank_correlation": row["probe/rank_correlation"],
            "easy_overlap": row.get("probe/easy_overlap"),
        }
        for row in history
        if "probe/rank_correlation" in row
    ]
