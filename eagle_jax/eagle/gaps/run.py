"""From a finished run to a folder that says what its catalogue lacks: gaps.jsonl, gaps.csv and a page."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import told
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.gaps.gaps import Gap, find_gaps
from eagle_jax.eagle.gaps.imagined import recombined, walk_evenly
from eagle_jax.eagle.gaps.report import gap_sentences, make_gaps_report
from eagle_jax.eagle.gaps.settings import GapSettings, WalkSettings
from eagle_jax.eagle.roles.listed_actions import read_actions_file
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.loading import load_agent

_NUM_RECOMBINED = 5000


def gaps_of_run(
    workdir: Path, out: Path | None, settings: GapSettings, walks: WalkSettings | None, instructions: str | None
) -> tuple[list[str], Path]:
    """Writes into `out` (None: the run's folder gaps); what to say of it, and the page.

    walks: None has films' fields put together anew. instructions: a file that walks draw from; None: the run's own.
    """
    agent = load_agent(workdir)
    folder = workdir / "gaps" if out is None else out
    imagined = imagine(agent, folder, walks, settings.seed, instructions)
    found = find_gaps(agent.catalogue, agent.scorers, imagined, settings)
    write_gaps(found, folder)
    page, _ = make_gaps_report(folder, agent.catalogue, found, len(imagined), settings, walks)
    return gap_sentences(found, settings), page


def imagine(agent: Agent, folder: Path, walks: WalkSettings | None, seed: int, instructions: str | None) -> list[str]:
    """Texts of what could exist, by the agent's environment or by fields; walks are kept in the folder."""
    items = agent.catalogue.descriptions
    if walks is None:
        return recombined(items, _NUM_RECOMBINED, seed)
    actions = agent.instructions
    if instructions is not None:
        actions = [action for _, action in read_actions_file(instructions, agent.catalogue.entity_format)]
    if not actions:
        raise UserError("the run's candidates have no action that could be applied: name a list by --instructions")
    asked = {
        "environment": agent.environment.generator.name,
        "instructions": list(actions),
        "catalogue": hashlib.sha256("\0".join(items).encode()).hexdigest(),
    }
    stage = StageFolder(folder / "walks", {**told(walks), **asked})
    return walk_evenly(stage, agent.environment, items, actions, walks)


def write_gaps(gaps: Sequence[Gap], folder: Path) -> None:
    """gaps.jsonl, and gaps.csv with lists as JSON in a cell."""
    rows = [gap.to_json() for gap in gaps]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Gap.__dataclass_fields__)
    writer.writerows([_cell(value) for value in row.values()] for row in rows)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("gaps.jsonl", lines), ("gaps.csv", table.getvalue())):
        write_atomically(folder / name, lambda file, text=text: file.write(text.encode()))


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (tuple, list, dict)) else value
