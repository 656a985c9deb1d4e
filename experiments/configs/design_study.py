"""What the paper's rule for keeping k of K candidate actions does, beside designed subsets.

Paper: EAGLE (arXiv 2406.00024), section 4.3: draw 10 of 100 candidates at random until
    max_a z_a' Sigma^-1 z_a <= C n holds with C = 1. Here that rule (g_optimal_subsample) at several
    C, its control (random_subset), the largest weights of the solver's design (top_k) and Fedorov
    exchange, over n, k and K, on made-up, MiniLens and MovieLens embeddings.
Command: bash launch/run.sh experiments.design_study
    (36 seconds: --config=experiments/configs/design_study.py:quick; with MovieLens:
    EAGLE_DATA=<folder that holds ml-latest-small> in front)
Hardware: two CPU cores.
Time: 3 min 1 s with MovieLens; quick: 36 s.
Expect: with k <= n the paper's rule (C = 1) accepts 100 % of 224,000 draws, with k > n none of
    288,000, on every set: it keeps what random_subset keeps, and in 0 of 384 comparisons does
    exploration differ. Median factor where k >= rank: random 6.26, top_k 1.80, exchange 1.51; on
    MiniLens' changes, k = 10 of 100: 54 (3.8 % miss a direction), 2.24 and 1.64, and the best gain
    in U is 0.51, 0.64 and 0.66 (all 100 candidates: 0.72). C = 1.5 and 2 make a choice in some
    cells, which covers about as well as a random one.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from experiments.configs import eagle_minilens, eagle_movielens

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, without MovieLens: for tests)."""
    if variant not in ("default", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default or quick")
    config = ConfigDict()
    config.title = "What the paper's rule for keeping candidates does"
    config.seed = 0
    config.rank = 8  # r, directions of change, as in EAGLE's design
    config.shown_num_candidates = 100  # the paper's K; all others are in the long table
    config.shown_num_kept = 10  # the paper's k, for what is said of exploration
    config.sizes = ConfigDict(
        {
            "num_problems": 16,  # anchors of every set; intervals are over them
            "num_users": 8,  # for whom each candidate's utility is computed
        }
    )
    config.study = ConfigDict(
        {
            "subset_sizes": (5, 10, 20, 40),  # k; the paper: 10
            "subsample_factors": (1.0, 1.05, 1.5, 2.0),  # C; the paper: 1
            "num_draws": 200,  # of every problem; then the rule gives up
            "solver": {
                "max_approximation_factor": 1.001,
                "rank_tolerance": 1e-4,  # as in EAGLE's design
            },
            "bootstrap": {"num_resamples": 1000, "confidence": 0.95, "seed": 0},
        }
    )
    config.synthetic = ConfigDict(
        {
            "widths": (4, 8, 16, 64),  # n
            "num_candidates": (50, 100, 200),  # K
            "num_clusters": 10,
            "cluster_spread": 0.1,
        }
    )
    config.minilens = ConfigDict(
        {
            "experiment": _minilens_experiment(),
            "eagle_workdir": "",  # a work directory of this experiment, read instead of made
            "num_candidates": (50, 100),
        }
    )
    config.movielens = _movielens()
    if variant == "quick":
        _make_quick(config)
    return config.lock()


def _minilens_experiment() -> ConfigDict:
    """EAGLE's default as far as the candidates, with fewer anchors."""
    experiment = eagle_minilens.get_config()
    with experiment.unlocked():
        experiment.candidates.num_entities = 20  # a few more than are used
    return experiment


def _movielens() -> ConfigDict | None:
    """Only where the data is: None leaves the set out, and the report says so."""
    folder = Path(os.environ.get("EAGLE_DATA", "data")) / "ml-latest-small"
    if not folder.is_dir():
        return None
    of_eagle = eagle_movielens.get_config()
    return ConfigDict(
        {
            "catalogue": of_eagle.catalogue,
            "wals": of_eagle.wals,
            "utility": of_eagle.utility,
            "widths": (16, 64),  # n, one fit each
            "num_candidates": (50, 100, 200),
            "min_ratings": 10,  # fewer say too little about a film's embedding
        }
    )


def _make_quick(config: ConfigDict) -> None:
    """Two widths, two subset sizes, a small MiniLens: what is said of k and n still shows."""
    config.title = "What the paper's rule for keeping candidates does, quick"
    config.rank = 4
    config.shown_num_candidates = 40
    config.shown_num_kept = 12
    config.sizes = ConfigDict({"num_problems": 4, "num_users": 2})
    config.study.subset_sizes = (5, 12)
    config.study.subsample_factors = (1.0, 1.5)
    config.study.num_draws = 50
    config.synthetic.widths = (4, 8)
    config.synthetic.num_candidates = (40,)
    config.minilens.num_candidates = (40,)
    experiment = config.minilens.experiment
    with experiment.unlocked():
        experiment.catalogue.minilens.num_films = 300
        experiment.catalogue.minilens.num_users = 80
        experiment.wals.num_iterations = 5
        experiment.held_out_domain_encoder.max_epochs = 4
        experiment.profiles.max_tries = 2
        experiment.candidates.num_entities = 4
        experiment.candidates.candidates.num_generic = 22
        experiment.candidates.candidates.num_personalised = 22
    config.movielens = None
