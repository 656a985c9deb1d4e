"""Pretraining examples: each completion can be read back and does what its prompt asks for."""

import re

import numpy as np
import pytest

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.corpus import CORPUS_TASKS, draw_examples, read_profile
from eagle_jax.data.minilens.grammar import SLOTS, GrammarOracle
from eagle_jax.data.minilens.world import draw_world
from eagle_jax.data.prompts import MOVIE, parse_completion, render_blocks

COUNT = 60
DIALECTS = pytest.mark.parametrize("dialect", grammar.DIALECTS)
WRITES = {
    "rewrite": MOVIE.blocks,
    "describe": MOVIE.blocks,
    "profile": ("USER_PROFILE",),
    "generic_action": ("ACTION",),
    "personalised_action": ("ACTION",),
    "rater": ("ANSWERS",),
}


def block_of(text, name):
    """The content of one block inside a prompt."""
    return re.search(rf"#BEGIN_{name} (.*?) ?#END_{name}", text).group(1)


def film_texts(text):
    """The marked film texts in a prompt, in order; the opening marker at the end is none."""
    whole = re.findall("#BEGIN_PLOT.*?#END_REASONS_TO_DISLIKE", text)
    return [match for match in whole if "#END_PLOT" in match]


def written(example, task):
    """The blocks of a completion, its closing marker cut off as the sampler does."""
    assert example.completion.endswith(f" {example.prompt.stop[0]}")
    completion = example.completion.removesuffix(example.prompt.stop[0])
    return parse_completion(example.prompt, completion, WRITES[task])


def own_words(dialect):
    places = (0, 1) if dialect == "a" else (1, 2)
    return {value[k] for values in grammar.LEXICON.values() for value in values for k in places}


def category_of(text):
    return next(c for c in MOVIE.action_categories if f"of the kind {c}" in text)


@DIALECTS
def test_the_environment_does_what_the_action_says_and_nothing_else(dialect):
    oracle, num_changes = GrammarOracle(), []
    for example in draw_examples("rewrite", dialect, COUNT, 7):
        [before] = film_texts(example.prompt.text)
        action = block_of(example.prompt.text, "ACTION")
        after = render_blocks(written(example, "rewrite"))
        outcome = oracle.judge_edit(before, action, after)
        assert (outcome.well_formed, outcome.followed, outcome.kept) == (True, True, 1.0)
        asked = grammar.mentions(action)
        assert len(dict(asked)) == len(asked)  # two changes are changes of two slots
        num_changes.append(len(asked))
        assert {w for w in corpus.split_words(after) if w in grammar.word_values()} <= own_words(dialect)
    assert set(num_changes) == {1, 2} and np.mean(num_changes) < 1.4


@DIALECTS
def test_a_film_is_told_as_its_title_says(dialect):
    for example in draw_examples("describe", dialect, COUNT, 7):
        film = grammar.parse_film(render_blocks(written(example, "describe")))
        assert f"describe the film {grammar.title_of(film)}. " in example.prompt.text


@DIALECTS
def test_a_profile_names_likes_and_dislikes_of_each_part(dialect):
    world = draw_world()
    agreement = []
    for example in draw_examples("profile", dialect, COUNT, 7):
        profile = written(example, "profile")["USER_PROFILE"]
        liked, disliked = read_profile(profile)
        assert len(liked) == 10 and len(disliked) == 5 and not liked & disliked
        parts = re.findall(r"(\w+): \w+ (\w+) and (\w+), \w+ (\w+)\.", profile)
        assert [part for part, *_ in parts] == list(corpus.PROFILE_SLOTS)
        for part, *words in parts:
            assert {grammar.word_values()[w][0] for w in words} <= set(corpus.PROFILE_SLOTS[part])
        titles = [block_of(example.prompt.text, name).split("; ") for name in ("LIKED", "DISLIKED")]
        assert [len(side) for side in titles] == [corpus.PROFILE_SIDE] * 2
        assert not set(titles[0]) & set(titles[1])
        for title in [*titles[0], *titles[1]]:
            assert [slot for slot, _ in grammar.mentions(title)] == list(SLOTS)
            assert title not in profile
        # What is liked by the profile is found more often among the titles rated high.
        up, down = (grammar.mentions(" ".join(side)) for side in titles)
        agreement.append(sum(v in liked for v in up) - sum(v in liked for v in down))
    assert np.mean(agreement) > 2
    taste = world.draw_tastes(1, np.random.default_rng(0))[0]
    text = corpus.tell_profile(world, taste, np.random.default_rng(0))
    liked, disliked = read_profile(text)
    affinity = world.value_affinity(taste)
    for slots in corpus.PROFILE_SLOTS.values():  # the best two, and the worst, of each part
        values = sorted((k for k in affinity if k[0] in slots), key=lambda k: affinity[k])
        assert {v for v in liked if v[0] in slots} == set(values[-2:])
        assert {v for v in disliked if v[0] in slots} == {values[0]}


