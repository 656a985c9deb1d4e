"""Planners beside EAGLE's agents: as many environment calls, spent on a model of what actions make of texts.

Paper: EAGLE (arXiv 2406.00024), sections 3 to 5, for all but the planners; these learn a model and act by it (Sutton
    1991), one step ahead, which the paper does not.
Command: bash launch/run.sh experiments.eagle
    --config=experiments/configs/eagle_minilens_planner.py --workdir=runs/eagle_minilens_planner
Hardware: two CPU cores.
Time: 5 minutes for each of the three planners, 29 for the evaluation (both beside other work), and the default run's
    stages up to its agents.
Expect: U 2.37 [2.29, 2.44] for planners, 2.08 [2.00, 2.16] told of a user the profile only, as EAGLE's agents are (0.76
    [0.71, 0.82]); held-out 1.26, 1.12 and 0.53. For ten times as many calls a text best of ten episodes of the
    reference policy has 1.18 [1.12, 1.23], greedy search with it 1.66 [1.60, 1.73]; held-out 0.70 and 0.91. Told of
    another user, 0.81 [0.69, 0.92]. A share of 1.01 [0.94, 1.08] of the gain that a beam search over the world's own
    edits finds on 100 starts.
"""

from ml_collections import ConfigDict

from experiments.configs import eagle_minilens

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, one seed: for tests)."""
    config = eagle_minilens.get_config(variant)
    with config.unlocked():
        config.title += ", with planners"
        config.planner = ConfigDict(
            {
                # As many calls as the agents' training takes, without its validations.
                "num_rounds": 8,
                "episodes_per_round": 280,
                "exploration_temperature": 0.1,
                "random_share": 0.1,
                "dynamics": {
                    "head": "mlp",
                    "validation_fraction": 0.1,
                    "penalties": (1.0,),
                    "hidden_width": 256,
                    "dropout_rate": 0.1,
                    "learning_rate": 1e-3,
                    "weight_decay": 0.01,
                    "batch_size": 256,
                    "max_epochs": 100,
                    "patience": 10,
                },
            }
        )
        if variant == "default":
            config.evaluation.best_of_n = ("all_calls",)
            varied = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 16}
            config.evaluation.best_of_n_sampling = ConfigDict(varied)  # at 0.5, as the policy acts, it is weaker
            config.evaluation.num_reachable = 100
        else:
            config.planner.num_rounds, config.planner.episodes_per_round = 2, 16
    return config.lock()
