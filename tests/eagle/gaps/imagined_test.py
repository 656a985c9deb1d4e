"""Walks follow instructions drawn evenly and go on where they were; fields are put together anew."""

import re
from collections import Counter

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.film_fields import parse_film_fields
from eagle_jax.data.prompts import COMPACT, MOVIE, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.gaps.imagined import by_name, recombined, walk_evenly
from eagle_jax.eagle.gaps.settings import WalkSettings
from eagle_jax.language_model.generation import ScriptedGenerator
from tests.scripted_agent import rewrite
from tests.small_world import SAMPLING

WORDS = ("dragon", "harvest", "lantern")
WALKS = WalkSettings(seed=3, num_walks=200, num_steps=3, instructions_per_step=1)


class Counting(ScriptedGenerator):
    """Counts what it is asked."""

    asked = 0

    def generate(self, prompts, sampling, seed):
        self.asked += len(prompts)
        return super().generate(prompts, sampling, seed)


def environment():
    return LLMEnvironment(generator=Counting(rewrite), book=COMPACT, entity_format=MOVIE, sampling=SAMPLING)


def walked(folder, items, env, settings=WALKS):
    return walk_evenly(StageFolder(folder, {}), env, items, [f"bring in the {word}." for word in WORDS], settings)


def test_each_walk_starts_from_an_item_and_follows_as_many_instructions_drawn_evenly(tmp_path, world):
    items = world.catalogue.descriptions
    texts = walked(tmp_path / "walks", items, environment())
    assert len(texts) == 200
    added = [text.split("#END_PLOT")[0].split()[-3:] for text in texts]  # `rewrite` puts each word at the plot's end
    counts = Counter(word for words in added for word in words)
    assert set(counts) == {f"{word}." for word in WORDS} and all(
        160 <= count <= 240 for count in counts.values()
    )  # 200 each, 11.5 off
    pairs = zip(texts, added, strict=True)
    starts = {text.replace(f" {' '.join(words)} #END_PLOT", " #END_PLOT") for text, words in pairs}
    assert starts <= set(items) and len(starts) > 80  # of 120, with replacement as there are fewer items than walks


def test_several_instructions_are_told_at_once(tmp_path, world):
    texts = walked(
        tmp_path / "walks", world.catalogue.descriptions, environment(), WalkSettings(num_walks=4, num_steps=1)
    )
    assert len(texts) == 4  # the scripted environment reads the last of the two
    assert all(text.split("#END_PLOT")[0].split()[-1].rstrip(".") in WORDS for text in texts)


def test_an_interrupted_walk_goes_on_and_ends_as_an_uninterrupted_one(tmp_path, world):
    items, whole = world.catalogue.descriptions, environment()
    expected = walked(tmp_path / "whole", items, whole)
    assert whole.num_calls == whole.generator.asked == 3 * 200
    walked(tmp_path / "parts", items, environment())
    (tmp_path / "parts" / "parts" / "00002.json").unlink()
    again = environment()
    assert walked(tmp_path / "parts", items, again) == expected
    assert again.num_calls == 200


def test_instructions_are_drawn_by_what_they_name():
    """Items have "the" (all), "duel" (two) and "ghost" (one); "ghost" is the rarer of two; "velvet" is in none."""
    items = ["the duel", "the duel", "the ghost", "the wedding"]
    instructions = ["The duel!", "a duel", "the duel of a ghost", "the velvet", "velvet", "silk"]
    assert by_name(instructions, items) == [
        ["The duel!", "a duel"],
        ["the duel of a ghost"],
        ["the velvet"],
        ["velvet"],
        ["silk"],
    ]


def test_what_is_named_in_many_ways_comes_up_no_oftener(tmp_path, world):
    """Of MiniLens' genres one word in four ways, three in one: 200 walks of 3 steps draw each word 150 times."""
    told = ["noir", "the noir", "a noir", "more noir", "western", "musical", "heist"]
    drawn = []

    def answer(prompt, rng):
        drawn.append(re.search(r"#BEGIN_ACTION (.*) #END_ACTION", prompt.text)[1].split()[-1])
        return rewrite(prompt, rng)

    env = environment()
    env.generator = ScriptedGenerator(answer)
    walk_evenly(StageFolder(tmp_path / "walks", {}), env, world.catalogue.descriptions, told, WALKS)
    counts = Counter(drawn)
    assert set(counts) == {"noir", "western", "musical", "heist"}
    assert all(115 <= count <= 185 for count in counts.values())  # 150 each, 10.6 off


def film(genres, year, plot):
    fields = f"Genres: {genres}. Year: {year}. Plot: {plot}."
    return render_blocks({"PLOT": fields, "REASONS_TO_LIKE": "a", "REASONS_TO_DISLIKE": "b"})


def test_fields_put_together_anew_keep_their_shares_and_lose_what_they_had_to_do_with_plots():
    items = [
        film("Western", 1955, "a duel"),
        film("Comedy, Romance", 1999, "a wedding"),
        film("Horror", 1980, "a ghost"),
    ]
    texts = recombined(items, 900, seed=0)
    found = Counter((parse_film_fields(text).genres, parse_film_fields(text).plot.split()[1]) for text in texts)
    assert len(found) == 9 and all(60 <= count <= 140 for count in found.values())  # 100 each, 9.4 off
    assert {parse_film_fields(text).year for text in texts if "Western" in text} == {1955}
    assert recombined(items, 900, seed=0) == texts != recombined(items, 900, seed=1)


def test_texts_without_fields_cannot_be_put_together_anew(world):
    with pytest.raises(UserError, match="no genres and year"):
        recombined(world.catalogue.descriptions, 20, seed=0)


def test_no_step_is_asked_twice_with_one_seed(tmp_path, world):
    """The seed of the environment differs from step to step, so that its answers do."""
    seeds = []

    class Recording(Counting):
        def generate(self, prompts, sampling, seed):
            seeds.append(seed)
            return super().generate(prompts, sampling, seed)

    env = environment()
    env.generator = Recording(rewrite)
    walked(tmp_path / "walks", world.catalogue.descriptions, env)
    assert len(set(np.unique(seeds))) == len(seeds) == 3
