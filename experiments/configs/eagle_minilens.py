"""EAGLE on the embedded world: the newcomer's first run.

Paper: EAGLE (arXiv 2406.00024), sections 3 to 5; settings it leaves open are marked OPEN.
Command: bash launch/run.sh experiments.eagle
    (two minutes: --config=experiments/configs/eagle_minilens.py:quick)
Hardware: two CPU cores.
Time: 19 min 34 s from a set-up environment, another day 8 min 27 s; quick: 1 min 42 s.
Expect: U 0.73 [0.68, 0.78] for EAGLE (0.76 and 0.74 in earlier builds: training magnifies rounding),
    0.49 [0.44, 0.54] for its reference policy, 0.21 [0.16, 0.26] for the anchors; under the held-out
    encoder 0.50, 0.36 and 0.18, intervals separated as well. These intervals, and those in the configs that build on
    this one, are of pairs, as --config.evaluation.resampled=pairs gives them again: at once over films, users and
    seeds they are about twice as wide (on the planners' run 1.7 to 2.1 times).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, one seed: for tests)."""
    if variant not in ("default", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default or quick")
    config = ConfigDict()
    config.title = "EAGLE on MiniLens"
    config.seed = 0
    config.prompts = "compact"  # the prompts that MiniLens-LM was pretrained on
    _world(config)
    _encoders(config)
    _actions(config)
    _training(config)
    _evaluation(config)
    if variant == "quick":
        _make_quick(config)
    return config.lock()


def _world(config: ConfigDict) -> None:
    config.catalogue = ConfigDict()
    config.catalogue.source = "minilens"
    config.catalogue.minilens = ConfigDict(
        {
            "seed": 0,
            "num_films": 1200,
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
            "validation_fraction": 0.1,  # of the anchors and of the users
            "test_fraction": 0.2,
            "min_anchor_ratings": 5,
            "min_user_ratings": 20,
        }
    )
    config.models = ConfigDict(
        {
            "policy": "minilens/policy",
            "environment": "minilens/environment_a",
            "generator": "minilens/generator",
            "rater": "minilens/generator",
            "features": "minilens/environment_a",
            "held_out_features": "minilens/environment_b",  # another model for held-out scores
            "fields": False,  # genres and year, where texts have them
            "dtype": "float32",  # or bfloat16: of all but the policy
            "batch_size": 128,
            "length_multiple": 32,
        }
    )
    # Devices along each axis (one of them may be -1: the rest), from first_device on.
    config.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": 1, "first_device": 0})
    config.environment_mesh = None  # of the environments; None: with all other models
    config.remote = ConfigDict()  # settings of models named remote/<name>: see eagle_remote.py
    config.user_data_stays = False  # True: refused where a remote model would be sent profiles or titles


def _encoders(config: ConfigDict) -> None:
    config.wals = ConfigDict(
        {
            "dim": 8,  # OPEN in the paper
            "num_iterations": 20,
            "bias": "user_item",
            "observed_weight": 1.0,
            "unobserved_weight": 0.0,
            "regularization": 4.0,
            "regularization_scaling": 0.0,
            "bias_regularization": 3.0,
        }
    )
    # What the utility's <z_u, z> holds: with item_bias what everybody likes as well.
    config.user_space = ConfigDict({"item_bias": False, "users": "ratings", "halves": False, "independent": False})
    head = {
        "validation_fraction": 0.15,
        "penalties": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        "hidden_width": 128,
        "dropout_rate": 0.2,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "batch_size": 64,
        "max_epochs": 200,
        "patience": 20,
    }
    config.domain_encoder = ConfigDict(head | {"head": "ridge"})
    config.held_out_domain_encoder = ConfigDict(head | {"head": "mlp"})
    config.utility = ConfigDict(
        {
            "neighbor_weight": 0.3,  # lambda: OPEN in the paper
            "num_neighbors": 3,
            "neighbor_cap": placeholder(float),  # or 0.95: novelty counts up to this quantile of the catalogue's own
        }
    )
    config.quality = None  # or {"weight": 0.2, "quantile": 0.02, "num_texts": 400, "model": None}


def _actions(config: ConfigDict) -> None:
    config.environment = ConfigDict({"temperature": 0.5, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64})
    # MiniLens-LM was pretrained on marked blocks, on proposing actions and on profiles: see docs/roles.md for others.
    config.rewriting = None  # or {"format": "edit", "max_tries": 4}
    config.data_profiles = None  # or {"fields": ("genres", "year"), "values_per_side": 3, ...}
    config.ceiling = None  # or {"num_anchors": 16, "num_users": 150, "instructions": {...}, "stops": True}
    config.listed_actions = None  # or {"file": "", "num_candidates": 20}
    config.profiles = ConfigDict(
        {
            "titles_per_side": 10,
            "max_tries": 5,
            "sampling": {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64},
        }
    )
    config.candidates = ConfigDict(
        {
            "num_entities": 40,  # paper: all
            "candidates": {"num_generic": 50, "num_personalised": 50, "max_tries": 3},
            "sampling": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 16},
            "entities_per_chunk": 4,
        }
    )
    config.design = ConfigDict(
        {
            "kinds": ("g_optimal",),
            "num_kept": 10,
            "distribution": {
                "rank": 8,  # of the changes delta_a; at most num_kept
                "num_best": 1,
                "subsample_factor": 1.0,
                "max_draws": 1000,
                "solver": {
                    "method": "interior_point",  # or frank_wolfe, multiplicative
                    "max_approximation_factor": 1.0001,  # the certificate; 1 is the optimum
                    "max_iterations": 50,  # it takes about 5; frank_wolfe needs thousands
                    "rank_tolerance": 1e-4,  # smaller directions, over the largest, do not count
                    "max_rank": placeholder(int),  # None: `rank` has projected the changes
                    "ridge": 0.0,
                },
            },
        }
    )


