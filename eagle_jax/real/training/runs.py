"""One policy for each strategy, number of labels and seed: trained, then measured held out.

Axis letters: N held-out prompts, R all responses to them, P pairs of these.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.preferences.examples import PreferenceExample, all_responses, by_prompt, known_label
from eagle_jax.data.prompts import PROMPT_BOOKS
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
    stability,
    utility_win_rate,
)
from eagle_jax.real.labels import ResponsePair, summarize_pairs, training_pairs
from eagle_jax.real.selection.embeddings import StabilityPairs
from eagle_jax.real.settings import RealExperiment
from eagle_jax.real.task import RealTask
from eagle_jax.real.training.losses import PairValues, implicit_rewards
from eagle_jax.real.training.preference import Probe, log_probs_of, num_training_steps, train_preference
from eagle_jax.real.training.step import PreferenceSettings


@dataclasses.dataclass(frozen=True)
class StartMeasures:
    """What the policy before any label says of the held-out part; runs are compared with it."""

    log_probs: np.ndarray  # [R]
    texts: list[str]  # [N], one sampled response to each prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run's place in the table, and what it is trained on."""

    strategy: str
    num_labels: int
    seed: int
    pairs: Sequence[ResponsePair]

    @property
    def stage_name(self) -> str:
        return f"policy_{self.strategy}_{self.num_labels}_{self.seed}"

    @property
    def place(self) -> dict[str, Any]:
        return {"strategy": self.strategy, "num_labels": self.num_labels, "seed": self.seed}


