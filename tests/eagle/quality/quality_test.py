"""Limits by hand, the laws of quality, fifty kinds of broken text, and quality in its stage and in rewards."""

import dataclasses
import json
import random

import numpy as np
import pytest

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import MOVIE
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.eagle.quality.measures import OF_MODEL, QUALITY_MEASURES
from eagle_jax.eagle.quality.quality import QualitySettings, draw_sample, fit_quality
from eagle_jax.eagle.quality.readings import TextFluency, TextReader
from eagle_jax.eagle.quality.stage import quality_facts, quality_reader, run_quality_stage
from eagle_jax.embeddings.sentences.field_features import FieldFeatures
from eagle_jax.stages.models import load_features, load_model
from tests.eagle.quality.broken_texts import BROKEN, broken
from tests.small_world import count_letters

SETTINGS = QualitySettings(weight=2.0, quantile=0.1, num_texts=100)


def plot(text):
    return f"#BEGIN_PLOT {text} #END_PLOT " + " ".join(f"#BEGIN_{block} #END_{block}" for block in MOVIE.blocks[1:])


def letters_as_fluency(texts):
    """A stub of a model to which the letter e is likely."""
    share = np.array([text.count("e") for text in texts], np.float64)
    return np.stack([share, share - 1], axis=1)


READER = TextReader(MOVIE, letters_as_fluency, count_letters)


def test_limits_by_hand():
    """Twenty-one plots of 0 to 20 words with an e, two of them sentences, all of 21 words."""
    texts = [plot("A big sun. " + " ".join(["he"] * count + ["up"] * (20 - count)) + ".") for count in range(21)]
    quality = fit_quality(draw_sample(texts, MOVIE, 100, 0), READER, SETTINGS)
    # 0.1 * 20 = 2: the third of 0 .. 20 from below. 16 % and 84 % of 20 are 3.2 and 16.8.
    assert quality.limits["fluency"] == pytest.approx((2, 6.8))
    assert quality.limits["stretch"] == pytest.approx((1, 6.8))
    assert quality.limits["short"] == quality.limits["long"] == pytest.approx((np.log(23), 0.1))  # all alike: the least
    parts = quality.parts([texts[0], texts[2], texts[0]], [texts[9], texts[9], texts[1]])
    # texts[0] is 2 below the limit; an anchor that is below it itself, by 1, moves it there.
    np.testing.assert_allclose(parts["fluency"], [2 / 6.8, 0, 1 / 6.8])
    # Sixteen words are 3.6 tenths of a log short: more than three spreads count as three.
    short = plot("A big sun. " + " ".join(["he"] * 13) + ".")
    np.testing.assert_allclose(quality.parts([short], [texts[9]])["short"], [3])
    fewer = plot("A big sun. " + " ".join(["he"] * 17) + ".")
    np.testing.assert_allclose(quality.parts([fewer], [texts[9]])["short"], [np.log(23 / 20) / 0.1])


def test_a_text_is_to_end_with_a_sentence_where_nine_of_ten_do():
    for unclosed, limit in ((2, 1.0), (3, 0.0)):
        texts = [plot(f"A duel number {number}{'' if number < unclosed else '.'}") for number in range(21)]
        settings = dataclasses.replace(SETTINGS, quantile=0.01)
        quality = fit_quality(draw_sample(texts, MOVIE, 100, 0), READER, settings)
        assert quality.limits["closed"] == (limit, 0.5)
        assert quality.parts(texts[:1], texts[-1:])["closed"] == 2 * limit


@pytest.fixture(scope="module")
def films(world):
    """MiniLens' films, the quality that its own model tells, and how far its limits are known."""
    texts, fmt = world.catalogue.descriptions, world.entity_format
    features = load_features("minilens/environment_a", 64)
    fluency = TextFluency(load_model("minilens/environment_a"), fmt, 64)
    settings = QualitySettings(weight=1.0, quantile=0.02, num_texts=len(texts))
    return texts, fit_quality(draw_sample(texts, fmt, len(texts), 0), quality_reader(fmt, fluency, features), settings)


@pytest.fixture(scope="module")
def broken_films(films):
    """Every way to break each of some films: names, broken texts, their anchors and what quality says."""
    texts, quality = films
    rows = [(name, place) for name in BROKEN for place in (0, 3, 7)]
    changed = [broken(name, texts[place], texts[place + 50], MOVIE.blocks) for name, place in rows]
    anchors = [texts[place] for _, place in rows]
    return [name for name, _ in rows], changed, anchors, quality(changed, anchors)