def _training(config: ConfigDict) -> None:
    config.policy_training = ConfigDict(
        {
            "mode": "full",  # or lora: low-rank updates of the frozen model, for large ones
            "dtype": "float32",  # or bfloat16, in mode lora
            "lora": {"rank": 8, "alpha": 16.0, "targets": "attention|feed_forward"},
            "remat": False,  # True: layers are computed again in the backward pass, not kept
            "scan_layers": False,  # True: all layers are compiled as one
        }
    )
    config.reference = ConfigDict(
        {
            "batch_size": 32,  # paper: 1024
            "training": {
                "num_steps": 150,  # paper: 20,000
                "learning_rate": 1e-3,
                "warmup_steps": 20,
                "weight_decay": 0.01,
                "max_gradient_norm": 1.0,
                "checkpoint_every": 50,
                "log_every": 10,
            },
        }
    )
    config.agent = ConfigDict(
        {
            "seeds": (0, 1, 2),
            "num_validation_starts": 64,
            "training": {
                "num_iterations": 60,  # paper: 30,000
                "episodes_per_iteration": 32,  # OPEN
                "horizon": 5,
                "discount": 1.0,
                "gae_lambda": 0.6,  # OPEN; the value network sees U of the text, so short sums do
                "kl_coefficient": 0.1,
                "policy_learning_rate": 5e-4,  # paper: 1e-5 for 3.25B parameters
                "value_learning_rate": 3e-3,
                "value_hidden": (64,),  # OPEN
                "value_updates": 20,  # OPEN
                "policy_updates": 1,
                "clip_range": 0.2,  # where there are several
                "max_gradient_norm": 1.0,
                "normalize_advantages": True,
                "minibatch_size": 160,
                "policy": {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "max_new_tokens": 16},
                "validate_every": 15,
                "checkpoint_every": 15,
            },
        }
    )
    config.preference_agent = None  # no DPO agents: see eagle_minilens_dpo.py
    config.elm_baseline = None  # no ELM decoder: see eagle_minilens_elm.py


def _evaluation(config: ConfigDict) -> None:
    config.evaluation = ConfigDict(
        {
            "num_starts": 250,
            "seeds": (0, 1, 2),
            "best_of_n": ("test_calls",),
            "best_of_n_sampling": None,  # or {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 16}
            "search_actions": 0,  # or 10: a greedy search with each policy
            "transfer_environment": None,
            "extra_kinds": ("g_optimal",),
            "num_reachable": 24,
            "beam_width": 2,
            "rater": None,  # MiniLens-LM answers the form near chance: no rater columns
            "bootstrap": {"num_resamples": 2000, "confidence": 0.95, "seed": 0},
            "resampled": "anchors_and_users",  # and seeds, by intervals; or "pairs", seeds averaged inside of each
            "num_told_episodes": 3,
        }
    )


def _make_quick(config: ConfigDict) -> None:
    """Small enough for a test, large enough to learn something."""
    config.title = "EAGLE on MiniLens, quick"
    config.catalogue.minilens.num_films = 1000
    config.catalogue.minilens.num_users = 500
    config.candidates.num_entities = 12
    config.candidates.candidates.num_generic = 20
    config.candidates.candidates.num_personalised = 20
    config.reference.training.num_steps = 60
    config.agent.seeds = (0,)
    config.agent.num_validation_starts = 32
    config.agent.training.num_iterations = 15
    config.agent.training.validate_every = 5
    config.agent.training.checkpoint_every = 5
    config.evaluation.num_starts = 48
    config.evaluation.seeds = (0,)
    config.evaluation.num_reachable = 4
