"""The worlds that gaps are looked for in: the grammar as an environment, and films that are taken out."""

import numpy as np

from benchmarks import gaps
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import as_film, draw_films
from eagle_jax.data.prompts import COMPACT, MOVIE, environment_prompt
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.language_model.generation import ScriptedGenerator
from tests.small_world import SAMPLING


def test_the_grammar_does_what_an_instruction_says_and_nothing_else():
    rng = np.random.default_rng(0)
    env = LLMEnvironment(
        generator=ScriptedGenerator(gaps.edit_by_grammar), book=COMPACT, entity_format=MOVIE, sampling=SAMPLING
    )
    instructions = gaps.every_instruction()
    assert len(set(instructions)) == len(instructions) == 2 * 3 * sum(map(grammar.num_values, grammar.SLOTS))
    films = draw_films(60, rng)
    for values, dialect in zip(films, "ab" * 30, strict=True):
        text = grammar.tell_film(grammar.draw_telling(as_film(values), dialect, rng))
        action = " ".join(instructions[place] for place in rng.integers(len(instructions), size=2))
        (step,) = env.step([text], [action], seed=0)
        assert step.malformed is None
        assert grammar.parse_film(step.description) == as_film(values) | dict(grammar.mentions(action))
    prompt = environment_prompt(COMPACT, MOVIE, text, "make the genre noir.")
    answer = gaps.edit_by_grammar(prompt, rng)
    assert not answer.startswith(prompt.opening) and answer.endswith("#END_REASONS_TO_DISLIKE")


def test_films_that_are_taken_out_take_their_ratings_with_them(world):
    catalogue = world.catalogue
    gone = np.array([0, 5, 119])
    left = gaps.without(catalogue, gone)
    assert len(left.entities) == left.ratings.num_items == 117

    def told(of):
        table = of.ratings
        names = [of.entities[item].entity_id for item in table.item_index]
        assert names == [table.item_names[item] for item in table.item_index]
        return list(zip(table.user_index.tolist(), names, table.rating.tolist(), strict=True))

    taken = {catalogue.entities[item].entity_id for item in gone}
    assert told(left) == [row for row in told(catalogue) if row[1] not in taken]


def test_the_page_counts_worlds():
    common = {"gone": 0, "excess": 4.04}
    rows = [{**common, "kind": gaps.COMPLETE, "is_shown": False}, {**common, "kind": gaps.COMPLETE, "is_shown": True}]
    rows += [{**common, "kind": gaps.CLUSTER, "is_shown": True, "place": place} for place in (1, 3)]
    rows += [{**common, "kind": gaps.LIKED, "is_shown": False, "place": 1}]
    page = gaps.page({"cpu": "one"}, [], rows, "Environment: grammar.")
    assert "| complete | - | 1 of 2 | -, - | 4.0, 4.0 |" in page
    assert "| a cluster of films | 1 of 2 | 2 of 2 | 1, 3 | 4.0, 4.0 |" in page
    assert "| what a group likes best | 1 of 1 | 0 of 1 | 1 | 4.0 |" in page
