"""Planners beside EAGLE's agents: as many environment calls, spent on a model of what actions do."""

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