@dataclasses.dataclass(eq=False)
class PolicyRuns:
    """The policies of an experiment: trained from the supervised start, measured on what is held out.

    policy: that start. examples: by part. rater: of win rates, None without one. known_pairs: places
    [P] among all R held-out responses of the better and the worse one of every pair that the data
    knows the order of; raises UserError where it knows none.
    """

    experiment: RealExperiment
    task: RealTask
    policy: LanguageModel
    examples: Mapping[str, Sequence[PreferenceExample]]
    rater: TextGenerator | None
    known_pairs: PairValues = dataclasses.field(init=False)

    def __post_init__(self):
        pairs, first = [], 0
        for example in self.examples["test"]:
            for i in range(len(example.responses)):
                labels = [known_label(example, j, i) for j in range(i)]
                pairs += [(first + label[0], first + label[1]) for label in labels if label is not None]
            first += len(example.responses)
        if not pairs:
            raise UserError(
                "the held-out prompts have no pair of responses with a known order: their file needs "
                "labels or scores, which accuracy and margin are measured on"
            )
        self.known_pairs = PairValues(*np.array(pairs).T)

    def train(
        self,
        stage: StageFolder,
        pairs: Sequence[ResponsePair],
        *,
        folder: str = "",
        seed: int,
        name: str,
        probe: Probe | None = None,
    ) -> tuple[LanguageModel, list[dict[str, Any]]]:
        """The policy after its pairs, and the rows of metrics/, which lie in `folder` of the stage."""
        checkpoints = stage.path / folder / "checkpoints"
        params, history = train_preference(
            self.experiment.policy_model.for_training(self.policy),
            self.experiment.policy_training.mode,
            training_pairs(self.examples["train"], pairs),
            self.task.ending,
            self.experiment.training,
            records=Records(
                Checkpoints(checkpoints, digest=stage.digest, max_to_keep=1), stage.path / folder / "metrics", name
            ),
            seed=seed,
            probe=probe,
        )
        # Dozens of runs are trained: what they needed on the way would fill the disk.
        shutil.rmtree(checkpoints)
        return dataclasses.replace(self.policy, name=name, params=params), history

    def rewards_after(self, stage: StageFolder, pairs: Sequence[ResponsePair], seed: int) -> np.ndarray:
        """Implicit rewards [N, K] of all training responses after training on the given pairs."""
        stage.begin()
        own_seed = derive_seed(self.experiment.seed, 4, seed)
        trained, _ = self.train(stage, pairs, folder="warmup", seed=own_seed, name=f"warm-up {seed}")
        log_probs = (self.log_probs(model, "train") for model in (trained, self.policy))
        rewards = implicit_rewards(*log_probs, self.experiment.training.beta)
        examples = self.examples["train"]
        return by_prompt(examples, rewards, max(len(example.responses) for example in examples))

    def log_probs(self, policy: LanguageModel, part: str) -> np.ndarray:
        """log pi of every response of a part [R]."""
        experiment = self.experiment
        responses = all_responses(self.examples[part])
        return log_probs_of(policy, *responses, self.task.ending, experiment.training, experiment.models.batch_size)

    def texts(self, policy: LanguageModel) -> list[str]:
        """One response to each held-out prompt, drawn with the same seed for every policy."""
        models, sampling = self.experiment.models, self.experiment.evaluation.sampling
        generator = LocalGenerator(policy, models.batch_size, models.length_multiple)
        made = generator.generate(self.task.prompts["test"], sampling, derive_seed(self.experiment.seed, 5))
        return [generation.text.strip() for generation in made]

    def start(self, stage: StageFolder) -> StartMeasures:
        """What every run is compared with; writes log_probs.npz and texts.json."""
        if not stage.is_complete():
            stage.write_arrays("log_probs.npz", {"log_probs": self.log_probs(self.policy, "test")})
            stage.write_json("texts.json", self.texts(self.policy))
            stage.finish()
        return StartMeasures(stage.read_arrays("log_probs.npz")["log_probs"], stage.read_json("texts.json"))

    def run(self, stage: StageFolder, plan: RunPlan, start: StartMeasures, followed: StabilityPairs | None) -> None:
        """Trains and measures one policy; writes run.json, texts.json, metrics/ and, of the largest
        number of labels, model/ and how similarities moved."""
        if stage.is_complete():
            return
        stage.begin()
        experiment = self.experiment
        is_largest = plan.num_labels == experiment.num_labels[-1]
        probe = stability_probe(self.policy, followed, plan) if is_largest and followed is not None else None
        seed = derive_seed(experiment.seed, 7, plan.seed)
        trained, history = self.train(stage, plan.pairs, seed=seed, name=stage.name, probe=probe)
        values, texts = self.measure(trained, start, asks_rater=is_largest)
        own = _last_epoch(history, len(plan.pairs), experiment.training)
        stage.write_json("run.json", {**plan.place, **summarize_pairs(plan.pairs), "train": own, **values})
        stage.write_json("texts.json", texts)
        if is_largest:
            experiment.policy_model.save(trained, stage.path / "model")
        stage.finish()

    def measure(
        self, policy: LanguageModel, start: StartMeasures, asks_rater: bool
    ) -> tuple[dict[str, Any], list[str]]:
        """Metrics of the report's rows, and the policy's own responses."""
        texts = self.texts(policy)
        prompts = [prompt.text for prompt in self.task.prompts["test"]]
        values: dict[str, Any] = {
            "held_out": self._rewards(self.log_probs(policy, "test"), start),
            "malformed_share": float(np.mean(list(map(self.task.is_malformed, prompts, texts)))),
            "win_rate_true": None,
            "mean_true_utility": None,
            "win_rate_rater": None,
            "rater_agreement": None,
        }
        if self.task.has_utility:
            ours, theirs = (np.array(list(map(self.task.utility, prompts, told))) for told in (texts, start.texts))
            values["win_rate_true"] = utility_win_rate(ours, theirs)
            values["mean_true_utility"] = float(ours.mean())
        if asks_rater and self.rater is not None:
            answers, num_identical = self._rated(prompts, texts, start.texts)
            values["win_rate_rater"] = rater_win_rate(answers, num_identical)
            values["rater_agreement"] = answers.agreement
        return values, texts

    def _rewards(self, log_probs: np.ndarray, start: StartMeasures) -> dict[str, float]:
        """Means over all held-out pairs whose true order is known; DPO's loss on them."""
        policy, reference = (
            PairValues(*(values[places] for places in self.known_pairs)) for values in (log_probs, start.log_probs)
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
        book = PROMPT_BOOKS[self.experiment.prompts]
        seed = derive_seed(self.experiment.seed, 6)
        return rate_questions(asked, self.rater, book, self.experiment.rater.sampling, seed), num_identical


def _last_epoch(history: Sequence[Mapping[str, Any]], num_pairs: int, settings: PreferenceSettings) -> dict[str, float]:
    """Means over the logged steps of the last epoch, in which every pair is seen once."""
    last = max(row["step"] for row in history)
    first = last - num_training_steps(num_pairs, settings) // settings.num_epochs
    rows = [row for row in history if row["step"] > first and "loss" in row]
    names = ("loss", "rewards/margin", "rewards/accuracy")
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def stability_probe(policy: LanguageModel, pairs: StabilityPairs, plan: RunPlan) -> Probe:
    """How far the fixed pairs' similarities at a step are from those at the start."""
    start = pairs.similarities(policy.params)

    def probe(step: int, params: Params) -> Mapping[str, float]:
        where = f"strategy {plan.strategy!r}, seed {plan.seed}, step {step}"
        return stability(pairs.similarities(params), start, pairs.prompt_index, where)

    return probe


def stability_rows(plan: RunPlan, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the report from what the probe wrote into the metrics."""
    return [
        {
            "strategy": plan.strategy,
            "seed": plan.seed,
            "step": row["step"],
            "quantiles": [row[f"probe/similarity_{percent}"] for percent in STABILITY_PERCENTS],
            "rank_correlation": row["probe/rank_correlation"],
            "easy_overlap": row.get("probe/easy_overlap"),
        }
        for row in history
        if "probe/rank_correlation" in row
    ]
