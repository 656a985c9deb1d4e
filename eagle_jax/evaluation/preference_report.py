"""The report of a study of preference pairs: report.html, which stands alone, and report.md.

It puts the claims of REAL (arXiv 2409.17169) beside what was found. Everything comes from
`ReportInput`, plain JSON-able values, so that a report can be made again from the artifacts of a
run. Text written by language models is untrusted: it is escaped, always.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportInput:
    """All that the report says; every field is JSON-able. An empty sequence: no such part.

    In rows None stands for what a run does not have (a true utility, a rater); it is told as "–".

    runs: [{"strategy", "num_labels", "seed", "label_error_rate", "mean_similarity",
      "train": {"loss", "rewards/margin", "rewards/accuracy"}, "held_out": {"loss",
      "rewards/chosen", "rewards/rejected", "rewards/margin", "rewards/accuracy"},
      "win_rate_true", "win_rate_rater", "rater_agreement", "mean_true_utility",
      "malformed_share"}], one for each trained model; no two with equal strategy, number of labels
      and seed.
    curves: [{"strategy", "num_labels", "seed", "step": [...], "metrics": {name: [...]}}].
    stability: [{"strategy", "seed", "step", "quantiles": [5, 25, 50, 75, 95 %],
      "rank_correlation"}]; step 0 is the start, where the correlation is 1.
    selection: [{"strategy", "num_pairs", "mean_similarity", "mean_true_gap", "num_invalid"}].
    pairs: [{"strategy", "similarity", "true_gap", "is_error"}], one for each labelled pair: its
      absolute gap in true utility, and whether its label contradicts the true preference.
    embeddings: [{"embedding", "metric", "strategy", "num_pairs", "mean_similarity",
      "mean_true_gap", "label_error_rate"}]: what other poolings, encoders and metrics would select.
    samples: [{"prompt", "rows": [{"strategy", "text", "true_utility"}]}].
    stages: [{"title", "facts": [{"name", "value", "meaning"}]}]: counts of what was read, what was
      malformed or left out, and what it cost.
    """

    title: str
    task: str  # a few sentences: prompts, policy, whose preference is the true one
    labels: str  # a sentence or two: who or what gave the labels
    opponent: str  # what win rates are against, e.g. "the supervised start"
    rater: str | None  # a sentence: who rated; None: nobody did
    confidence: float  # of all intervals, e.g. 0.95
    claim_num_labels: int  # the number of labels at which the claims are judged
    runs: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    stability: Sequence[Mapping[str, Any]]
    selection: Sequence[Mapping[str, Any]]
    pairs: Sequence[Mapping[str, Any]]
    embeddings: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    stages: Sequence[Mapping[str, Any]]
    left_out: Sequence[str]  # parts that this run does not have, and why
    not_reproduced: Sequence[str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
