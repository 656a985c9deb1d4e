"""What the planner's model learns of a world where every move is known, whom it gives which action, and its stage."""

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import r2_score

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.film_fields import FieldChange
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.environment import EpisodeState, read_actions
from eagle_jax.eagle.planner import stage as planner_stage
from eagle_jax.eagle.planner.dynamics import Dynamics, Transition, examples, exploring, planner_chooser
from eagle_jax.eagle.planner.settings import PlannerSettings
from eagle_jax.eagle.planner.stage import planner_facts, run_planner_stage
from eagle_jax.embeddings.domain_encoder import read_head_fit
from eagle_jax.embeddings.regression_head import RegressionHead
from tests.eagle.plot_editor import edited_by
from tests.same_run import Interrupted
from tests.small_world import RIDGE

WORDS = "cab", "deaf", "giggle", "hijack", "lamp", "noon", "pie", "bead", "black", "mogul"
ACTIONS = tuple(f"add a {word}" for word in WORDS)
HORIZON, EPISODES = 3, 10
# Letters are counted and E_D is linear, so an action's move is linear in what is read of it.
SETTINGS = PlannerSettings(
    num_rounds=2,
    episodes_per_round=EPISODES,
    exploration_temperature=0.5,
    random_share=0.2,
    dynamics=dataclasses.replace(RIDGE, penalties=(1e-6,)),
)


@pytest.fixture
def acting(world):
    return edited_by(world)


@pytest.fixture
def candidates(acting):
    """Every action of two films; and one that could not be applied."""
    sets, asked = [], [*ACTIONS, "garble"]
    for entity in acting.split.entities["train"][:2].tolist():
        text = acting.catalogue.entities[entity].description
        steps = acting.environment.step([text] * len(asked), asked, 0)
        texts, count = [step.description for step in steps], len(asked)
        valid = np.array([step.malformed is None for step in steps])
        nothing = np.zeros(count)
        sets.append(CandidateSet(entity, asked, texts, np.zeros(count, int), np.zeros((count, 1)), nothing, valid))
    return sets


def run(acting, candidates, folder, settings=SETTINGS, seed=3):
    stage = StageFolder(folder, {})
    return run_planner_stage(stage, acting, candidates, HORIZON, 4, settings, seed), stage


def states_of(acting, users, texts):
    return [
        EpisodeState(entity_index=0, user_index=int(user), description=text, profile="", step=0)
        for user, text in zip(users, texts, strict=True)
    ]


def test_it_foresees_where_every_action_leads_and_gives_each_user_the_best_for_it(acting, candidates, tmp_path):
    dynamics, _ = run(acting, candidates, tmp_path)
    assert dynamics.actions == ACTIONS
    texts = acting.catalogue.descriptions[40:46]
    embed = acting.scorer.embed
    truly = np.stack(
        [embed([step.description for step in acting.environment.step([x] * 10, ACTIONS, 0)]) for x in texts]
    )
    np.testing.assert_allclose(dynamics.next_embeddings(texts), truly, atol=1e-3)
    users, z = acting.split.users["test"][:6], acting.scorer.user_embeddings
    states = states_of(acting, users, texts)
    worths = np.einsum("bad,bd->ba", truly, z[users])
    order = np.argsort(-worths, axis=1)
    policy = planner_chooser(dynamics)(z)
    assert read_actions(policy(states, 0)) == [ACTIONS[place] for place in order[:, 0]]
    assert len(set(order[:, 0])) > 1  # else the users tell nothing
    after = [
        dataclasses.replace(state, taken=(ACTIONS[best],)) for state, best in zip(states, order[:, 0], strict=True)
    ]
    assert read_actions(policy(after, 0)) == [ACTIONS[place] for place in order[:, 1]]
    others = z.copy()
    others[users] = z[np.roll(users, 1)]
    of_others = np.einsum("bad,bd->ba", truly, others[users]).argmax(axis=1)
    assert read_actions(planner_chooser(dynamics)(others)(states, 0)) == [ACTIONS[place] for place in of_others]


def test_its_calls_are_counted_and_what_could_not_be_applied_is_no_transition(acting, candidates, tmp_path):
    before = acting.environment.num_calls
    _, stage = run(acting, candidates, tmp_path)
    facts, transitions = stage.read_json("facts.json"), stage.read_jsonl("transitions.jsonl")
    calls = 2 * EPISODES * HORIZON
    assert facts["environment_calls"] == calls == acting.environment.num_calls - before
    assert facts["num_transitions"] == len(transitions) == 20 + calls  # of the candidates all but the garbled ones
    assert "garble" not in {row["action"] for row in transitions}
    first, second = (of_round["foreseen"] for of_round in facts["rounds"])
    assert first < 0.9 and second == pytest.approx(1, abs=1e-3)  # two films do not tell what is the film's own
    # An episode's steps follow each other in a batch of 4, 4 and 2 of them; none takes an action twice.
    actions, begin = [row["action"] for row in transitions[20:]], 0
    for size in (4, 4, 2) * 2:
        batch = np.array(actions[begin : begin + size * HORIZON]).reshape(HORIZON, size)
        assert all(len(set(episode)) == HORIZON for episode in batch.T)
        begin += size * HORIZON
    told = {row["name"]: row["value"] for row in planner_facts([stage, stage])}
    assert told["environment_calls"] == calls and told["round 2"] == pytest.approx(facts["rounds"][1]["gain"])
    assert planner_facts([]) == []


