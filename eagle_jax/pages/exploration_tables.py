"""An exploration as it is shown and as it is taken along: changed words, terms of U, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eagle_jax.base.errors import visible
from eagle_jax.eagle.evaluation.episodes import Score
from eagle_jax.eagle.evaluation.story import changed_words
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.embeddings.utility import TERMS, USER_TERM_PARTS, UtilitySettings
from eagle_jax.pages.exploration import Exploration, ExploredEpisode, ExploredText
from eagle_jax.pages.explored_run import ExploredRun, Findable, find

# What a spreadsheet takes for a formula; texts may come from anybody's model.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MOST_FOUND = 20


def text_told(run: ExploredRun, text: ExploredText, before: ExploredText) -> dict[str, Any]:
    """For the page: what the text has new over the one before, in words and in every term of U."""
    headings = term_headings(run.agent.scorers[TRAIN].settings, run.agent.quality is not None)
    told = {
        "number": text.number,
        "before": text.before,
        "by": text.by,
        "action": text.action,
        "malformed": _told_malformed(text),
        "environment_calls": text.environment_calls,
        "words": changed_words(before.text, text.text),
        "terms": term_lines(headings, before.scores, text.scores),
        "position": text.position,
        "nearest": text.nearest,
    }
    return made_visible(told)


def episode_told(run: ExploredRun, exploration: Exploration, episode: ExploredEpisode) -> dict[str, Any]:
    """For the page: the last text against the item's, and the way there."""
    anchor = exploration.texts[0]
    last = episode.path[-1] if episode.path else anchor
    told = {
        "by": episode.by,
        "best_of": episode.best_of,
        "environment_calls": episode.environment_calls,
        "malformed": sum(episode.malformed.values()),
        "actions": [text.action or "(could not be read)" for text in episode.path],
        "positions": [text.position for text in (anchor, *episode.path)],
    }
    return {"text": text_told(run, last, anchor)} | made_visible(told)


def found_told(asked: str, among: Sequence[Findable], titles: Callable[[int], Mapping[str, str]]) -> dict[str, Any]:
    """What was asked for, the best first, with the titles of a place; how much there is in all."""
    places = find(asked, among)
    found = [{"place": place, **titles(place)} for place in places[:_MOST_FOUND]]
    return {"count": len(places), "found": made_visible(found)}


def term_headings(settings: UtilitySettings, has_quality: bool) -> dict[str, tuple[str, str]]:
    """Of U, its terms and what is rewarded beside it: how tables call it, and what it means."""
    headings = {"utility": ("U", "The sum of the terms, each times its weight.")}
    for name, term in TERMS.items():
        weight = term.weight(settings)
        headings[name] = (term.heading if weight == 1 else f"{term.heading}, weight {weight:g}", term.meaning)
    headings |= {name: (f"of the user term: {part}", meaning) for name, (part, meaning) in USER_TERM_PARTS.items()}
    if has_quality:
        headings["quality"] = ("Quality", "How far the text is outside of what the catalogue's own are like, below 0.")
        headings["reward"] = ("Reward", "U and weighted quality: what the training rewards.")
    return headings


def term_lines(
    headings: Mapping[str, tuple[str, str]], before: Mapping[str, Score], after: Mapping[str, Score]
) -> list[dict[str, Any]]:
    """A line for each heading of which there are values: by encoder [before, after]."""
    return [
        {
            "heading": heading,
            "values": {one: [before[one][name], after[one][name]] for one in (TRAIN, HELD_OUT) if name in after[one]},
        }
        for name, (heading, _) in headings.items()
        if name in after[TRAIN]
    ]


def exploration_json(run: ExploredRun, exploration: Exploration) -> str:
    """Everything, as it is."""
    item, user = exploration.item, exploration.user
    told = {
        "agent": run.agent.name,
        "reference": run.reference.name,
        "environment": run.agent.environment.generator.name,
        "catalogue": run.agent.catalogue.name,
        "seed": run.seed,
        "item": {"item_id": item.entity_id, "title": item.title},
        "user": {"user_id": user.user_id, "profile": user.profile},
        "texts": [dataclasses.asdict(text) for text in exploration.texts],
        "episodes": [dataclasses.asdict(episode) for episode in exploration.episodes],
    }
    return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def exploration_csv(exploration: Exploration) -> str:
    """A line for each text, those of an episode behind the others under its number.

    What a spreadsheet would compute is made text by an apostrophe before it.
    """
    return inert_csv(list(_rows(exploration)))


def inert_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns, of which there is one at least, with no cell that a spreadsheet would compute."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_inert(cell) for cell in row.values()] for row in rows)
    return lines.getvalue()


def _rows(exploration: Exploration) -> Iterator[dict[str, Any]]:
    parts: list[tuple[int | None, ExploredEpisode | None, tuple[ExploredText, ...]]] = [(None, None, exploration.texts)]
    parts += [(number, one, one.path) for number, one in enumerate(exploration.episodes, start=1)]
    for number, episode, texts in parts:
        for text in texts:
            yield {
                "item_id": exploration.item.entity_id,
                "title": exploration.item.title,
                "user_id": exploration.user.user_id,
                "episode": number,
                "best_of": episode and episode.best_of,
                "episode_calls": episode and episode.environment_calls,
                **{name: getattr(text, name) for name in ("number", "before", "by", "action", "malformed")},
                "environment_calls": text.environment_calls,
                **{
                    f"{encoder}_{name}": value
                    for encoder in text.scores
                    for name, value in text.scores[encoder].items()
                },
                "x": text.position[0],
                "y": text.position[1],
                "nearest": json.dumps(text.nearest, ensure_ascii=False),
                "text": text.text,
            }


def _inert(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _told_malformed(text: ExploredText) -> str | None:
    if text.malformed is None:
        return None
    whose, _, reason = text.malformed.partition(":")
    said = {"environment": "The environment’s answer", "action": "The instruction"}[whose]
    return f"{said} could not be read ({reason}), so the text is as it was before."


def made_visible(value: Any) -> Any:
    """The same with escapes in all its strings for what a screen would act on, as the templates have it."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {key: made_visible(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [made_visible(one) for one in value]
    return value
