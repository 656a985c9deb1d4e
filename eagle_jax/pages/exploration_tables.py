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
from eagle_jax.pages.exploration import EvaluatedEpisode, Exploration, ExploredEpisode, ExploredText, played_rows
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


def played_told(run: ExploredRun, row: str) -> list[dict[str, Any]]:
    """For the page: what the run's evaluation has played of a row, in the order of the places."""
    catalogue = run.agent.catalogue
    return [
        made_visible(catalogue.item_names(one.entity_index) | catalogue.user_names(one.user_index))
        | {"seed": one.seed, "gain": one.gain}
        for one in played_rows(run)[row]
    ]


def evaluated_told(run: ExploredRun, episode: EvaluatedEpisode) -> dict[str, Any]:
    """For the page: every text of the way, each against the one before it."""
    texts = episode.texts
    told = {
        "row": episode.row,
        "seed": episode.seed,
        "item": {"id": episode.item.entity_id, "title": episode.item.title},
        "user": {"id": episode.user_id, "profile": episode.profile},
        "environment_calls": episode.environment_calls,
    }
    of_texts = [text_told(run, text, texts[text.before or 0]) for text in texts]
    return made_visible(told) | {"texts": of_texts}


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


def exploration_json(
    run: ExploredRun, exploration: Exploration | None, evaluated: Sequence[EvaluatedEpisode] = ()
) -> str:
    """Everything, as it is, of an exploration and of episodes of the evaluation."""
    told: dict[str, Any] = {
        "agent": run.agent.name,
        "reference": run.reference.name,
        "environment": run.agent.environment.generator.name,
        "catalogue": run.agent.catalogue.name,
        "seed": run.seed,
    }
    if exploration is not None:
        item, user = exploration.item, exploration.user
        told |= {
            "item": {"item_id": item.entity_id, "title": item.title},
            "user": {"user_id": user.user_id, "profile": user.profile},
            "texts": [dataclasses.asdict(text) for text in exploration.texts],
            "episodes": [dataclasses.asdict(episode) for episode in exploration.episodes],
        }
    told["evaluated"] = [
        {
            **{name: getattr(one, name) for name in ("row", "seed", "environment_calls")},
            "item": {"item_id": one.item.entity_id, "title": one.item.title},
            "user": {"user_id": one.user_id, "profile": one.profile},
            "texts": [dataclasses.asdict(text) for text in one.texts],
        }
        for one in evaluated
    ]
    return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def exploration_csv(exploration: Exploration | None, evaluated: Sequence[EvaluatedEpisode] = ()) -> str:
    """A line for each text, those of an episode behind the others under its number, those of the evaluation's last.

    What a spreadsheet would compute is made text by an apostrophe before it.
    """
    lines = [] if exploration is None else list(_rows(exploration))
    for one in evaluated:
        about = {"row": one.row, "seed": one.seed, "item_id": one.item.entity_id, "title": one.item.title}
        about |= {"user_id": one.user_id, "episode_calls": one.environment_calls}
        lines += [_line(text, **about) for text in one.texts]
    return inert_csv(lines)


def inert_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows, of which there is one at least, with no cell that a spreadsheet would compute; a column that a row lacks is
    empty there."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    columns = dict.fromkeys(name for row in rows for name in row)
    writer.writerow(columns)
    writer.writerows([_inert(row.get(name)) for name in columns] for row in rows)
    return lines.getvalue()


def _rows(exploration: Exploration) -> Iterator[dict[str, Any]]:
    about = {"item_id": exploration.item.entity_id, "title": exploration.item.title}
    about |= {"user_id": exploration.user.user_id}
    for text in exploration.texts:
        yield _line(text, **about)
    for number, one in enumerate(exploration.episodes, start=1):
        of_episode = {"episode": number, "best_of": one.best_of, "episode_calls": one.environment_calls}
        for text in one.path:
            yield _line(text, **about, **of_episode)


def _line(text: ExploredText, **about: Any) -> dict[str, Any]:
    """A text in the table; row and seed: of the evaluation's episodes."""
    names = ("row", "seed", "item_id", "title", "user_id", "episode", "best_of", "episode_calls")
    return {
        **{name: about.get(name) for name in names},
        **{name: getattr(text, name) for name in ("number", "before", "by", "action", "malformed")},
        "environment_calls": text.environment_calls,
        **{f"{encoder}_{name}": value for encoder, score in text.scores.items() for name, value in score.items()},
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
