"""What agents ask for first, counted by hand."""

from eagle_jax.eagle.evaluation.story import habit_facts


def record(row, *actions, system="EAGLE"):
    return {"row": row, "system": system, "steps": [{"action": action} for action in actions]}


def test_the_share_of_the_same_first_action_is_of_each_agents_episodes():
    records = [record("EAGLE, a", "dance", "sing"), record("EAGLE, a", "dance"), record("EAGLE, a", "sing")]
    records += [record("EAGLE, a", None), record("anchor", system="anchor"), record("best of", "x", system="best of")]
    same, different = habit_facts([*records, record("EAGLE, a")])  # one of best-of-N may keep its anchor
    assert same["name"].startswith("EAGLE, a") and same["value"] == "50 %" and '"dance"' in same["meaning"]
    assert different["value"] == 3
    assert len(habit_facts([*records, record("DPO, a", "y", system="DPO")])) == 4