def test_fifty_kinds_of_broken_text_are_below_their_anchors(broken_films):
    names, changed, anchors, values = broken_films
    assert len(set(names)) == 50
    assert all(text != anchor for text, anchor in zip(changed, anchors, strict=True))
    missed = [(name, value) for name, value in zip(names, values, strict=True) if not value < -0.2]
    assert missed == []


def test_honest_changes_cost_little_or_nothing(films, world):
    """One fact of a film is another: its genre, mood, setting, hero, conflict, ending; or is told in a synonym."""
    texts, quality = films
    edits = [
        (edit, text)
        for text in texts[:32]
        for edit in random.Random(text).sample(world.catalogue.oracle.single_edits(text), 3)
    ]
    values = quality(*zip(*edits, strict=True))
    assert np.mean(values == 0) > 0.9
    assert values.min() > -0.5


def test_an_anchor_is_0_whatever_it_is_like_and_the_batch_does_not_matter(films, broken_films):
    texts, quality = films
    _, changed, anchors, values = broken_films
    rows = np.random.default_rng(0).permutation(len(values))
    assert quality(changed, changed).tolist() == [0.0] * len(changed)
    again = quality([changed[row] for row in rows], [anchors[row] for row in rows])
    np.testing.assert_allclose(again, values[rows], rtol=1e-3, atol=1e-3)


def test_a_text_without_a_word_is_worst_and_one_beside_it_is_judged_by_itself(world):
    texts = world.catalogue.descriptions
    quality = fit_quality(draw_sample(texts, MOVIE, 100, 0), READER, SETTINGS)
    empty = plot("?!")
    assert quality([empty], texts[:1]).tolist() == [-3.0 * len(QUALITY_MEASURES)]
    ordinary = texts[np.argmax(quality(texts, [empty] * len(texts)))]
    assert quality([ordinary], [empty]).tolist() == [0.0]


def test_without_a_model_fluency_is_absent_and_said_to_be(tmp_path, world):
    stage = StageFolder(tmp_path / "quality", {})
    reader = quality_reader(world.entity_format, None, FieldFeatures(count_letters))
    assert reader.features_fn is count_letters  # genres may be changed
    quality = run_quality_stage(stage, world.catalogue.descriptions, reader, SETTINGS, 0)
    assert quality.limits.keys() == QUALITY_MEASURES.keys() - set(OF_MODEL)
    facts = {row["name"]: row["value"] for row in quality_facts(stage)}
    assert facts["texts"] == 100 and facts["not measured"] == ", ".join(OF_MODEL)
    assert quality(world.catalogue.descriptions[:1], world.catalogue.descriptions[1:2]) <= 0


def test_a_stage_that_is_killed_ends_with_the_same_limits(tmp_path, world):
    """No text is read twice by the model."""
    texts, asked = world.catalogue.descriptions, []

    def fluency(batch):
        if len(asked) == 1 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        asked.append(tuple(batch))
        return letters_as_fluency(batch)

    def run(folder, fluency_fn):
        reader = dataclasses.replace(READER, fluency_fn=fluency_fn)
        return run_quality_stage(StageFolder(tmp_path / folder, {}), texts, reader, SETTINGS, 3)

    with pytest.raises(KeyboardInterrupt):
        run("killed", fluency)
    (tmp_path / "again").touch()
    resumed, whole = run("killed", fluency), run("whole", letters_as_fluency)
    assert len(set(asked)) == len(asked) > 1
    for name in ("limits.json", "features.npz", "facts.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert resumed.limits == whole.limits and resumed.weight == 2
    kept = json.loads((tmp_path / "whole" / "limits.json").read_text())
    assert kept["fluency"]["limit"] == resumed.limits["fluency"].limit


def test_rewards_and_value_features_have_it(world):
    texts = world.catalogue.descriptions
    fitted = fit_quality(draw_sample(texts, MOVIE, 100, 0), READER, SETTINGS)
    judged = dataclasses.replace(world, quality=fitted)
    states = [
        EpisodeState(entity_index=i, user_index=u, description=text, profile="", step=1)
        for i, u, text in ((0, 5, texts[7]), (1, 6, texts[1]), (2, 5, texts[2] + " the the the"))
    ]
    values = fitted([state.description for state in states], texts[:3])
    assert values[0] < 0 and values[1] == 0 and values[2] < 0
    np.testing.assert_allclose(judged.rewards(states), world.rewards(states) + 2 * values, rtol=1e-6)
    features = judged.value_features(states)
    np.testing.assert_array_equal(features[:, :-1], world.value_features(states))
    np.testing.assert_array_equal(features[:, -1], values)
