"""All rows of the paper's table on the embedded world: every reference policy, EAGLE on each.

Paper: EAGLE (arXiv 2406.00024), section 5, table 2; the controls that it lacks (random_subset,
    g_optimal_subsample as the paper draws it, best-of-N at equal environment calls) beside it,
    and transfer to an environment that the agents were not trained in.
Command: bash launch/run.sh experiments.eagle
    --config=experiments/configs/eagle_minilens_table2.py --workdir=runs/eagle_minilens_table2
Hardware: two CPU cores.
Time: 42 minutes, measured while other jobs ran beside it; two hours beside more of them.
Expect: EAGLE above its own reference policy with separated intervals for every kind but
    best_next_step, whose one candidate per film leaves a policy that no longer explores. g_optimal
    against uniform: lower under the training encoder (0.65 against 0.80; 0.74 in an earlier build, 0.82
    against it), level under the held-out one (0.49 both). Best-of-N with all of the agent's calls, which
    asks the reward at test time, is above EAGLE: 0.99 and 0.61. RESULTS.md has the table.
"""

from ml_collections import ConfigDict

from experiments.configs import eagle_minilens

SCHEMA = 3


def get_config() -> ConfigDict:
    config = eagle_minilens.get_config()
    with config.unlocked():
        config.title = "EAGLE on MiniLens: all reference policies"
        config.design.kinds = ("uniform", "random_subset", "best_next_step", "g_optimal", "g_optimal_subsample")
        config.agent.training.num_iterations = 45  # fifteen agents: a little shorter each
        config.evaluation.num_starts = 200
        config.evaluation.best_of_n = ("test_calls", "all_calls")
        config.evaluation.transfer_environment = "minilens/environment_b"
    return config.lock()
