"""G-optimal designs of a whole catalogue: 100,000 problems, streamed, sharded, resumable.

Paper: EAGLE (arXiv 2406.00024), section 4.3: the reference distribution over 100 candidate actions
    of an entity, here for every entity of a catalogue at once.
Command: bash launch/run.sh experiments.designs
    (your own embeddings: --config.next_embeddings=<file.npy or folder> --workdir=runs/own;
    seconds: --config=experiments/configs/catalogue_designs.py:quick)
Hardware: two CPU cores.
Time: 48 s; 0.64 GB of disk for the embeddings that it makes up, 53 MB for the designs.
Expect: 100,000 of 100,000 solved to 1.0001, in 3 to 6 iterations; the 24 kept rows, with equal
    weights, reach a factor of 1.43 in the median and 1.84 at most. The embeddings are synthetic:
    this shows that the machinery keeps its promises at this size, and says nothing about films.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (1,000 smaller problems: for tests)."""
    if variant not in ("default", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default or quick")
    config = ConfigDict()
    # A .npy file [problems, candidates, width] or a folder of them, sorted by name; without one
    # the synthetic catalogue is made in the work directory.
    config.next_embeddings = placeholder(str)
    config.synthetic = ConfigDict(
        {
            "seed": 0,
            "num_problems": 100_000,
            "num_candidates": 100,  # K, as in the paper
            "width": 16,  # d
            "num_clusters": 20,  # of a problem's candidates
            "cluster_spread": 0.3,  # in units of the spread between clusters
            "spectrum_exponent": 0.5,
            "mean_length": 1.0,  # the direction that all embeddings share
        }
    )
    config.design = ConfigDict(
        {
            "method": "interior_point",
            "max_approximation_factor": 1.0001,
            "max_iterations": 50,
            "rank_tolerance": 1e-6,
            "max_rank": placeholder(int),  # None: all directions that pass rank_tolerance
            "ridge": 0.0,
        }
    )
    config.num_kept = 24  # 1.5 times the rank
    config.problems_per_chunk = 2048  # in memory at a time, and lost at most by an interruption
    config.num_threads = placeholder(int)  # of a single CPU device; None: one per core
    if variant == "quick":
        config.synthetic.update({"num_problems": 1000, "num_candidates": 20, "width": 4})
        config.synthetic.num_clusters = 8
        config.num_kept = 6
        config.problems_per_chunk = 128
    return config.lock()
