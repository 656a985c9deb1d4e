"""Files of preferences, HH-RLHF's, SHP's, TRL's or your own, read as examples; faults are counted.

| format | rows |
|---|---|
| hh_rlhf | chosen, rejected: two dialogues that differ in their last reply |
| shp | history, human_ref_A/B, score_A/B, labels, post_id: gathered into K responses per post |
| trl | chosen, rejected and maybe prompt: plain texts, or lists of turns with role and content |
| table | prompt, and chosen, rejected or response_1 ... response_K (maybe score_1 ..., label) |

Every format may come as .jsonl or .json (JSON lines), .csv (text only), each also .gz, or .parquet.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRow, bad_row, summarize_bad_rows
from eagle_jax.data.preferences import shp
from eagle_jax.data.preferences.dialogues import PLAIN_LAYOUT, DialogueLayout
from eagle_jax.data.preferences.examples import MAX_RESPONSES, PreferenceExample
from eagle_jax.data.preferences.formats import CountsFromZeroError, Values, hh_rlhf_example, table_example, trl_example
from eagle_jax.data.rows import FileRow, read_row_file

# Format -> fields that a row must have: one of these sets.
FIELDS = {
    "hh_rlhf": (("chosen", "rejected"),),
    "shp": (shp.SHP_FIELDS,),
    "trl": (("chosen", "rejected"),),
    "table": (("prompt", "response_1", "response_2"), ("prompt", "chosen", "rejected")),
}
_NUMBERED = re.compile(r"(?:response|score)_(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceLoadReport:
    """What was read and what was left out, and why."""

    file: str
    num_rows: int  # good and bad, blank lines aside
    num_examples: int  # one per good row; of SHP one per post
    num_responses: int
    num_undecided: int  # examples without label and scores: a rater has to be asked
    bad_rows: tuple[BadRow, ...]  # by line

    def summary(self, num_shown: int) -> str:
        """Counts, then the first `num_shown` bad rows."""
        return (
            f"{self.file}: {self.num_rows} rows, {self.num_examples} prompts with "
            f"{self.num_responses} responses, {self.num_undecided} of them without label or "
            f"scores\n{summarize_bad_rows(self.bad_rows, num_shown)}"
        )


def read_preferences(
    path: Path, file_format: str, *, layout: DialogueLayout = PLAIN_LAYOUT
) -> tuple[list[PreferenceExample], PreferenceLoadReport]:
    """Examples of a file in one of the formats above, in the file's order, and what was left out.

    `layout` makes text of the turns in dialogues, posts and TRL's conversational rows. Left out and
    counted are rows that are no JSON object or not UTF-8, lack a field or a text, have an empty or
    only identical responses, dialogues that do not share all but the last reply, scores that are
    NaN, labels out of range or against the scores. Raises UserError for an unknown format, a file
    that is missing, damaged or of another kind, a table without a column or whose labels count from
    0, or if nothing is left.
    """
    path = Path(path)
    if file_format not in FIELDS:
        raise UserError(f"format {file_format!r}: expected one of {', '.join(FIELDS)}")
    unreadable: list[BadRow] = []  # by what reads the file
    unusable: list[BadRow] = []  # by what reads the format
    fields = " or ".join(", ".join(names) for names in FIELDS[file_format])
    rows = _Counted(
        read_row_file(path, functools.partial(_absent, path, file_format), f"with the fields {fields}", unreadable)
    )
    if file_format == "shp":
        examples = shp.read_shp(path, rows, layout, unusable)
    else:
        parse = {
            "hh_rlhf": functools.partial(hh_rlhf_example, layout=layout),
            "trl": functools.partial(trl_example, layout=layout),
            "table": table_example,
        }[file_format]
        examples = list(_parsed(path, rows, parse, unusable))
    bad_rows = sorted(unreadable + unusable, key=lambda row: row.line)
    if not examples:
        first = f", the first: {bad_rows[0]}" if bad_rows else ""
        raise UserError(
            f"{path}: no preference left of {rows.count + len(unreadable)} rows; expected "
            f"{file_format} with the fields {fields}{first}"
        )
    return examples, PreferenceLoadReport(
        file=path.name,
        num_rows=rows.count + len(unreadable),
        num_examples=len(examples),
        num_responses=sum(len(example.responses) for example in examples),
        num_undecided=sum(not (example.scores or example.label) for example in examples),
        bad_rows=tuple(bad_rows),
    )


class _Counted:
    """Rows that are counted as they are read."""

    def __init__(self, rows: Iterator[FileRow]):
        self._rows, self.count = rows, 0

    def __iter__(self) -> Iterator[FileRow]:
        for row in self._rows:
            self.count += 1
            yield row


def _parsed(
    path: Path, rows: Iterable[FileRow], parse: Callable[[Values], PreferenceExample], bad_rows: list[BadRow]
) -> Iterator[PreferenceExample]:
    for row in rows:
        try:
            yield parse(row.values)
        except CountsFromZeroError as error:
            raise UserError(f"{path}:{row.line}: {error}") from error
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, str(error), row.text))


def _absent(path: Path, file_format: str, names: Collection[str]) -> Sequence[str]:
    """Which fields are missing of the set that `names` is nearest to.

    Raises UserError for a file that is of another kind altogether.
    """
    missing = min(([name for name in fields if name not in names] for fields in FIELDS[file_format]), key=len)
    if missing and "completion" in names and "label" in names:
        raise UserError(
            f"{path}: holds unpaired preferences (completion, label); needed are pairs of one "
            f"prompt: the fields {', '.join(FIELDS[file_format][0])}"
        )
    if file_format == "table":
        numbers = {name: match[1] for name in names if (match := _NUMBERED.fullmatch(name))}
        if unknown := [name for name, k in numbers.items() if not 1 <= int(k) <= MAX_RESPONSES]:
            raise UserError(f"{path}: {', '.join(unknown)}: responses are numbered from 1 to {MAX_RESPONSES}")
    return missing