def test_interrupted_after_a_round_it_ends_with_the_same_model(acting, candidates, tmp_path, monkeypatch):
    whole, finished = run(acting, candidates, tmp_path / "whole")
    play, played = planner_stage._play, []

    def once(*args):
        if played:
            raise Interrupted
        played.append(play(*args))
        return played[0]

    monkeypatch.setattr(planner_stage, "_play", once)
    with pytest.raises(Interrupted):
        run(acting, candidates, tmp_path / "resumed")
    monkeypatch.setattr(planner_stage, "_play", play)
    calls = acting.environment.num_calls
    resumed, stage = run(acting, candidates, tmp_path / "resumed")
    assert acting.environment.num_calls - calls == EPISODES * HORIZON  # the first round is not played again
    for file in ("dynamics.npz", "facts.json", "transitions.jsonl", "actions.json"):
        assert (stage.path / file).read_bytes() == (finished.path / file).read_bytes()
    again, _ = run(acting, candidates, tmp_path / "whole")
    for one in (resumed, again):
        np.testing.assert_array_equal(one.next_embeddings(["a cab"]), whole.next_embeddings(["a cab"]))


def test_without_a_candidate_that_could_be_applied_there_is_no_planner(acting, candidates, tmp_path):
    none = [row._replace(is_valid=np.zeros(len(row.actions), bool)) for row in candidates]
    with pytest.raises(UserError, match="none of the candidates could be applied"):
        run(acting, none, tmp_path)


def test_what_a_list_says_of_fields_is_not_learned_but_done(acting):
    encoder = acting.scorer.encoder
    western, funnier = "Make it a western.", "Make it funnier."
    changes = {western: FieldChange(more=("Western",))}
    text = "Genres: Comedy. Year: 1995. Plot: Two brothers inherit a lighthouse."
    as_western = text.replace("Comedy", "Comedy, Western")
    after = as_western + " Cowboys come."
    seen = examples(encoder, [Transition(text, western, after), Transition(text, funnier, after)], changes)
    begun = encoder([as_western, text])
    np.testing.assert_allclose(seen.moves, encoder([after]) - begun, atol=1e-6)
    features = encoder.features([as_western, text])
    np.testing.assert_array_equal(
        seen.inputs, np.concatenate([features, begun, encoder.features([western, funnier])], axis=1)
    )
    unmoved = RegressionHead(
        np.zeros(seen.inputs.shape[1], np.float32),
        np.ones(seen.inputs.shape[1], np.float32),
        ((np.zeros((seen.inputs.shape[1], encoder.dim), np.float32), np.zeros(encoder.dim, np.float32)),),
    )
    dynamics = Dynamics(encoder, (western, funnier), encoder.features([western, funnier]), changes, unmoved)
    foreseen = dynamics.next_embeddings([text, as_western])
    np.testing.assert_allclose(foreseen, encoder([as_western, text, as_western, as_western]).reshape(2, 2, -1))
    users = acting.split.users["test"][:8]
    chosen = read_actions(
        planner_chooser(dynamics)(acting.scorer.user_embeddings)(states_of(acting, users, [text] * 8), 0)
    )
    gains = acting.scorer.user_embeddings[users] @ (begun[0] - begun[1])
    assert chosen == [western if gain > 0 else funnier for gain in gains] and len(set(chosen)) == 2


def test_explores_by_the_softmax_of_promises_and_for_a_share_of_states_evenly():
    found, draws = np.array([0.0, 0.3, 0.5, -0.2]), 20_000
    for share in (0.0, 0.4, 1.0):
        values = exploring(lambda states, seed: np.tile(found, (len(states), 1)), 0.25, share)([None] * draws, 7)
        expected = (1 - share) * softmax(found / 0.25) + share / 4
        shares = np.bincount(values.argmax(axis=1), minlength=4) / draws
        assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_what_is_explained_is_r_squared_over_all_dimensions(acting, candidates, tmp_path):
    encoder, rng = acting.scorer.encoder, np.random.default_rng(0)
    texts = acting.catalogue.descriptions
    rows = [Transition(texts[a], texts[b], texts[c]) for a, b, c in rng.integers(len(texts), size=(30, 3))]
    seen = examples(encoder, rows, {})
    np.testing.assert_allclose(
        seen.moves, encoder([row.after for row in rows]) - encoder([row.before for row in rows]), atol=1e-5
    )
    noise = rng.normal(size=seen.moves.shape)
    told = planner_stage._share_explained(seen.moves + noise, seen.moves)
    assert told == pytest.approx(r2_score(seen.moves, seen.moves + noise, multioutput="variance_weighted"))
    _, stage = run(acting, candidates, tmp_path)
    head = read_head_fit(stage.read_arrays("dynamics.npz")).head
    model = Dynamics(encoder, ACTIONS, encoder.features(ACTIONS), {}, head)
    before, action = encoder.features([row.before for row in rows]), encoder.features([row.action for row in rows])
    inputs = np.concatenate([before, encoder([row.before for row in rows]), action], axis=1, dtype=np.float64)
    ((kernel, bias),) = head.layers
    by_hand = (inputs - head.feature_mean) / head.feature_scale @ np.float64(kernel) + bias
    np.testing.assert_allclose(model.moves(seen.inputs), by_hand, atol=1e-3)
