"""Episodes as people read them: what each step changed in the text, and whether an agent answers to its user or asks
everybody for the same."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from eagle_jax.eagle.evaluation.report_tables import ENCODERS
from eagle_jax.eagle.evaluation.systems import DPO, EAGLE
from eagle_jax.reports.markdown import fact, share, to_markdown

_TOKEN = re.compile(r"#(?:BEGIN|END)_[A-Z_]+|[^\s#]+|#")
_MARKS = {"same": "{}", "new": "**{}**", "gone": "~~{}~~", "label": "*{}:*"}


def story(episode: Mapping[str, Any]) -> dict[str, Any]:
    """An episode with the words that each step changed ("words") and U after it ("score"); of the
    anchor "anchor_words" and "anchor_score"."""
    texts = [episode["anchor"], *(step["description"] for step in episode["steps"])]
    words = [marked_change(*pair) for pair in zip(texts[:1] + texts, texts, strict=False)]
    scores = [
        "; ".join(
            f"U = {path[place]['utility']:.3f} ({title})"
            for encoder, title in ENCODERS.items()
            if (path := episode["scores"].get(encoder))
        )
        for place in range(len(texts))
    ]
    steps = [
        {**step, "words": marked, "score": score}
        for step, marked, score in zip(episode["steps"], words[1:], scores[1:], strict=True)
    ]
    return {**episode, "steps": steps, "anchor_words": words[0], "anchor_score": scores[0]}


def marked_change(before: str, after: str) -> Markup:
    """`after` in Markdown: new words bold, words that went struck out, blocks labelled."""
    pieces = changed_words(before, after)
    return Markup(" ".join(_MARKS[kind].format(to_markdown(text)) for kind, text in pieces))


def changed_words(before: str, after: str) -> list[tuple[str, str]]:
    """`after` as (kind, text) pieces: "same", "new", "gone" (only in `before`), or "label".

    A label is a block's opening marker, told in words; closing markers are left out.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    pieces: list[tuple[str, str]] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for operation, i, i_end, j, j_end in matcher.get_opcodes():
        if operation == "equal":
            pieces += _pieces("same", new[j:j_end])
        else:
            pieces += _pieces("gone", old[i:i_end]) + _pieces("new", new[j:j_end])
    return pieces


def _pieces(kind: str, words: Sequence[str]) -> list[tuple[str, str]]:
    pieces, run = [], []
    for word in [*words, "#END_"]:
        if not word.startswith(("#BEGIN_", "#END_")):
            run.append(word)
            continue
        if run:
            pieces.append((kind, " ".join(run)))
            run = []
        if word.startswith("#BEGIN_") and kind != "gone":
            label = word.removeprefix("#BEGIN_").replace("_", " ").capitalize()
            pieces.append(("label", label))
    return pieces


def habit_facts(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each row of an agent the first action that most of its episodes have, of the lines of records.jsonl; those
    that cannot be read are one action."""
    first = defaultdict(Counter)
    for record in records:
        if record["system"] in (EAGLE, DPO) and record["steps"]:
            first[record["row"]][record["steps"][0]["action"] or "(malformed)"] += 1
    facts = []
    for row, counts in first.items():
        (action, count), total = counts.most_common(1)[0], counts.total()
        facts.append(
            fact(f"{row}: the same first action for", share(count / total), f'of {total} episodes: "{action}"')
        )
        facts.append(fact(f"{row}: different first actions", len(counts), "whatever the anchor and the user"))
    return facts
