"""Answered forms as CSV, a line for each: what one server exports another one imports."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import MalformedText
from eagle_jax.eagle.evaluation.rater_form import RaterAnswers, RaterQuestion, read_rater_answer
from eagle_jax.pages.rated_run import RatedItem
from eagle_jax.pages.rating_store import MODEL, PERSON, Form

_COLUMNS = ("rater", "kind", "place", "row", "seed", "entity", "user", "generated_at", "check", "seconds")


def to_csv(forms: Iterable[Form], items: Sequence[RatedItem]) -> str:
    """check: what a check told to answer, as "1 B 5 2"; generated_at: where the new text stood."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = _answer_columns(items)
    writer.writerow([*_COLUMNS, *columns.values()])
    for form in forms:
        check = " ".join(f"{number} {answer}" for number, answer in (form.expected or {}).items())
        seconds = "" if form.seconds is None else f"{form.seconds:.1f}"
        answers = [form.answers.get(number, "") for number in columns]
        place = (form.rater, form.kind, form.place, *items[form.item].name)
        writer.writerow([*place, form.label, check, seconds, *answers])
    return text.getvalue()


def read_csv(file: Path, items: Sequence[RatedItem]) -> list[Form]:
    """The forms of `to_csv`; raises `UserError` that names line, column and what was expected."""
    places = {item.name: place for place, item in enumerate(items)}
    columns = (*_COLUMNS, *_answer_columns(items).values())
    try:
        lines = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")), strict=True))
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not lines or set(lines[0]) != set(columns):
        raise UserError(f"{file}: expected lines with the columns {', '.join(columns)}")
    forms = []
    for number, line in enumerate(lines, start=2):
        try:
            forms.append(_form_of(line, places, items))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{file}, line {number}: {error}") from error
    return forms


def _answer_columns(items: Sequence[RatedItem]) -> dict[int, str]:
    """Of every question that is asked about any item."""
    return {number: f"q{number}" for number in sorted({number for item in items for number in item.questions})}


def _form_of(line: Mapping[str, str], places: Mapping[tuple[str, ...], int], items: Sequence[RatedItem]) -> Form:
    def one_of(column: str, allowed: Sequence[str]) -> str:
        if line[column] not in allowed:
            raise ValueError(f"{column}: expected one of {', '.join(allowed)}, found {line[column]!r}")
        return line[column]

    item = tuple(line[column] for column in ("row", "seed", "entity", "user"))
    if item not in places:
        raise ValueError(f"row, seed, entity, user: {item} is none of the texts that are rated here")
    if not line["rater"] or not line["place"].isdecimal():
        raise ValueError("rater, place: expected a name and a whole number")
    words = line["check"].split()
    asked = items[places[item]].questions
    answers = {number: line[column] for number, column in _answer_columns(items).items()}
    if others := [number for number, word in answers.items() if word and number not in asked]:
        raise ValueError(f"q{others[0]}: is not asked about this text")
    answers = {number: answers[number] for number in asked}
    return Form(
        rater=line["rater"],
        kind=one_of("kind", (PERSON, MODEL)),
        place=int(line["place"]),
        item=places[item],
        label=one_of("generated_at", ("A", "B")),
        expected=_read(dict(zip(map(int, words[0::2]), words[1::2], strict=True)), asked) if words else None,
        answers=_read(answers, asked),
        seconds=float(line["seconds"]) if line["seconds"] else None,
    )


def _read(words: Mapping[int, str], asked: Mapping[int, RaterQuestion]) -> RaterAnswers:
    if unknown := words.keys() - asked.keys():
        raise ValueError(f"check: there is no question {min(unknown)}")
    try:
        return {number: read_rater_answer(number, word, asked) for number, word in words.items()}
    except MalformedText as error:
        raise ValueError(str(error)) from error
