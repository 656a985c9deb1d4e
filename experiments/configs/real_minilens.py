"""REAL on the embedded world: which pairs of responses to label, with known true preferences.

Paper: REAL (arXiv 2409.17169), sections 3 to 5; settings it leaves open are marked OPEN. Beside it
    the selection by implicit rewards of arXiv 2508.04149.
Command: bash launch/run.sh experiments.real
    (two minutes: --config=experiments/configs/real_minilens.py:quick)
Hardware: two CPU cores.
Time: 7 min 32 s from a set-up environment; quick: 1 min 31 s.
Expect: wrong labels 0.157 [0.135, 0.179] for easy, 0.224 [0.194, 0.254] for random, 0.241 [0.198,
    0.283] for hard; held-out accuracy with 192 labels 0.630 [0.603, 0.656] for easy, 0.594 [0.551,
    0.638] for random, which easy reaches with 88. Margins, losses and win rates of the strategies
    are not told apart; similarities keep their order (rank correlation at least 0.97).
"""

from ml_collections import ConfigDict

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, two seeds: for tests)."""
    if variant not in ("default", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default or quick")
    config = ConfigDict()
    config.title = "REAL on MiniLens"
    config.seed = 0
    config.prompts = "compact"  # the prompts that MiniLens-LM was pretrained on
    _task(config)
    _policy(config)
    _selection(config)
    _training(config)
    config.evaluation = ConfigDict(
        {
            "sampling": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 48},
            "num_stability_prompts": 40,
            "num_told_prompts": 3,
            "confidence": 0.95,
        }
    )
    if variant == "quick":
        _make_quick(config)
    return config.lock()


def _task(config: ConfigDict) -> None:
    config.source = "minilens"
    config.minilens = ConfigDict(
        {
            "num_train": 200,  # users who ask for a film; their pairs of responses are labelled
            "num_test": 150,
            "num_supervised": 6400,  # films that other users watched
            "num_films": 32,  # of which each of them chose one,
            "film_strength": 3.0,  # in proportion to exp(strength * affinity)
            "dialect": "a",
        }
    )
    config.files = None
    config.generation = ConfigDict(
        {
            "generator": "policy",  # the supervised start
            "num_train_responses": 16,
            "num_test_responses": 4,
            "sampling": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 48},
            "prompts_per_chunk": 64,
        }
    )


def _policy(config: ConfigDict) -> None:
    config.models = ConfigDict(
        {"policy": "minilens/policy", "dtype": "float32", "batch_size": 128, "length_multiple": 32}
    )
    config.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": 1, "first_device": 0})
    config.remote = ConfigDict()  # settings of models named remote/<name>: see eagle_remote.py
    config.policy_training = ConfigDict(
        {
            "mode": "full",  # or lora: low-rank updates of the frozen model, for large ones
            "dtype": "float32",
            "lora": {"rank": 8, "alpha": 16.0, "targets": "attention|feed_forward"},
            "remat": False,
            "scan_layers": False,
        }
    )
    config.supervised = ConfigDict(
        {
            "batch_size": 64,
            "training": {
                "num_steps": 100,
                "learning_rate": 3e-3,
                "warmup_steps": 20,
                "weight_decay": 0.01,
                "max_gradient_norm": 1.0,
                "checkpoint_every": 100,
                "log_every": 20,
            },
        }
    )


def _selection(config: ConfigDict) -> None:
    states = {"model": "policy", "with_prompt": False}
    config.embeddings = ConfigDict(
        {
            "mean_states": states | {"pooling": "mean", "metric": "cosine"},  # the paper's
            "last_state": states | {"pooling": "last", "metric": "cosine"},
            "mean_states_euclidean": states | {"pooling": "mean", "metric": "euclidean"},
            "other_model": states | {"model": "minilens/environment_a"} | {"pooling": "mean", "metric": "cosine"},
        }
    )
    config.selection = ConfigDict(
        {
            "scope": "within",  # one pair of each prompt; across: which prompts
            "strategies": (
                "easy",
                "hard",
                "centroid",
                "random",
                "implicit_reward_gap_small",
                "implicit_reward_gap_large",
            ),
            "embedding": "mean_states",
            "num_warmup_labels": 32,  # OPEN; of random pairs, for the last two strategies
        }
    )
    config.labels = ConfigDict({"source": "simulated", "temperature": 0.5})  # units of utility
    config.rater = ConfigDict(
        {"model": "minilens/teacher", "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 4}}
    )


def _training(config: ConfigDict) -> None:
    config.training = ConfigDict(
        {
            "loss": "dpo",  # or ipo, em
            "beta": 1.0,  # paper: 0.1, with which this small policy comes apart at this rate
            "label_smoothing": 0.0,
            "initial_error_rate": 0.2,  # of em
            "batch_size": 16,
            "accumulation": 1,  # paper: 2
            "num_epochs": 2,  # paper: 1
            "optimizer": "adamw",  # paper: rmsprop
            "learning_rate": 2e-4,  # paper: 5e-7 for billions of parameters
            "warmup_steps": 2,  # paper: 50 of its 750
            "weight_decay": 1e-4,
            "max_gradient_norm": 5.0,
            "max_prompt_tokens": 64,
            "max_tokens": 128,
            "log_every": 1,
            "checkpoint_every": 100,
            "probe_every": 8,
        }
    )
    config.num_labels = (48, 96, 192)
    config.seeds = (0, 1, 2, 3, 4)


def _make_quick(config: ConfigDict) -> None:
    """Small enough for a test; three seeds are the fewest that decide anything."""
    config.title = "REAL on MiniLens, quick"
    config.minilens.num_train = 48
    config.minilens.num_test = 48
    config.generation.num_train_responses = 8
    config.supervised.training.num_steps = 60
    config.embeddings = ConfigDict({"mean_states": config.embeddings.mean_states.to_dict()})
    config.selection.num_warmup_labels = 8
    config.selection.strategies = ("easy", "hard", "centroid", "random")
    config.num_labels = (24, 48)
    config.seeds = (0, 1, 2)
