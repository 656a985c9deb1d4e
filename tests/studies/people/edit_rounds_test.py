"""Rounds of drafts and edits with a scripted generator."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator
from eagle_jax.studies.people import edit_rounds
from eagle_jax.studies.people.edit_rounds import LEARNERS, TASTES, EditSettings, measure_edits

SETTINGS = EditSettings(
    num_users=6,
    num_rounds=8,
    max_edits=3,
    least_gain=0.1,
    rating_noise=0.0,
    num_nearest=3,
    generator="scripted",
    sampling=SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=64),
    max_tries=2,
    features="scripted",
)


def features(texts):
    """What tells the dialects apart, and little else: one template ends each way."""
    words = sorted({word for values in grammar.LEXICON.values() for forms in values for word in (forms[0], forms[2])})
    counts = np.array([[text.count(word) for word in words] for text in texts], np.float32)
    dialect = np.array([["score" in text or "closes" in text] for text in texts], np.float32)
    return np.concatenate([0.01 * counts, dialect, 1 - dialect], axis=1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    stage = StageFolder(tmp_path_factory.mktemp("edits") / "edits", {})
    generator = ScriptedGenerator(lambda prompt, rng: "genre: loves horror, dislikes western.")
    found = measure_edits(SETTINGS, features, generator, 0, stage)
    again = measure_edits(SETTINGS, None, None, 0, stage)  # read, not computed
    assert again == found
    return {(row["tastes"], row["learner"]): row for row in found}


def test_every_learner_meets_the_same(rows):
    assert list(rows) == [(tastes, learner) for tastes in TASTES for learner in LEARNERS]
    for row in rows.values():
        assert np.shape(row["cost"]) == np.shape(row["correlation"]) == np.shape(row["affinity"]) == (8, 6)
    starts = [
        row["cost"][0] for (tastes, learner), row in rows.items() if tastes == TASTES[0] and "known" not in learner
    ]
    assert all(start == starts[0] for start in starts)  # nobody has said anything yet


def test_what_knows_everything_needs_no_edit_and_what_learns_nothing_needs_all(rows):
    for tastes in TASTES:
        costs = {learner: np.mean(rows[tastes, learner]["cost"]) for learner in LEARNERS}
        assert costs[edit_rounds.EVERYTHING] == 0
        assert costs[edit_rounds.ALL_EDITS] < costs[edit_rounds.NOTHING]
        assert costs[edit_rounds.CIPHER_KEPT] < costs[edit_rounds.NOTHING]
        known = rows[tastes, edit_rounds.EVERYTHING]
        assert np.mean(known["affinity"]) > np.mean(rows[tastes, edit_rounds.NOTHING]["affinity"]) + 1
        assert np.all(np.array(known["correlation"]) > 0.5)
        assert not np.any(rows[tastes, edit_rounds.NOTHING]["correlation"])


def test_the_generator_is_believed(rows):
    """Whatever was edited, it says horror: the drafts of all later rounds are horror films."""
    row = rows[TASTES[0], edit_rounds.CIPHER_LM]
    assert row["malformed"] == {} and len(set(np.ravel(row["correlation"][1:]))) <= 6


def test_a_malformed_answer_is_no_preference(tmp_path):
    stage = StageFolder(tmp_path / "edits", {})
    settings = dataclasses.replace(SETTINGS, num_users=2, num_rounds=3)
    broken = ScriptedGenerator(lambda prompt, rng: "#BEGIN_X")
    found = measure_edits(settings, features, broken, 0, stage)
    (row,) = (r for r in found if r["learner"] == edit_rounds.CIPHER_LM and r["tastes"] == TASTES[0])
    assert sum(row["malformed"].values()) == 2 * 2 * 2  # users, rounds that are learned from, tries
    assert not np.any(row["correlation"])


def test_profiles_of_ratings_are_of_the_films_rated_so_far():
    meeting = edit_rounds.draw_meeting(SETTINGS, 1, features, 0)
    seen = []

    def write(prompt, rng):
        seen.append(prompt.text)
        return "genre: loves horror."

    rounds = edit_rounds._Rounds(meeting, SETTINGS, ScriptedGenerator(write), 0)
    rounds.run(edit_rounds.RATINGS_LM)
    assert len(seen) == 6 * 6  # users, rounds from the third on
    assert all(text.count(";") == 18 for text in seen)  # ten titles on each side, repeated where they are fewer
    best = meeting.contexts[0][int(np.argmax(meeting.stars[0, :2]))]
    assert seen[0].index("#BEGIN_LIKED " + grammar.title_of(dict(grammar.word_values()[w] for w in best.words))) > 0
    assert corpus.PROFILE_SIDE == 10
