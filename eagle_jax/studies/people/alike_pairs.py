"""DPO without the pairs that are too alike by CHES, beside REAL's selections at equal numbers of labels.

A REAL run of its own in a folder: its supervised start, responses, pairs and labels are those of
`eagle_jax/real`. Of the pairs of the random selection, all labelled, CHES keeps a share; the same share
of labels without any dropping stands beside it.

Axis letters: `B` pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.embeddings.rank_correlation import spearman
from eagle_jax.real.labels import ResponsePair, summarize_pairs, training_pairs
from eagle_jax.real.run import RealRun
from eagle_jax.real.selection.ches import ches_scores, lowest_share
from eagle_jax.real.settings import RealExperiment
from eagle_jax.real.training.preference import log_probs_of, state_sums_of
from eagle_jax.real.training.runs import RunPlan, StartMeasures

CHES, CHES_MEAN = "CHES", "CHES by length"
LOW, HIGH = "least alike kept", "most alike kept"
RANDOM_PAIRS = "random"


@settings
class AlikePairSettings:
    """The third part: pairs that are too alike."""

    real: RealExperiment = setting("The run whose pairs these are.")
    kept_share: float = setting("Of the random selection's labelled pairs.", above=0, below=1)

    def __post_init__(self):
        if len(self.real.num_labels) != 1:
            raise ValueError(f"real.num_labels must be one number, of all selections, got {self.real.num_labels}")


class AlikePairsRun(RealRun):
    """REAL's stages, and one policy for each selection and seed."""

    experiment_name = "people"

    def measure(self, kept_share: float) -> dict[str, list[dict[str, Any]]]:
        """runs: a row for each policy. pairs: a row for each seed, what scores of pairs have to do with each other."""
        start = self.prepare()
        seeds = self.experiment.seeds
        self.labelled = {seed: {plan.strategy: plan.pairs for plan in self.plans(seed)} for seed in seeds}
        pairs = [self._score(seed) for seed in seeds]
        plans = [
            plan
            for seed, scores in zip(seeds, pairs, strict=True)
            for plan in self._selections(seed, scores, kept_share)
        ]
        runs = [self._run(plan, start) for plan in progress(plans, len(plans), "DPO", "policy")]
        return {"runs": runs, "pairs": [self._relations(seed, s, runs) for seed, s in zip(seeds, pairs, strict=True)]}

    def _score(self, seed: int) -> dict[str, np.ndarray]:
        """Scores [B] of the random selection's pairs under the policy before any label."""
        with self.stage(f"ches_{seed}", f"pairs_{seed}", seed=seed, training=self.experiment.training) as stage:
            if not stage.is_complete():
                stage.write_arrays("scores.npz", self._ches(self.labelled[seed][RANDOM_PAIRS]))
                stage.finish()
        return stage.read_arrays("scores.npz")

    def _ches(self, pairs: Sequence[ResponsePair]) -> dict[str, np.ndarray]:
        texts = training_pairs(self.examples["train"], pairs)
        prompts = [pair.prompt for pair in texts]
        settings, size = self.experiment.training, self.experiment.models.batch_size
        (chosen, long), (rejected, other) = (
            state_sums_of(self.policy, prompts, side, self.task.ending, settings, size)
            for side in ([pair.chosen for pair in texts], [pair.rejected for pair in texts])
        )
        return {CHES: ches_scores(chosen, rejected), CHES_MEAN: ches_scores(chosen, rejected, (long, other))}

    def _selections(self, seed: int, scores: Mapping[str, np.ndarray], kept_share: float) -> Iterator[RunPlan]:
        """All with equally many labels, but for the last: with as many as the dropping leaves pairs."""
        (num_labels,) = self.experiment.num_labels
        labelled = self.labelled[seed]
        for strategy, pairs in labelled.items():
            yield RunPlan(strategy=strategy, num_labels=num_labels, seed=seed, pairs=pairs)
        pairs = labelled[RANDOM_PAIRS]
        for side in (LOW, HIGH):
            rows = lowest_share(scores[CHES_MEAN], kept_share, highest=side == HIGH)
            strategy = f"{CHES_MEAN}, {side}"
            yield RunPlan(strategy=strategy, num_labels=num_labels, seed=seed, pairs=[pairs[row] for row in rows])
        count = max(1, round(kept_share * len(pairs)))
        yield RunPlan(strategy=RANDOM_PAIRS, num_labels=count, seed=seed, pairs=pairs[:count])

    def _run(self, plan: RunPlan, start: StartMeasures) -> dict[str, Any]:
        experiment = self.experiment
        name = plan.stage_name.replace(", ", "_").replace(" ", "_")
        with self.stage(
            name, f"ches_{plan.seed}", "start", **plan.place, num_pairs=len(plan.pairs), training=experiment.training,
            policy_training=experiment.policy_training, evaluation=experiment.evaluation,
        ) as stage:  # fmt: skip
            if not stage.is_complete():
                stage.begin()
                stage.write_json("run.json", self._measured(stage, plan, start))
                stage.finish()
            return stage.read_json("run.json")

    def _measured(self, stage: StageFolder, plan: RunPlan, start: StartMeasures) -> dict[str, Any]:
        """Nats that preferred responses gained, in training and held out, and what the policy writes."""
        seed = derive_seed(self.experiment.seed, 7, plan.seed)
        trained, _ = self.runs.train(stage, plan.pairs, seed=seed, name=stage.name)
        values, _ = self.runs.measure(trained, start, asks_rater=False)
        settings, size = self.experiment.training, self.experiment.models.batch_size
        texts = training_pairs(self.examples["train"], plan.pairs)
        preferred = [pair.prompt for pair in texts], [pair.chosen for pair in texts]
        after, before = (
            log_probs_of(model, *preferred, self.task.ending, settings, size) for model in (trained, self.policy)
        )
        gains = (after - before).astype(np.float64)
        return {
            **plan.place,
            **summarize_pairs(plan.pairs),
            "gains": gains.tolist(),
            "displaced": {
                "training": float(gains.mean()),
                "training_share": float((gains < 0).mean()),
                "held_out": values["held_out"]["rewards/chosen"] / settings.beta,
                "held_out_rejected": values["held_out"]["rewards/rejected"] / settings.beta,
            },
            **values,
        }

    def _relations(
        self, seed: int, scores: Mapping[str, np.ndarray], runs: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Spearman's correlations over the random selection's pairs: of scores with each other and what y+ gained."""
        (num_labels,) = self.experiment.num_labels
        (run,) = (r for r in runs if (r["strategy"], r["num_labels"], r["seed"]) == (RANDOM_PAIRS, num_labels, seed))
        pairs = self.labelled[seed][RANDOM_PAIRS]
        columns = {
            "gain": np.array(run["gains"]),
            "similarity": np.array([pair.similarity for pair in pairs]),
            "true_gap": np.array([pair.true_gap for pair in pairs]),
        }
        scores = {**scores, "cosine of mean states": columns["similarity"]}
        return {
            "seed": seed,
            "scores": {
                name: {of: float(spearman(values, column)) for of, column in columns.items() if column is not values}
                for name, values in scores.items()
            },
        }
