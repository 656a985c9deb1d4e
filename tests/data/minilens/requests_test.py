"""Films are asked for, judged and compared as the world and the profile say, and others' draws."""

import math
import re

import numpy as np
import pytest

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.requests import (
    answer_compare,
    draw_requests,
    draw_watched,
    malformed_responses,
    malformed_utility,
    supervised_examples,
    true_utility,
)
from eagle_jax.data.minilens.world import as_film, draw_films, draw_world
from eagle_jax.data.prompts import COMPACT, MOVIE, MalformedText, Prompt, compare_prompt, end, parse_blocks
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator
from eagle_jax.stages.models import load_model

NUM_REQUESTS = 40
DAMAGED = {
    "": "missing_block",
    "a film": "missing_block",
    "a western. #END_PLOT #BEGIN_REASONS_TO_LIKE x #END_REASONS_TO_LIKE #BEGIN_REASONS_TO_DISLIKE y": "missing_slot",
}
DIALECTS = pytest.mark.parametrize("dialect", grammar.DIALECTS)


@pytest.fixture(scope="module")
def requests():
    return draw_requests(NUM_REQUESTS, 3)


def response_of(film, dialect, rng):
    """A film as a model writes it: behind the opening marker and before the closing one."""
    text = grammar.tell_film(grammar.draw_telling(film, dialect, rng))
    return text.removeprefix("#BEGIN_PLOT ").removesuffix(" #END_REASONS_TO_DISLIKE")


def draw_responses(count, seed, dialect="a"):
    rng = np.random.default_rng(seed)
    films = [as_film(values) for values in draw_films(count, rng)]
    return films, [response_of(film, dialect, rng) for film in films]


def utility_by_hand(film, taste):
    """sum over slots of <value vector, taste>, in Python's float64."""
    vectors = draw_world().value_vectors
    return math.fsum(
        float(v) * float(t) for slot in grammar.SLOTS for v, t in zip(vectors[slot][film[slot]], taste, strict=True)
    )


def test_a_request_shows_the_profile_and_asks_for_a_film(requests):
    for request in requests:
        assert parse_blocks(
            request.prompt.text.removeprefix("write a film for this user. ").removesuffix(" #BEGIN_PLOT"),
            ["USER_PROFILE"],
        ) == {"USER_PROFILE": request.profile}
        assert request.prompt.stop == ("#END_REASONS_TO_DISLIKE",)
        affinity = draw_world().value_affinity(request.taste)
        genres = [affinity["genre", value] for value in range(grammar.num_values("genre"))]
        liked, disliked = corpus.read_profile(request.profile)
        assert ("genre", int(np.argmax(genres))) in liked
        assert ("genre", int(np.argmin(genres))) in disliked


def test_draws_follow_the_seed_and_are_apart_for_each_seed_and_use():
    first, again, other = (draw_requests(NUM_REQUESTS, seed) for seed in (3, 3, 4))
    assert [r.prompt for r in first] == [r.prompt for r in again]
    assert np.array_equal([r.taste for r in first], [r.taste for r in again])
    shorter = draw_requests(5, 3)
    assert [r.prompt for r in shorter] == [r.prompt for r in first[:5]]
    tastes = np.array([r.taste for r in first + other])
    assert len(np.unique(tastes[:, 0])) == 2 * NUM_REQUESTS
    taught = supervised_examples(NUM_REQUESTS, 3, num_films=2, strength=1.0, dialect="a")
    sets = [{r.prompt.text for r in first}, {r.prompt.text for r in other}]
    sets.append({example.prompt.text for example in taught})
    # Two users of different taste seldom have the same profile.
    assert len(set.union(*sets)) > 0.95 * 3 * NUM_REQUESTS


@DIALECTS
def test_the_utility_is_the_worlds(requests, dialect):
    films, responses = draw_responses(NUM_REQUESTS, 5, dialect)
    for request, film, response in zip(requests, films, responses, strict=True):
        expected = utility_by_hand(film, request.taste)
        np.testing.assert_allclose(true_utility(request, response), expected, rtol=1e-12)
    assert not malformed_responses(requests, responses)


@pytest.mark.parametrize(("response", "reason"), DAMAGED.items())
def test_what_is_no_film_loses_against_every_film_and_is_counted(requests, response, reason):
    world = draw_world()
    for request in requests[:10]:
        floor = malformed_utility(request)
        assert true_utility(request, response) == floor
        # The user's worst film, slot by slot: no film can be below it.
        affinity = world.value_affinity(request.taste)
        values = {slot: range(grammar.num_values(slot)) for slot in grammar.SLOTS}
        worst = {slot: min(values[slot], key=lambda v, s=slot: affinity[s, v]) for slot in values}
        lowest = response_of(worst, "a", np.random.default_rng(0))
        np.testing.assert_allclose(true_utility(request, lowest), floor + 1.0, rtol=1e-9)
    whole = f"#BEGIN_PLOT {lowest} #END_REASONS_TO_DISLIKE"  # its markers stand in the prompt
    assert malformed_responses(requests[:3], [response, lowest, whole]) == {reason: 1, "wrong_markers": 1}


