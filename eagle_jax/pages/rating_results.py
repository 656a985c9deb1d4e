"""What people and models say: the paper's columns with intervals, and how far raters agree.

Forms are compared as if the generated text had stood at A. Left out, and counted, are attention
checks and the raters who failed more than half of theirs. Agreement is Krippendorff's alpha
(Krippendorff 2019, *Content Analysis*, chapter 12) from the package of this name: nominal for choices,
ordinal for scores; its interval resamples items. People agree with each other, a model with itself
when the texts change places and with people.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from eagle_jax.eagle.evaluation.rater_form import RaterQuestion, with_generated_at_a
from eagle_jax.pages.rated_run import RatedRun
from eagle_jax.pages.rating_store import MODEL, PERSON, Form
from eagle_jax.reports.statistics import BootstrapSettings, Interval, bootstrap_interval

_BOOTSTRAP = BootstrapSettings(num_resamples=2000, confidence=0.95, seed=0)
_ALPHA_RESAMPLES = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over forms, with an interval by each of what it was sampled from; None: fewer than two."""

    mean: float
    by_item: Interval | None
    by_rater: Interval | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaterAgreement:
    """alpha: None where it cannot be told (no two raters of an item, or all answers are the same).

    with_people: how often a model's answer and a person's about the same item are the same.
    """

    question: str
    num_items: int
    alpha: float | None
    low: float | None
    high: float | None
    with_people: Interval | None


def results(run: RatedRun, forms: Sequence[Form]) -> dict[str, Any]:
    """All that the page of results shows.

    groups: people together and each model, see `_group`; what is told of checks is people's.
    left_out: who failed theirs.
    """
    left_out = failed_raters(forms)
    kept = [form for form in forms if form.expected is None and form.rater not in left_out]
    people = [form for form in kept if form.kind == PERSON]
    models = defaultdict(list)
    for form in kept:
        if form.kind == MODEL:
            models[form.rater].append(form)
    return {
        "groups": [
            _group("People", run, people, []),
            *(_group(name, run, of_model, people) for name, of_model in models.items()),
        ],
        "num_raters": len({form.rater for form in forms if form.kind == PERSON}),
        "num_checks": sum(form.expected is not None for form in forms),
        "num_passed": sum(form.passed for form in forms if form.expected is not None),
        "left_out": sorted(left_out),
        "has_alpha": importlib.util.find_spec("krippendorff") is not None,
    }


def _group(name: str, run: RatedRun, forms: Sequence[Form], people: Sequence[Form]) -> dict[str, Any]:
    """rows: {"row", "measured", "num_forms", "num_items", "num_raters", "cells": column -> `Estimate`}
    of each row that was rated. agreement: a `RaterAgreement` for each question that was asked. first: how often the
    answer to a choice is A, whatever stands there. people: whom to compare with; may be none."""
    of_rows = defaultdict(list)
    for form in forms:
        of_rows[run.items[form.item].row].append(form)
    asked = _asked(run, forms)
    choices = [number for number, question in asked.items() if question.ends is None]
    return {
        "name": name,
        "rows": [
            {
                "row": row,
                "measured": {heading: by_row.get(row) for heading, by_row in run.measured.items()},
                "num_forms": len(of_row),
                "num_items": len({form.item for form in of_row}),
                "num_raters": len({form.rater for form in of_row}),
                "cells": paper_columns(run, of_row),
            }
            for row in dict.fromkeys(item.row for item in run.items)
            if (of_row := of_rows.get(row))
        ],
        "agreement": [rater_agreement(run, number, forms, people) for number in asked],
        "first": _estimate(
            [float(form.answers[number] == "A") for form in forms for number in choices],
            [form.item for form in forms for _ in choices],
            [form.rater for form in forms for _ in choices],
        ),
    }


def failed_raters(forms: Sequence[Form]) -> set[str]:
    """Those who failed more than half of their attention checks."""
    passed = defaultdict(list)
    for form in forms:
        if form.expected is not None:
            passed[form.rater].append(form.passed)
    return {rater for rater, checks in passed.items() if np.mean(checks) < 0.5}


