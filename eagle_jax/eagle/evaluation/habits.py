"""Whether an agent answers to its user, or asks everybody for the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from eagle_jax.eagle.evaluation.systems import DPO, EAGLE
from eagle_jax.reports.markdown import fact, share


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