@DIALECTS
def test_the_supervised_start_shows_films_that_the_user_would_watch(dialect):
    count = 250
    means = []
    for strength in (0.0, 1.0, 20.0):
        examples = supervised_examples(count, 8, num_films=4, strength=strength, dialect=dialect)
        # The same seed draws the same users and films, whatever the strength.
        requests = {e.prompt.text for e in examples}
        assert len(requests) > 0.95 * count
        matches, frames = [], set()
        for example in examples:
            [stop] = example.prompt.stop
            assert example.completion.endswith(f" {stop}")
            film = grammar.parse_film(f"#BEGIN_PLOT {example.completion}")
            profile = re.search("PROFILE (.*) #END_USER", example.prompt.text).group(1)
            matches.append(corpus.match_profile(profile, film))
            told = corpus.split_words(example.completion)
            frames.add(tuple(w for w in told if w not in grammar.word_values()))
        means.append(np.mean(matches))
        assert len(frames) == 1  # one way to tell a film: only its values differ
    assert means[0] < means[1] < means[2]


def test_films_are_watched_in_proportion_to_the_exponential_of_their_affinity(requests):
    rng = np.random.default_rng(0)
    films, taste, strength, count = draw_films(4, rng), requests[0].taste, 1.5, 4000
    weights = [math.exp(strength * utility_by_hand(as_film(film), taste)) for film in films]
    expected = np.array(weights) / sum(weights)
    drawn = [draw_watched(films, taste, strength, rng) for _ in range(count)]
    share = np.bincount(drawn, minlength=4) / count
    assert np.all(abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count))
    assert expected.min() < 0.2 < 0.3 < expected.max()
    assert np.ptp(np.bincount([draw_watched(films, taste, 0.0, rng) for _ in range(count)])) < 250


def test_every_word_is_known_to_the_shipped_tokenizers(requests):
    instructions = [COMPACT.write.format(noun=MOVIE.noun), COMPACT.compare]
    taught = supervised_examples(60, 1, num_films=1, strength=0.0, dialect="b")
    taught += supervised_examples(60, 1, num_films=1, strength=0.0, dialect="a")
    texts = [f"{e.prompt.text} {e.completion}" for e in taught] + instructions
    for role in ("policy", "generator"):
        tokenizer = load_model(f"minilens/{role}").tokenizer
        unknown = tokenizer.token_id("[UNK]")
        assert unknown is not None
        for text in texts:
            assert unknown not in tokenizer.encode(text), text
        assert unknown in tokenizer.encode("antidisestablishmentarianism")
        assert {len(tokenizer.encode_prompt(r.prompt.text)) for r in requests} == {60}


def compare(request, first, second):
    return compare_prompt(COMPACT, request.prompt.text, first, second)


def test_the_teacher_prefers_what_the_profile_says(requests):
    rng = np.random.default_rng(1)
    for request in requests:
        liked, disliked = (dict(sorted(values)) for values in corpus.read_profile(request.profile))
        base = as_film(draw_films(1, rng)[0])
        good, bad = (response_of(base | v, "b", rng) for v in (liked, disliked))
        assert answer_compare(compare(request, good, bad), rng) == "a"
        assert answer_compare(compare(request, bad, good), rng) == "b"
        assert answer_compare(compare(request, "no film", bad), rng) == "b"
        assert answer_compare(compare(request, bad, f"{good} #END_ANSWER"), rng) == "a"


def test_both_orders_agree_but_for_ties_which_are_drawn(requests):
    _, responses = draw_responses(2 * NUM_REQUESTS, 9)
    pairs = list(zip(requests, responses[::2], responses[1::2], strict=True))
    forward = [compare(request, one, two) for request, one, two in pairs]
    backward = [compare(request, two, one) for request, one, two in pairs]
    sampling = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=4)
    rater = ScriptedGenerator(answer_compare)
    answers = [[g.text for g in rater.generate(forward + backward, sampling, seed)] for seed in range(12)]
    num_ties = 0
    for row, (request, one, two) in enumerate(pairs):
        films = [grammar.parse_film(f"#BEGIN_PLOT {x} {end('REASONS_TO_DISLIKE')}") for x in (one, two)]
        match = [corpus.match_profile(request.profile, film) for film in films]
        given = {(a[row], a[row + len(pairs)]) for a in answers}
        if match[0] == match[1]:
            num_ties += 1
            assert {one for one, _ in given} == {"a", "b"} == {two for _, two in given}
        else:
            assert given == {("a", "b") if match[0] > match[1] else ("b", "a")}
    assert 0 < num_ties < len(pairs)
    same = compare(requests[0], "no film", "none")
    assert {answer_compare(same, np.random.default_rng(seed)) for seed in range(12)} == {"a", "b"}


def test_a_rater_that_is_asked_something_else_says_so():
    with pytest.raises(MalformedText, match="BEGIN_REQUEST"):
        answer_compare(Prompt("which? #BEGIN_ANSWER", ("#END_ANSWER",), "#BEGIN_ANSWER"), None)
