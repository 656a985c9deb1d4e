"""REAL across the prompts of Anthropic's HH-RLHF, or of your own preference files.

Paper: REAL (arXiv 2409.17169), section 4: with two responses per prompt the choice is across
    prompts; easy is the half with the lowest similarity, hard the half with the highest.
Command: EAGLE_DATA=<folder that holds hh-rlhf and lm> bash launch/run.sh experiments.real
    --config=experiments/configs/real_hh_rlhf.py --workdir=runs/real_hh_rlhf
    (your own: --config.files.paths="('my.parquet',)" --config.files.file_format=table; another
    policy: --config.models.policy=<folder>; selection by a sentence encoder in the folder
    EAGLE_SENTENCE_ENCODER: real_hh_rlhf.py:sentence_encoder)
Hardware: two CPU cores, for the policy of 0.7 million parameters that is set here.
Time: 28 minutes with the sentence encoder, 27 without it, while other jobs ran beside it.
Expect: next to nothing can be learned by a model this small: accuracy on held-out pairs 0.529
    [0.517, 0.542] for easy, 0.496 [0.446, 0.547] for hard, 0.488 [0.471, 0.505] for random (0.5 is
    chance; easy and hard train on the same pairs with every seed, in another order). Loss: easy
    less random -0.004 [-0.008, -0.001]; nothing is shown against hard. With :sentence_encoder, of the
    1000 pairs that easy selects by the policy's states 462 are also selected by all-MiniLM-L6-v2, of
    hard's 492; chance is 239.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.configs import real_minilens

SCHEMA = 3


def get_config(variant: str = "states") -> ConfigDict:
    """`variant`: what selects, the policy's own mean-pooled `states` or a `sentence_encoder`."""
    if variant not in ("states", "sentence_encoder"):
        raise ValueError(f"unknown variant {variant!r}: expected states or sentence_encoder")
    data = Path(os.environ.get("EAGLE_DATA", "data"))
    config = real_minilens.get_config()
    with config.unlocked():
        config.title = "REAL on HH-RLHF"
        config.prompts = "detailed"
        config.source = "files"
        config.minilens = None
        config.files = ConfigDict(
            {
                "paths": tuple(
                    str(data / "hh-rlhf" / f"{part}-base.test.jsonl.gz") for part in ("helpful", "harmless")
                ),
                "file_format": "hh_rlhf",
                "test_fraction": 0.1,
                "max_prompts": placeholder(int),  # None: all of them
            }
        )
        config.generation = None  # the responses of the files
        config.models.policy = str(data / "lm" / "tinystories-656k")
        config.models.batch_size = 32
        _selection(config, variant)
        _training(config)
        config.rater = None  # a model that can judge would be named here
        config.num_labels = (1000,)  # paper: half of all pairs, here 2,100
        config.seeds = (0, 1, 2)
    return config.lock()


def _selection(config: ConfigDict, variant: str) -> None:
    states = {"model": "policy", "with_prompt": False}
    config.embeddings = ConfigDict(
        {
            "states": states | {"pooling": "mean", "metric": "cosine"},
            "last_state": states | {"pooling": "last", "metric": "cosine"},
        }
    )
    if folder := os.environ.get("EAGLE_SENTENCE_ENCODER"):
        encoder = {"model": folder, "with_prompt": False, "metric": "cosine"}
        config.embeddings.sentence_encoder = encoder | {"pooling": "own"}
        config.embeddings.sentence_encoder_cls = encoder | {"pooling": "cls"}
    elif variant == "sentence_encoder":
        raise ValueError("set EAGLE_SENTENCE_ENCODER to a folder of sentence-transformers")
    config.selection.scope = "across"
    config.selection.strategies = ("easy", "hard", "random")
    config.selection.embedding = variant
    config.labels.source = "data"


def _training(config: ConfigDict) -> None:
    config.supervised.batch_size = 16
    config.supervised.training.num_steps = 300
    config.supervised.training.learning_rate = 1e-3
    config.training.beta = 0.1
    config.training.num_epochs = 1
    config.training.learning_rate = 1e-4  # paper: 5e-7 for billions of parameters
    config.training.warmup_steps = 5
    config.training.max_prompt_tokens = 96  # paper: 256
    config.training.max_tokens = 192  # paper: 512
    config.training.log_every = 5
    config.training.probe_every = 20
    config.evaluation.sampling.temperature = 0.7
    config.evaluation.num_stability_prompts = 200
