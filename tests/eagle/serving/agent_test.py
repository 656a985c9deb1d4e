"""What an agent proposes, against scores made by hand and laws that hold whatever the models are."""

import dataclasses
import gc
import itertools
import json
import tracemalloc

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Entity
from eagle_jax.eagle.roles.action_head import ActionHead, head_chooser
from eagle_jax.eagle.serving.proposals import Summary
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.language_model.generation import ScriptedGenerator


def without_seconds(proposals):
    return [dataclasses.replace(one, seconds=0.0) for one in proposals]


@pytest.fixture(scope="module")
def ids(agent):
    """Some items, and users with profiles."""
    names = agent.catalogue.ratings.user_names
    users = [names[user] for user in sorted(agent.users.profiles)[:7]]
    return [entity.entity_id for entity in agent.catalogue.entities[:5]], users


@pytest.fixture(scope="module")
def proposals(agent, ids):
    return list(agent.propose(*ids, num=3, seed=1))


def test_each_pair_gets_its_texts_best_first_in_the_order_asked_for(agent, ids, proposals):
    order = list(dict.fromkeys((one.item_id, one.user_id) for one in proposals))
    assert order == list(itertools.product(*ids))
    titles = {entity.entity_id: entity.title for entity in agent.catalogue.entities}
    for pair, group in itertools.groupby(proposals, key=lambda one: (one.item_id, one.user_id)):
        group = list(group)
        assert [one.rank for one in group] == list(range(1, len(group) + 1)) and len(group) <= 3
        utilities = [one.utility[TRAIN]["utility"] for one in group]
        assert utilities == sorted(utilities, reverse=True)
        assert len({one.text for one in group}) == len(group)
        assert {one.title for one in group} == {titles[pair[0]]}
        # Three episodes of two actions, and a rewriting for each action that could be read.
        assert 0 < sum(one.environment_calls for one in group) <= 6


def test_numbers_of_a_proposal_are_those_of_its_text_and_user(agent, proposals):
    wals = agent.users.space.wals
    names = agent.catalogue.ratings.user_names
    by_id = {entity.entity_id: entity for entity in agent.catalogue.entities}
    names_of_items = list(by_id)
    for one in proposals[::7]:
        anchor, user = by_id[one.item_id], names.index(one.user_id)
        assert one.text == (one.steps[-1].description if one.steps else anchor.description)
        for encoder, scorer in agent.scorers.items():
            catalogue = np.float64(scorer.catalogue_embeddings)
            z, z_anchor = np.float64(scorer.embed([one.text, anchor.description]))
            z_u = np.float64(wals.user_embeddings[user])

            def by_hand(z, catalogue=catalogue, z_u=z_u):
                return z_u @ z + 0.3 * np.sort(np.linalg.norm(catalogue - z, axis=1))[:3].sum()

            assert one.utility[encoder]["utility"] == pytest.approx(by_hand(z), abs=1e-4)
            assert one.gain[encoder] == pytest.approx(by_hand(z) - by_hand(z_anchor), abs=1e-4)
            if encoder == TRAIN:
                distances = np.linalg.norm(catalogue - z, axis=1)
                assert [near["item_id"] for near in one.nearest] == [
                    agent.catalogue.entities[place].entity_id for place in np.argsort(distances)[:3]
                ]
                np.testing.assert_allclose(
                    [near["distance"] for near in one.nearest], np.sort(distances)[:3], atol=1e-4
                )
            else:
                others = np.delete(np.linalg.norm(catalogue - z_anchor, axis=1), names_of_items.index(one.item_id))
                distance = np.linalg.norm(z - z_anchor)
                assert one.distance_to_anchor == pytest.approx(distance, abs=1e-4)
                assert one.nearer_share == pytest.approx(np.mean(others < distance), abs=0.01)
                assert one.left_anchor == (one.nearer_share > 0.5)
                weights = agent.ratings.bias_weights
                told = float(wals.global_bias) + float(wals.user_bias[user]) + z @ weights[:-1] + weights[-1] + z_u @ z
                assert one.predicted_rating == pytest.approx(np.clip(told, 0.5, 5.0), abs=1e-4)
                assert one.rating_low <= one.predicted_rating <= one.rating_high
        assert one.unchanged == (one.text == anchor.description)
        assert sum(one.malformed.values()) == sum(step.malformed is not None for step in one.steps)
    assert {reason for one in proposals for reason in one.malformed} == {
        "action:empty_block",
        "environment:missing_block",
    }
    assert any(one.unchanged for one in proposals) and not all(one.unchanged for one in proposals)


def test_the_same_seed_gives_the_same_proposals_and_another_one_others(agent, ids, proposals):
    again = agent.propose(*ids, num=3, seed=1)
    assert without_seconds(again) == without_seconds(proposals)
    others = without_seconds(agent.propose(*ids, num=3, seed=2))
    assert [one.text for one in others] != [one.text for one in proposals]


