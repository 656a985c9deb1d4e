"""Stanford Human Preferences: pairs of comments on posts, gathered into K comments per post.

Fields of a row (dataset cards of SHP and SHP-2): post_id, history (the post), human_ref_A and
human_ref_B (comments), score_A and score_B (up-votes less down-votes), labels (1: A is preferred,
0: B is).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from eagle_jax.data.bad_rows import BadRow, bad_row
from eagle_jax.data.preferences.dialogues import DialogueLayout
from eagle_jax.data.preferences.examples import PreferenceExample
from eagle_jax.data.preferences.formats import Values, number, whole_number
from eagle_jax.data.rows import FileRow, text_value

SHP_FIELDS = ("post_id", "history", "human_ref_A", "human_ref_B", "score_A", "score_B", "labels")


def read_shp(
    path: Path, rows: Iterable[FileRow], layout: DialogueLayout, bad_rows: list[BadRow]
) -> list[PreferenceExample]:
    """One example per post, in the order of their first rows; rows that cannot be used are counted.

    Rows with the same post_id and history tell of one post; its comments stand in the order in
    which they appear, with their scores. A post with one row keeps that row's label. Of a post with
    more rows the scores are what is known: SHP itself compares two comments only where the later
    one scored higher, as the earlier one had more time to be seen; among K comments there are pairs
    that it leaves out and whose order by score is less sure.
    """
    posts: dict[tuple[str, str], _Post] = {}
    for row in rows:
        try:
            pair = _pair(row.values, layout)
            post = posts.setdefault((str(row.values["post_id"]), pair.prompt), _Post([], pair, {}))
            post.add(row, pair)
        except ValueError as error:
            bad_rows.append(bad_row(path, row.line, str(error), row.text))
    examples = []
    for post in posts.values():
        try:
            examples.append(post.example())
        except ValueError as error:  # more comments than an example may have
            bad_rows += [bad_row(path, row.line, str(error), row.text) for row in post.rows]
    return examples


class _Post(NamedTuple):
    """The rows of one post, its first pair, and its comments with their scores."""

    rows: list[FileRow]
    first_pair: PreferenceExample
    scores: dict[str, float]

    def add(self, row: FileRow, pair: PreferenceExample) -> None:
        for comment, score in zip(pair.responses, pair.scores, strict=True):
            if self.scores.get(comment, score) != score:
                raise ValueError(f"score differs from an earlier row's: {score} of {comment!r:.40}")
        self.scores.update(zip(pair.responses, pair.scores, strict=True))
        self.rows.append(row)

    def example(self) -> PreferenceExample:
        if len(self.rows) == 1:
            return self.first_pair
        return PreferenceExample(
            prompt=self.first_pair.prompt, responses=tuple(self.scores), scores=tuple(self.scores.values()), label=None
        )


def _pair(values: Values, layout: DialogueLayout) -> PreferenceExample:
    label = whole_number(values, "labels")
    scores = (number(values, "score_A"), number(values, "score_B"))
    if label not in (0, 1):
        raise ValueError(f"label out of range: {label}; 1 says A is preferred, 0 says B")
    if scores[1 - label] < scores[label]:
        raise ValueError(f"label contradicts the scores: {label} of {scores}")
    history = text_value(values, "history")
    return PreferenceExample(
        prompt=layout.prompt([{"role": "user", "content": history}]),
        responses=tuple(layout.reply_prefix + text_value(values, f"human_ref_{side}") for side in "AB"),
        scores=scores,
        label=(0, 1) if label == 1 else (1, 0),
    )
