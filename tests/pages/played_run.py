"""The evaluation of a run, played by the scripted agent: of each row the agent's evaluated pairs."""

import numpy as np

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.environment import Start
from eagle_jax.eagle.evaluation.episodes import evaluate_played, evaluate_policy
from eagle_jax.eagle.serving.played import PlayedEpisodes
from eagle_jax.language_model.generation import ScriptedGenerator

EAGLE_ROW, REFERENCE_ROW = "EAGLE, g_optimal", "reference policy, <b>"


def played(agent, workdir):
    """Of anchors one seed, of the policies two."""
    names = list(agent.catalogue.ratings.user_names)
    items = {entity.entity_id: place for place, entity in enumerate(agent.catalogue.entities)}
    starts = []
    for item_id, user_id in agent.evaluated:
        item, user = items[item_id], names.index(user_id)
        description = agent.catalogue.entities[item].description
        starts.append(Start(item, user, description, agent.users.profiles[user]))
    embeddings = np.asarray(agent.users.space.wals.user_embeddings)
    judging = agent.judging(embeddings)
    records = {"anchor": evaluate_played(judging, starts, 0, [()] * len(starts))}
    policies = {EAGLE_ROW: agent.policy, REFERENCE_ROW: ScriptedGenerator(lambda prompt, rng: "bring in the velvet.")}
    for row, policy in policies.items():
        rest = agent.environment, agent.horizon, agent.batch_size
        policy_fn = agent.policy_fn(policy, embeddings)
        records[row] = [one for seed in (0, 1) for one in evaluate_policy(judging, starts, seed, policy_fn, *rest)]
    stage = StageFolder(workdir / "evaluation", {})
    stage.write_jsonl("records.jsonl", ({"row": row} | one.to_json() for row, of in records.items() for one in of))
    stage.finish()
    return PlayedEpisodes(workdir), records