def test_a_head_acts_in_the_policys_place(agent, ids):
    width = agent.scorers[TRAIN].user_embeddings.shape[1]
    head = ActionHead(("add a b", "add a c"), np.eye(2, width, dtype=np.float32))
    (item, *_), users = ids
    found = list(dataclasses.replace(agent, chooser=head_chooser(head, {})).propose([item], users, num=1))
    assert [one.user_id for one in found] == users
    likes = [agent.users.find(user).embedding for user in users]
    first = [head.actions[int(z_u[1] > z_u[0])] for z_u in likes]
    assert len(set(first)) == 2  # else these users tell nothing
    for one, action in zip(found, first, strict=True):
        other = next(listed for listed in head.actions if listed != action)
        assert [step.action for step in one.steps] == [action, other]  # none is taken twice


def test_of_several_actions_it_goes_on_from_the_best(agent, ids, proposals):
    found = list(agent.propose(*ids, num=1, seed=1, actions=4))
    assert [(one.item_id, one.user_id) for one in found] == list(itertools.product(*ids))
    assert without_seconds(agent.propose(*ids, num=1, seed=1, actions=4)) == without_seconds(found)
    for one in found:
        assert one.gain[TRAIN] >= 0 and len(one.steps) <= 2 and not any(step.malformed for step in one.steps)
        assert one.environment_calls <= 8 and sum(one.malformed.values()) <= 8
    assert any(one.malformed for one in found) and any(one.environment_calls > 4 for one in found)
    best = [one for one in proposals if one.rank == 1]  # of three episodes, six calls
    assert np.mean([one.gain[TRAIN] for one in found]) > np.mean([one.gain[TRAIN] for one in best])
    with pytest.raises(UserError, match="actions must be at least 1, got 0"):
        agent.propose(*ids, actions=0)


def test_without_names_it_is_what_the_run_evaluated(agent):
    (item, user), (other_item, other_user), (_, third) = agent.evaluated

    def asked(*arguments):
        return [(entity.entity_id, person.user_id) for entity, person in agent.pairs(*arguments)]

    assert asked(None, None) == [(item, user), (item, third), (other_item, other_user)]  # items together
    assert asked([item], None) == [(item, user), (item, other_user), (item, third)]
    assert asked(None, [third]) == [(item, third), (other_item, third)]


def test_texts_shared_by_users_and_copies_of_items_are_seen(agent, ids):
    """A policy that listens to nobody, and an environment that knows only one film."""
    items, users = ids
    film = agent.catalogue.entities[9]
    alike = dataclasses.replace(agent, policy=ScriptedGenerator(lambda prompt, rng: "change it."))
    summary = Summary()
    proposals = list(alike.propose(items, users, num=2))
    for one in proposals:
        summary.add(one)
    assert [one.same_as_user for one in proposals] == [
        None if one.user_id == users[0] else users[0] for one in proposals
    ]
    told = summary.to_json()
    assert len(proposals) == len(items) * len(users)  # both texts of a pair are the same one
    assert (told["same_for_all_users_share"], told["num_items_with_several_users"]) == (1.0, len(items))
    assert told["same_as_another_user_share"] == pytest.approx(6 / 7)
    assert told["environment_calls"] == 2 * 2 * len(proposals)

    environment = dataclasses.replace(
        agent.environment, generator=ScriptedGenerator(lambda prompt, rng: film.description.removeprefix("#BEGIN_PLOT"))
    )
    copies = list(dataclasses.replace(agent, environment=environment).propose(items, users[:1], num=1))
    changed = [one for one in copies if not one.unchanged]
    assert changed and {one.near_copy_of for one in changed} == {film.entity_id}
    assert all(one.nearest[0]["item_id"] == film.entity_id and one.nearest[0]["distance"] < 1e-5 for one in changed)
    assert all(one.near_copy_of is None for one in proposals)


def test_new_items_and_new_users_stand_beside_known_ones(agent, ids):
    """A new user with the ratings and profile of a known one, and an item with the text of one."""
    items, users = ids
    entity = agent.catalogue.entities[0]
    twin = agent.new_item(f"  {entity.description}\n", "twin", "A twin")
    assert twin == Entity(entity_id="twin", title="A twin", description=entity.description)
    known = agent.users.find(users[0])
    rows = np.flatnonzero(agent.catalogue.ratings.user_index == agent.catalogue.ratings.user_names.index(users[0]))
    item_names = agent.catalogue.ratings.item_names
    table = agent.catalogue.ratings
    rated = {item_names[table.item_index[row]]: float(table.rating[row]) for row in rows}
    guest = agent.new_user(rated, known.profile, "guest")
    assert (guest.user_id, guest.profile, guest.embedding.shape) == ("guest", known.profile, known.embedding.shape)
    found = list(agent.propose([twin], [known, dataclasses.replace(known, user_id="again")], num=2))
    plain = list(agent.propose(items[:1], [known, dataclasses.replace(known, user_id="again")], num=2))
    assert [one.item_id for one in found] == ["twin"] * len(found)
    same = without_seconds(dataclasses.replace(one, item_id=items[0], title=entity.title) for one in found)
    for one, other in zip(same, without_seconds(plain), strict=True):
        # To the twin the old item is another one, the nearest of 120: a copy of it is seen as one.
        count = len(agent.catalogue.entities)
        expected = (other.nearer_share * (count - 1) + (other.distance_to_anchor > 0)) / count
        assert one.nearer_share == pytest.approx(expected)
        one, other = (dataclasses.replace(of, near_copy_of=None, nearer_share=0) for of in (one, other))
        assert one == other