def paper_columns(run: RatedRun, forms: Sequence[Form]) -> dict[str, Estimate]:
    """The form's columns over forms of one row, none of them a check; None where it was not asked."""
    scores = [run.form.score(form.answers, form.label) for form in forms]
    # Texts of several seeds from the same anchor for the same user are not independent.
    items = [(run.items[form.item].entity_index, run.items[form.item].user_index) for form in forms]
    raters = [form.rater for form in forms]
    columns = {}
    for name in run.form.columns:
        told = [place for place, score in enumerate(scores) if name in score]
        values = ([of_all[place] for place in told] for of_all in (items, raters))
        columns[name] = _estimate([scores[place][name] for place in told], *values)
    return columns


def _estimate(values: Sequence[float], items: Sequence[Any], raters: Sequence[str]) -> Estimate | None:
    def interval(clusters: Sequence[Any]) -> Interval | None:
        return bootstrap_interval(values, _BOOTSTRAP, clusters=clusters) if len(set(clusters)) > 1 else None

    if not values:
        return None
    return Estimate(mean=float(np.mean(values)), by_item=interval(items), by_rater=interval(raters))


def _asked(run: RatedRun, forms: Sequence[Form]) -> dict[int, RaterQuestion]:
    """The questions of all forms; those of one number have the same options in all of them."""
    found = {number: question for form in forms for number, question in run.items[form.item].questions.items()}
    return dict(sorted(found.items()))


def rater_agreement(run: RatedRun, number: int, forms: Sequence[Form], people: Sequence[Form] = ()) -> RaterAgreement:
    """How far forms about the same item have the same answer to a question."""
    question = _asked(run, forms)[number]
    counts, of_people = (_counts(number, question.options, of_whom) for of_whom in (forms, people))
    # Items of one form say nothing about agreement. [items, answers]
    rated = np.array([of_item for of_item in counts.values() if of_item.sum() > 1])
    text = run.form.of_questions[number]
    level = "nominal" if question.ends is None else "ordinal"
    alpha, low, high = _alpha(rated, level) if len(rated) > 1 else (None, None, None)
    # Of all pairs of a form and a person's about the item, the share that has the same answer.
    same = [
        float(own @ of_people[item] / (own.sum() * of_people[item].sum()))
        for item, own in counts.items()
        if item in of_people
    ]
    with_people = bootstrap_interval(same, _BOOTSTRAP) if len(same) > 1 else None
    return RaterAgreement(question=text, num_items=len(rated), alpha=alpha, low=low, high=high, with_people=with_people)


def _counts(number: int, options: Sequence[str], forms: Sequence[Form]) -> dict[int, np.ndarray]:
    """How often each option was chosen [answers], for each item; as if the new text had stood at A."""
    counts = defaultdict(lambda: np.zeros(len(options), int))
    for form in forms:
        if number not in form.answers:
            continue
        answer = str(with_generated_at_a(form.answers, form.label)[number])
        counts[form.item][options.index(answer)] += 1
    return dict(counts)


def _alpha(counts: np.ndarray, level: str) -> tuple[float | None, float | None, float | None]:
    """Krippendorff's alpha of counts [items, answers] with its interval, None without the package."""
    try:
        import krippendorff
    except ImportError:
        return None, None, None

    def one(rows: np.ndarray) -> float:
        # Where all answers are the same, agreement beyond chance is 0 / 0.
        if np.count_nonzero(rows.sum(axis=0)) < 2:
            return np.nan
        return float(krippendorff.alpha(value_counts=rows, level_of_measurement=level))

    rng = np.random.default_rng(_BOOTSTRAP.seed)
    drawn = [one(counts[rng.integers(len(counts), size=len(counts))]) for _ in range(_ALPHA_RESAMPLES)]
    whole = one(counts)
    if np.isnan(whole):
        return None, None, None
    tail = (1 - _BOOTSTRAP.confidence) / 2
    low, high = np.nanquantile(drawn, (tail, 1 - tail))
    return whole, float(low), float(high)
