"""EAGLE on the embedded world with DPO in the place of REINFORCE, at equal environment calls.

Paper: REAL (arXiv 2409.17169), section 3, pair selection; on the decision process of EAGLE (arXiv
    2406.00024), section 4. Neither paper has this row.
Command: bash launch/run.sh experiments.eagle
    --config=experiments/configs/eagle_minilens_dpo.py --workdir=runs/eagle_minilens_dpo
Hardware: two CPU cores.
Time: what the default run takes, and what three more agents and their rows take: 23 minutes, while
    other jobs ran beside them; 55 beside more of them.
Expect: U 0.70 [0.65, 0.75] for DPO, 0.76 [0.71, 0.82] for REINFORCE (0.74 in an earlier build), 0.49
    [0.44, 0.54] for their reference policy; held-out 0.47, 0.53 and 0.36. DPO is above its reference
    with separated intervals and below REINFORCE by 0.065 [0.026, 0.105], held-out by 0.065 [0.038, 0.092].
    The settings were chosen among seven by the validation reward of one seed.
"""

from ml_collections import ConfigDict

from experiments.configs import eagle_minilens

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default, or quick (small, one seed: for tests)."""
    config = eagle_minilens.get_config(variant)
    with config.unlocked():
        config.title += ", REINFORCE and DPO"
        config.preference_agent = ConfigDict(
            {
                "unit": "action",  # or final_text: whole episodes are chosen between
                "strategy": "easy",  # or hard, centroid, random, implicit_reward_gap_small, _large
                "metric": "euclidean",  # or cosine: of the embeddings of what samples lead to
                "num_samples": 4,
                "starts_per_round": 16,  # 30 rounds: the 60 x 32 episodes of the other agent
                "beta": 1.0,
                "num_epochs": 1,
                "batch_size": 40,  # two steps a round: as many as the other agent's iterations
                "learning_rate": 5e-4,
                "max_gradient_norm": 1.0,
                "validate_every": 8,
                "checkpoint_every": 8,
            }
        )
        if variant == "quick":
            config.preference_agent.starts_per_round = 8  # 15 rounds
            config.preference_agent.validate_every = 5
            config.preference_agent.checkpoint_every = 5
    return config.lock()
