"""EAGLE that first imitates the best of many actions: as many environment calls as the default run, another agent.

Paper: EAGLE (arXiv 2406.00024), sections 3 to 5, where REINFORCE begins with the reference policy; here an expert
    iteration (Anthony et al. 2017, arXiv 1705.08439) comes before it, in which one environment call says what an
    action is worth to every user.
Command: bash launch/run.sh experiments.eagle
    --config=experiments/configs/eagle_minilens_expert.py --workdir=runs/eagle_minilens_expert
Hardware: two CPU cores.
Time: 70 minutes beside other work, 30 of them evaluation.
Expect: U 0.97 [0.92, 1.03] for EAGLE, 0.86 [0.80, 0.92] for the imitation it began with, 0.49 [0.44, 0.54] for their
    reference policy; held-out 0.65, 0.60 and 0.36. At 50 calls a pair in all: greedy search with the imitating
    policy 1.83 [1.76, 1.91], with the reference policy 1.66 [1.60, 1.73], its best of ten episodes 1.18
    [1.12, 1.23]; held-out 0.99, 0.91 and 0.70. Training pays from 100 served pairs on for the imitation, from 275
    for EAGLE. (Best of ten gains by variety: on validation pairs 1.06 at temperature 0.5, 1.12 at 0.7, 1.17 at 1.)
    quick tries too few actions for an imitation that helps: it shows that everything runs.
"""

from ml_collections import ConfigDict

from experiments.configs import eagle_minilens

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, one seed: for tests)."""
    config = eagle_minilens.get_config(variant)
    with config.unlocked():
        config.title += ", imitation first"
        varied = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 16}
        config.expert = ConfigDict(
            {
                "num_episodes": 20,
                "actions_per_state": 40,
                "sampling": varied,
                "users_per_state": 160,
                "gain_temperature": 0.02,
                "candidates": False,
                "fit": {
                    "batch_size": 64,
                    "training": {
                        "num_steps": 300,
                        "learning_rate": 1e-3,
                        "warmup_steps": 20,
                        "weight_decay": 0.01,
                        "max_gradient_norm": 1.0,
                        "checkpoint_every": 100,
                        "log_every": 10,
                    },
                },
            }
        )
        if variant == "default":
            # With some 3,500 calls of the imitation no more than the 11,200 of the default run, validations included.
            config.agent.training.num_iterations = 41
            config.agent.training.validate_every = 21
            config.agent.training.checkpoint_every = 11
            config.evaluation.best_of_n = ("test_calls", "all_calls")
            config.evaluation.best_of_n_sampling = ConfigDict(varied)  # see the header
            config.evaluation.num_reachable = 100
        else:
            config.expert.num_episodes = 4
            config.expert.actions_per_state = 10
            config.expert.fit.training.num_steps = 40
    return config.lock()
