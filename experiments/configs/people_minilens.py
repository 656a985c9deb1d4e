"""Learning from people of known taste: rewards of pairs, preferences of edits, pairs that are too alike.

Paper: PAL (arXiv 2406.08469), section 3; CIPHER (arXiv 2404.15269), algorithm 1; CHES (arXiv 2410.08847),
    definition 2 and section 5. What they leave open and where MiniLens stands for their language models
    is said in eagle_jax/studies/people/ideal_points.py, edits.py and in the report.
Command: bash launch/run.sh experiments.people
    (a small one: --config=experiments/configs/people_minilens.py:quick)
Hardware: two CPU cores.
Time: on a machine with five to fifteen other jobs for its two cores 10 minutes for rewards, 16 for edits, 4 for
    the supervised start and responses, and 10 seconds to 2 minutes for each of 24 policies; the last six of these
    and the report, from a new start, 2 min 18 s with 1 min 38 s of CPU time.
Expect: rewards: accuracy on held-out pairs of new users with 1, 5 and 20 pairs or ratings (the known taste: 0.865)
        WALS                                  0.565  0.663  0.778
        WALS, prior of tastes                 0.589  0.698  0.805
        PAL, K = 8, slots of the text         0.577  0.656  0.772
        PAL, K = 8, text states               0.555  0.595  0.685
        one reward for all (PAL, K = 1)       0.515  0.515  0.515
    K = 8 is best (seen users: 0.729 and 0.816; K = 2: 0.606 and 0.615). As many ratings tell more than pairs, and
    features cost PAL most. The penalty on new users' weights changes next to nothing.
    Edits: tokens changed in a draft, mean of 21 rounds, with one taste and with two by the context
        no learning 2.99, 2.97; CIPHER with the 5 nearest contexts 0.48, 1.05; with the nearest alone 2.90, 2.85;
        all edits without retrieval 0.46, 1.79; by the generator 2.24, 2.22; ratings, generator 2.55, 2.69
    so that retrieval helps where the taste depends on the context, and there alone. The generator reads one edit
    better than the grammar does (correlation 0.54 and 0.39 with the taste); later edits, whose two films hardly
    differ, it tells in half of the answers without end, and with one taste it learns nothing more from them.
    Pairs: dropping the half that is most alike by CHES is not told apart from dropping the least alike half, nor
    from as many pairs with half the labels; preferred responses gain 0.2 to 0.4 nats in training and lose 0.1 to
    0.2 held out, whatever is dropped. Easy pairs displace them least (-0.08 against -0.16 of random ones).
"""

from ml_collections import ConfigDict

from experiments.configs.real_minilens import get_config as real_minilens

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, two seeds: for tests)."""
    if variant not in ("default", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default or quick")
    config = ConfigDict()
    config.title = "Learning from people of known taste"
    config.seed = 0
    _pair_rewards(config)
    _edits(config)
    _alike_pairs(config)
    config.bootstrap = ConfigDict({"num_resamples": 2000, "confidence": 0.95, "seed": 0})
    if variant == "quick":
        _make_quick(config)
    return config.lock()


def _pair_rewards(config: ConfigDict) -> None:
    config.pair_rewards = ConfigDict(
        {
            "tastes": {
                "num_films": 600,
                "num_seen_users": 400,
                "num_new_users": 200,
                "feedback_per_seen_user": 60,
                "num_test_pairs": 100,
                "rating_noise": 0.3,  # stars, of 0.8 for a unit of affinity
                # The logistic that is as wide as the difference of two such ratings: 0.3 / 0.8 sqrt(2) sqrt(3) / pi.
                "pair_temperature": 0.3,
            },
            "features": "minilens/environment_a",
            "pal": {
                "dim": 8,
                "hidden_width": 0,  # paper: a network of two layers, which these few pairs do not feed
                "learning_rate": 0.03,
                "num_steps": 500,
                "weight_decay": 0.2,
                "num_starts": 1,
                "held_out_fraction": 0.1,
                "new_user_steps": 200,
                "new_user_learning_rate": 0.1,
            },
            "num_prototypes": (1, 2, 4, 8, 16),
            "logit_penalty": 0.03,  # paper: 0, which stands beside it for new users
            "wals": {
                "dim": 8,
                "num_iterations": 20,
                "bias": "user_item",
                "observed_weight": 1.0,
                "unobserved_weight": 0.0,
                "regularization": 4.0,
                "regularization_scaling": 0.0,
                "bias_regularization": 3.0,
            },
            "num_feedback": (1, 2, 5, 10, 20),
        }
    )


def _edits(config: ConfigDict) -> None:
    config.edits = ConfigDict(
        {
            "num_users": 60,
            "num_rounds": 21,  # before the last one 20 edits are known
            "max_edits": 3,
            "least_gain": 0.2,
            "rating_noise": 0.3,  # stars
            "num_nearest": 5,  # paper: 1 and 5
            "generator": "minilens/generator",
            "sampling": {"temperature": 0.5, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64},
            "max_tries": 3,
            "features": "minilens/environment_a",
        }
    )


def _alike_pairs(config: ConfigDict) -> None:
    real = real_minilens().copy_and_resolve_references().unlock()
    real.embeddings = ConfigDict({"mean_states": real.embeddings.mean_states.to_dict()})
    real.selection.strategies = ("easy", "hard", "random")
    real.selection.num_warmup_labels = 0
    real.num_labels = (192,)
    real.seeds = (0, 1, 2, 3)
    real.rater = None
    config.alike_pairs = ConfigDict({"real": real, "kept_share": 0.5})


def _make_quick(config: ConfigDict) -> None:
    """Small enough for a test."""
    config.title = "Learning from people, quick"
    tastes = config.pair_rewards.tastes
    tastes.num_films, tastes.num_seen_users, tastes.num_new_users = 60, 30, 20
    tastes.feedback_per_seen_user, tastes.num_test_pairs = 20, 20
    config.pair_rewards.pal.num_steps, config.pair_rewards.pal.num_starts = 60, 1
    config.pair_rewards.pal.new_user_steps = 60
    config.pair_rewards.num_prototypes, config.pair_rewards.num_feedback = (1, 4), (1, 5)
    config.edits.num_users, config.edits.num_rounds, config.edits.num_nearest = 6, 5, 2
    real = config.alike_pairs.real
    real.minilens.num_train, real.minilens.num_test, real.minilens.num_supervised = 24, 16, 640
    real.generation.num_train_responses = 4
    real.supervised.training.num_steps, real.supervised.training.warmup_steps = 30, 5
    real.selection.strategies, real.num_labels, real.seeds = ("easy", "random"), (16,), (0, 1)
    real.training.num_epochs = 4