def test_a_profile_is_written_from_the_titles_of_a_new_user(agent):
    low, high = agent.catalogue.entities[:2]
    user = agent.new_user({low.entity_id: 1.0, high.entity_id: 5.0})
    assert user.profile == f"loves {high.title} and not {low.title}"


def test_where_profiles_are_of_groups_a_new_user_has_that_of_the_nearest_one(agent):
    profiles = {user: f"group {user % 3}" for user in agent.users.profiles}
    users = dataclasses.replace(agent.users, profiles=profiles, has_groups=True)
    embeddings = np.asarray(users.space.wals.user_embeddings, np.float64)
    means = [np.mean([embeddings[user] for user in profiles if user % 3 == group], axis=0) for group in range(3)]
    low, high = agent.catalogue.entities[:2]
    found = []
    for stars in (1.0, 5.0):
        new = users.add("new", {low.entity_id: stars, high.entity_id: 6.0 - stars}, None, 0)
        found.append(new.profile)
        distances = [np.linalg.norm(mean - new.embedding) for mean in means]
        assert new.profile == f"group {int(np.argmin(distances))}"
    assert len(set(found)) == 2  # else this says nothing
    assert users.add("own", {low.entity_id: 5.0}, "loves noir.", 0).profile == "loves noir."


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda agent: agent.propose(["f3x"], None), "no item 'f3x' in .*; did you mean 'f3'"),
        (lambda agent: agent.propose(None, ["nobody"]), "no user 'nobody' in "),
        (lambda agent: agent.propose(["f3", "f4", "f3"], None), "item 'f3' is asked for twice"),
        (lambda agent: agent.propose([], None), "items: none was asked for"),
        (lambda agent: agent.propose(["f3"], None, num=0), "num must be at least 1, got 0"),
        (
            lambda agent: agent.new_item("a plot", "mine"),
            "item 'mine': the text cannot be read: missing_block: .*BEGIN_PLOT",
        ),
        (lambda agent: agent.new_item("a plot", "f3"), "item 'f3' is in the catalogue: give the new one another id"),
        (lambda agent: agent.new_user({}), "has no ratings; at least one"),
        (
            lambda agent: agent.new_user({"f1": 9.0}, "p", "u"),
            r"user 'u': the rating of 'f1' must be from 0\.5 to 5, got 9",
        ),
        (lambda agent: agent.new_user({"g1": 3.0}, "p", "u"), "user 'u' rates an unknown item 'g1'"),
        (lambda agent: agent.new_user({"f1": 3.0}), "has one rating: a profile is written from two or more"),
        (lambda agent: agent.new_user({"f1": 3.0}, " "), "the profile is empty"),
    ],
)
def test_what_cannot_be_proposed_is_said_before_anything_is_asked_for(agent, ask, said):
    with pytest.raises(UserError, match=said):
        ask(agent)


def test_a_known_user_without_a_profile_is_told_how_to_come_in(agent):
    names = agent.catalogue.ratings.user_names
    (index, *_) = set(range(len(names))) - set(agent.users.profiles)
    with pytest.raises(UserError, match=f"user '{names[index]}' has fewer ratings.*give this user as a new one"):
        agent.propose(None, [names[index]])


def test_a_thousand_proposals_hold_no_more_than_ten(agent):
    """tracemalloc sees Python's objects and NumPy's arrays; JAX' have the same shapes throughout."""
    brief = dataclasses.replace(agent, batch_size=25, horizon=1)
    known = agent.users.find(agent.evaluated[0][1])
    people = [dataclasses.replace(known, user_id=f"u{place}") for place in range(100)]
    items = [entity.entity_id for entity in agent.catalogue.entities[:10]]

    def peak(items, people):
        tracemalloc.start()
        count = size = 0
        for one in brief.propose(items, people, num=1):
            count += 1
            size += len(json.dumps(one.to_json()))
            if count % 100 == 0:
                gc.collect()  # cycles, which wait for no fixed time
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return count, size, held

    peak(items[:1], people[:10])  # what is imported or compiled once
    gc.freeze()  # what other tests left is not looked through at each collection
    try:
        few, _, small = peak(items[:1], people[:10])
        many, size, large = peak(items, people)
    finally:
        gc.unfreeze()
    assert (few, many) == (10, 1000)
    assert large - small < 350_000 < size / 4  # the list of pairs, and the texts of one item's users
