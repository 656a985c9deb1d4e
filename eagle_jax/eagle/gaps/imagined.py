"""Texts of what could exist: where the environment gets to that is told anything, again and again.

Text world. A walk starts from an item and follows instructions drawn evenly, whatever anyone would like, until it has
left its item behind. Evenly by what they name: a list that asks for jungles in five ways and for harbors in one would
make harbors look rare. The last text of a walk is one of all that can be asked for, each part of it drawn by itself: a
kind of item that the catalogue lacks comes up as often as any other, if its parts can be asked for one by one. Without
an environment, films' own fields are put together anew: genres and year of one, plot of another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.film_fields import with_fields_of
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.gaps.settings import WalkSettings

_WORD = re.compile(r"\w+")


def walk_evenly(
    stage: StageFolder,
    environment: LLMEnvironment,
    items: Sequence[str],
    instructions: Sequence[str],
    settings: WalkSettings,
) -> list[str]:
    """The last text of each walk; those of each step are kept in the stage's parts, where an interrupted one goes on.

    items: the catalogue's texts.
    """
    rng, named = np.random.default_rng(settings.seed), by_name(instructions, items)
    starts = [items[place] for place in rng.choice(len(items), settings.num_walks, settings.num_walks > len(items))]
    names = rng.integers(len(named), size=(settings.num_steps, settings.num_walks, settings.instructions_per_step))
    ways = rng.random(names.shape)
    texts = starts
    for step in progress(range(settings.num_steps), settings.num_steps, "walks", "step"):

        def follow(step: int = step, texts: Sequence[str] = texts) -> list[str]:
            drawn = zip(names[step].ravel(), ways[step].ravel(), strict=True)
            told = [named[name][int(way * len(named[name]))] for name, way in drawn]
            asked = map(" ".join, zip(*[iter(told)] * settings.instructions_per_step, strict=True))
            return [one.description for one in environment.step(texts, list(asked), derive_seed(settings.seed, step))]

        texts = stage.chunk(step, follow)
    return texts


def by_name(instructions: Sequence[str], items: Sequence[str]) -> list[list[str]]:
    """The instructions in groups of those that name the same: of an instruction's words the one that fewest items have,
    but some do. An instruction without such a word is a group of its own."""
    shared, groups = Counter(word for text in items for word in _words(text)), {}
    for instruction in instructions:
        known = [word for word in _words(instruction) if shared[word]]
        name = min(known, key=lambda word: (shared[word], word)) if known else instruction
        groups.setdefault(name, []).append(instruction)
    return list(groups.values())


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def recombined(items: Sequence[str], count: int, seed: int) -> list[str]:
    """So many films, each the plot of one with genres and year of another, both drawn evenly.

    Raises `UserError` where texts have no such fields.
    """
    rng = np.random.default_rng(seed)
    plots, fields = rng.integers(len(items), size=(2, count))
    texts = [with_fields_of(items[one], items[other]) for one, other in zip(fields, plots, strict=True)]
    if all(text == items[plot] for text, plot in zip(texts, plots, strict=True)):
        raise UserError("the items' texts have no genres and year to put together anew: let walks imagine what exists")
    return texts
