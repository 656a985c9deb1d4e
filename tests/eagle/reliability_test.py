"""What a run says of the trust in its utility: from half encoders in a stage's folder to sentences."""

import numpy as np
import pytest

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens.grammar import GrammarOracle
from eagle_jax.eagle.reliability import (
    CANDIDATES,
    FILMS,
    candidates_reliability,
    fit_halves,
    reliability_facts,
    trust_sentences,
)
from eagle_jax.embeddings.reliability import HalfSettings
from tests.eagle.user_space_test import WALS
from tests.small_world import RIDGE


def words(texts):
    vocabulary = ("robot", "family", "war", "love", "funny", "dark", "space", "old")
    return np.array([[text.count(word) for word in vocabulary] + [len(text)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def told(world, tmp_path_factory):
    """Both kinds of texts -> what is found there."""
    encoders = StageFolder(tmp_path_factory.mktemp("run") / "encoders", {})
    settings = HalfSettings(WALS, RIDGE, item_bias=True, users_from_texts=True)
    films = fit_halves(encoders, world.split, words(world.catalogue.descriptions), settings, 0)
    rows = []
    for anchor in world.split.entities["train"][:4]:
        edits = GrammarOracle().single_edits(world.catalogue.descriptions[anchor])[:30]
        steps = [{"description": edit, "malformed": None} for edit in edits]
        rows.append({"next": [*steps, {"description": "left out", "malformed": "environment:missing_block"}]})
    return {FILMS: films, CANDIDATES: candidates_reliability(encoders, rows, words, world.split)}, encoders


def test_both_are_correlations_over_the_texts_that_were_asked_about(world, told):
    found, _ = told
    held_out = len(world.split.entities["validation"]) + len(world.split.entities["test"])
    assert found[FILMS]["num_texts"] == held_out and found[CANDIDATES]["num_texts"] == 120
    for own in found.values():
        assert -1 <= own["personal"] <= 1 and -1 <= own["common"] <= 1 and 0 < own["common_share"] <= 1
        assert own["num_users"] == sum(map(len, world.split.users.values()))


def test_anchors_without_a_choice_are_no_evidence(world, told):
    row = {"next": [{"description": world.catalogue.descriptions[0], "malformed": None}]}
    assert candidates_reliability(told[1], [row, {"next": []}], words, world.split) is None


def test_the_report_says_both_parts_and_what_was_not_found_is_left_out():
    found = {"common": 0.7125, "personal": 0.25, "common_share": 0.91, "num_texts": 80, "num_users": 150}
    (sentence,) = trust_sentences({FILMS: found, CANDIDATES: None})
    assert "0.71 on what everybody likes" in sentence and "0.25 on what a user likes" in sentence
    assert "91%" in sentence and "held-out films" in sentence
    facts = reliability_facts({FILMS: found, CANDIDATES: None})
    assert [line["value"] for line in facts] == [0.7125, 0.25, 0.91]
    assert "0.40" in facts[1]["meaning"]  # 2 * 0.25 / 1.25
    assert trust_sentences({}) == []
