"""What the reference policies learn from: entities that can be used, prompts and kept actions."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.policy_stages import check_actions_fit, reference_pairs, usable_sets
from eagle_jax.stages.models import load_model


def candidate_set(entity, actions, users, is_valid=None):
    count = len(actions)
    valid = np.ones(count, bool) if is_valid is None else np.array(is_valid, bool)
    texts = [""] * count
    return CandidateSet(entity, actions, texts, np.array(users), np.zeros((count, 2)), np.zeros(count), valid)


def test_entities_with_too_few_valid_candidates_are_left_out():
    valid = {4: [1, 0, 1], 2: [0, 0, 1], 7: [1, 1, 1]}
    sets = [candidate_set(entity, ["a"] * 3, range(3), is_valid) for entity, is_valid in valid.items()]
    assert [row.entity_index for row in usable_sets(sets, 2)] == [4, 7]
    with pytest.raises(UserError, match="no entity of 3 has 4 candidates"):
        usable_sets(sets, 4)


def test_reference_pairs_are_policy_prompt_and_kept_action(world):
    one, two = world.split.users["train"][:2]
    sets = [
        candidate_set(4, ["use jazz music.", None, "explore grief."], [one, two, two]),
        candidate_set(2, ["explore grief.", "bring in revenge."], [two, one]),
    ]
    pairs = reference_pairs(world, sets, [[0, 2], [1]])
    expected = [(4, one, "use jazz music."), (4, two, "explore grief."), (2, one, "bring in revenge.")]
    assert pairs == [
        (
            "write an action that makes this film better for this user. "
            f"{world.catalogue.descriptions[entity]} "
            f"#BEGIN_USER_PROFILE {world.profiles[user]} #END_USER_PROFILE #BEGIN_ACTION",
            f"{action} #END_ACTION",
        )
        for entity, user, action in expected
    ]
    assert reference_pairs(world, sets, [[], []]) == []
    with pytest.raises(ValueError, match="zip"):  # a choice for each set, or something is off
        reference_pairs(world, sets, [[0]])


def test_actions_that_a_policy_could_never_end_are_refused_before_it_learns_them(caplog):
    tokenizer = load_model("minilens/policy").tokenizer
    pairs = [("p", f"{'use jazz music ' * times}#END_ACTION") for times in (1, 1, 2)]  # 4, 4 and 7 words
    check_actions_fit(tokenizer, pairs, 7)
    assert not caplog.records
    check_actions_fit(tokenizer, pairs, 6)
    assert "1 of 3 actions" in caplog.text and "up to 7" in caplog.text
    with pytest.raises(UserError, match=r"policy\.max_new_tokens is 3, but 3 of 3 actions"):
        check_actions_fit(tokenizer, pairs, 3)
    check_actions_fit(tokenizer, [], 3)