@DIALECTS
@pytest.mark.parametrize("task", ["generic_action", "personalised_action"])
def test_a_proposal_is_one_change_of_the_category_asked_for(task, dialect):
    fits, categories = [], set()
    for example in draw_examples(task, dialect, COUNT, 7):
        action = written(example, task)["ACTION"]
        category = category_of(example.prompt.text)
        categories.add(category)
        [(slot, value)] = grammar.mentions(action)
        assert slot in grammar.CATEGORY_SLOTS[category]
        [text] = film_texts(example.prompt.text)
        assert grammar.parse_film(text)[slot] != value  # it changes something
        if task == "personalised_action":
            liked, disliked = read_profile(block_of(example.prompt.text, "USER_PROFILE"))
            fits.append((slot, value) in liked)
        else:
            assert "USER_PROFILE" not in example.prompt.text
    assert categories == set(MOVIE.action_categories)
    if fits:
        assert 0.4 < np.mean(fits) < 0.95  # towards the taste, but not always the same


@DIALECTS
def test_the_rater_answers_eleven_questions_about_what_it_sees(dialect):
    world, answers_seen = draw_world(), []
    for example in draw_examples("rater", dialect, COUNT, 7):
        pieces = written(example, "rater")["ANSWERS"].split()
        answers = dict(zip(map(int, pieces[::2]), pieces[1::2], strict=True))
        assert list(answers) == list(range(1, 12))
        films = [grammar.parse_film(text) for text in film_texts(example.prompt.text)]
        profile = block_of(example.prompt.text, "USER_PROFILE")
        assert corpus.rate(world, profile, *films) == answers
        liked, disliked = read_profile(profile)
        match = [len(set(f.items()) & liked) - len(set(f.items()) & disliked) for f in films]
        assert answers[1] == answers[2] == ("a" if match[0] >= match[1] else "b")
        for question, score in ((3, match[0]), (4, match[1]), (6, match[0]), (7, match[1])):
            assert answers[question] == str(min(5, max(1, 3 + score)))
        # Swapping the texts swaps the answers, unless the two are level.
        swapped = corpus.rate(world, profile, *films[::-1])
        assert (swapped[3], swapped[4], swapped[5]) == (answers[4], answers[3], answers[5])
        if match[0] != match[1]:
            assert swapped[1] != answers[1]
        answers_seen.append(answers)
    for question, possible in ((1, "ab"), (5, "12345"), (8, "ab"), (11, "ab")):
        assert {answers[question] for answers in answers_seen} == set(possible)


def test_a_rating_worked_by_hand():
    world = draw_world()
    profile = "genre: loves horror and noir, dislikes comedy. other: loves chef and thief, dislikes"
    film = {slot: 0 for slot in SLOTS}
    liked = film | {"genre": 4, "hero": 5}  # horror, chef: +2
    disliked = film | {"genre": 3, "tone": 1, "music": 2}  # comedy: -1
    answers = corpus.rate(world, profile, liked, disliked)
    assert [answers[question] for question in (1, 2, 3, 4, 6, 7)] == ["a", "a", "5", "2", "5", "2"]
    assert answers[5] == "3"  # four slots differ: 1 + (4 + 1) // 2
    assert corpus.rate(world, profile, film, film)[5] == "1"


@pytest.mark.parametrize("task", CORPUS_TASKS)
def test_a_seed_gives_the_same_examples_and_another_gives_others(task):
    one = draw_examples(task, "a", 8, 11)
    assert draw_examples(task, "a", 8, 11) == one
    assert draw_examples(task, "a", 4, 11) == one[:4]  # whatever follows
    assert not {e.prompt.text for e in one} & {e.prompt.text for e in draw_examples(task, "a", 8, 12)}


def test_all_words_are_in_the_vocabulary():
    words = corpus.vocabulary()
    assert words == sorted(set(words)) and len(words) < 500
    known = set(words)
    assert {word for values in grammar.LEXICON.values() for v in values for word in v} <= known
    for task in CORPUS_TASKS:
        for dialect in grammar.DIALECTS:
            for example in draw_examples(task, dialect, 40, 12345):
                text = f"{example.prompt.text} {example.completion}"
                assert set(corpus.split_words(text)) <= known


def test_words_are_split_from_signs():
    assert " ".join(corpus.split_words("a b, c; d: e. #END_PLOT x.,")) == "a b , c ; d : e . #END_PLOT x . ,"
    assert corpus.split_words(" ; ") == [";"]
