"""ELM on the embedded world: a language model that reads embeddings of films and users.

Paper: ELM (Tennenholtz et al., ICLR 2024), sections 3 and 4, appendices B, E and F.
Command: bash launch/run.sh experiments.elm
    (two minutes: --config=experiments/configs/elm_minilens.py:quick)
Hardware: two CPU cores.
Time: 8 min 43 s with other jobs beside it; quick: 1 min 26 s.
Expect: three ELMs, means and 95 % intervals over held-out films or users. SC of the single-movie
    tasks 0.538 [0.523, 0.552], nearest item 0.350 [0.337, 0.362]; the teacher itself 0.602, and the
    reader that is told titles 0.571: P was made from six kinds of texts, and the SC of the other
    tasks is low for everyone. Slots of the film in its summary 0.900 [0.886, 0.914]. NDCG of user
    profiles 0.430 [0.408, 0.452], the teacher's 0.427, rankings at random 0.383: BC hardly tells
    users apart here, the profile of the nearest training user has 0.440. Of mixtures of two films
    the reader told names is above ELM (0.603 and 0.560), of two users ELM is (0.889 and 0.926).
    Temperature and steps of stage 2 were chosen after the first run (temperature 0.5, 600 steps)
    had 0.833 of the slots; another world (catalogue.seed, split.seed and seed 1; one ELM, 1,000
    steps) then gave 0.952, SC 0.573 against 0.353, NDCG 0.440 against the teacher's 0.444.
"""

from ml_collections import ConfigDict

from eagle_jax.data.tasks import TASKS

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, quick (small: for tests)."""
    if variant not in ("default", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default or quick")
    config = ConfigDict()
    config.title = "ELM on MiniLens"
    config.seed = 0
    config.elm_seeds = (0, 1, 2)
    config.book = "compact"  # the words that MiniLens-LM knows
    config.tasks = tuple(name for name, task in TASKS.items() if task.compact)  # the paper's 24, and profiles
    _world(config)
    _spaces(config)
    _training(config)
    _evaluation(config)
    if variant == "quick":
        _make_quick(config)
    return config.lock()


def _world(config: ConfigDict) -> None:
    config.catalogue = ConfigDict({"source": "minilens"})
    config.catalogue.minilens = ConfigDict(
        {
            "seed": 0,
            "num_films": 1600,
            "num_users": 800,
            "ratings_per_user": 120,  # median
            "rating_noise": 0.3,  # stars
            "popularity_exponent": 0.8,
            "selection_strength": 0.5,  # users watch what they like
        }
    )
    config.split = ConfigDict(
        {
            "seed": 0,
            "rating_fraction": 0.1,  # of every user's ratings, held out
            "validation_fraction": 0.05,  # of the films and of the users
            "test_fraction": 0.15,
            "min_anchor_ratings": 5,  # of a film
            "min_user_ratings": 20,
        }
    )
    config.wals = ConfigDict(
        {
            "dim": 8,
            "num_iterations": 20,
            "bias": "user_item",
            "observed_weight": 1.0,
            "unobserved_weight": 0.0,
            "regularization": 4.0,
            "regularization_scaling": 0.0,
            "bias_regularization": 3.0,
        }
    )
    config.models = ConfigDict(
        {
            "reader": "minilens/reader",  # becomes the ELM
            "teacher": "minilens/teacher",  # the grammar
            "features": "minilens/environment_a",
            "batch_size": 128,
            "length_multiple": 32,
            "slot_multiple": 1,
        }
    )
    config.remote = ConfigDict()  # name -> endpoint; see eagle_remote.py


def _spaces(config: ConfigDict) -> None:
    config.space = ConfigDict(
        {
            "tasks": ("summary", "positive_review", "five_negative_characteristics", "pitch", "convince1"),
            "asked_about": "all",
            "width": 64,
            "shrinkage": 1e-4,  # 1e-2 hides slots: a linear probe reads 82 % of them, here all
            "heads": {
                "head": "ridge",
                "validation_fraction": 0.15,
                "penalties": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
                "hidden_width": 128,
                "dropout_rate": 0.2,
                "learning_rate": 1e-3,
                "weight_decay": 0.01,
                "batch_size": 64,
                "max_epochs": 200,
                "patience": 20,
            },
        }
    )
    config.teacher = ConfigDict(
        {
            "shows": "title",
            # The grammar draws its words itself: of these only the seed counts.
            "sampling": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 128},
            "batch_size": 512,
            "max_tries": 3,
        }
    )
    config.examples = ConfigDict({"per_movie_task": 1500, "profiles": 2500, "num_neighbors": 5})


def _training(config: ConfigDict) -> None:
    shared = {"weight_decay": 0.01, "max_gradient_norm": 1.0, "checkpoint_every": 100, "log_every": 20}
    config.elm = ConfigDict(
        {
            "adapter_hidden_width": 256,
            "tokens_per_batch": 2048,
            "training": {
                # paper: 20,000 and 300,000 steps
                "stage1": {"num_steps": 100, "learning_rate": 3e-3, "warmup_steps": 10, **shared},
                "stage2": {"num_steps": 900, "learning_rate": 2e-3, "warmup_steps": 30, **shared},
                "mode2": "full",
                "lora": None,
            },
        }
    )


def _evaluation(config: ConfigDict) -> None:
    config.evaluation = ConfigDict(
        {
            "per_movie_task": 40,
            "profiles": 60,
            "sampling": {"temperature": 0.3, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64},
            "bootstrap": {"num_resamples": 1000, "confidence": 0.95, "seed": 0},
            "samples_per_task": 2,
            "curves": {
                "task": "summary",
                "num_paths": 24,
                "how": ("linear", "spherical"),
                "alphas": (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0),
                "tags": ("horror", "grim"),
                "steps": (0.0, 1.0, 2.0, 3.0, 4.0),
                "cav_kinds": ("linear", "ranking"),
                "lower_per_positive": 8,
                "cavs": {
                    "penalties": (0.01, 0.1, 1.0),
                    "num_folds": 4,
                    "min_positives": 8,
                    "tolerance": 1e-5,
                    "max_iterations": 50,
                    "seed": 0,
                },
            },
        }
    )


def _make_quick(config: ConfigDict) -> None:
    """Small enough for a test."""
    config.title = "ELM on MiniLens, quick"
    config.catalogue.minilens.num_films = 500
    config.catalogue.minilens.num_users = 200
    config.examples.per_movie_task = 200
    config.examples.profiles = 200
    config.elm.tokens_per_batch = 1024
    config.elm.training.stage1.num_steps = 20
    config.elm.training.stage2.num_steps = 60
    config.evaluation.per_movie_task = 6
    config.evaluation.profiles = 10
    config.elm_seeds = (0,)
    config.evaluation.curves.num_paths = 4
    config.evaluation.curves.alphas = (0.0, 0.5, 1.0)
    config.evaluation.curves.steps = (0.0, 2.0)
