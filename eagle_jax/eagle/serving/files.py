"""Proposals on disk: pieces while they are made, one file once they are all there.

`<file>.parts` has a piece for each batch, so that the same command goes on after a kill at any
moment; then the file is written whole, beside it `<file>.summary.json`, and the pieces go.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.serving.agent import Agent, Pair
from eagle_jax.eagle.serving.proposals import Proposal, Summary, with_earlier_users
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN

_AS_JSON = ("steps", "nearest", "malformed")  # in a cell of a table
_BY_ENCODER = ("utility", "gain")
_ROW_GROUP = 256


def write_proposals(agent: Agent, pairs: Sequence[Pair], num: int, seed: int, path: Path) -> dict[str, Any]:
    """Makes what is not made yet and writes it to `path`; returns the summary.

    The end of the file's name says its form: .jsonl, .csv or .parquet. Raises `UserError` where the
    file is there already, and where pieces in its `.parts` are of another request.
    """
    write = _WRITERS[check_target(path)]
    parts = StageFolder(_parts(path), _request(agent, pairs, num, seed))
    batches = agent.batches(pairs, num)

    def piece(index: int) -> list[dict[str, Any]]:
        first, of_batch = batches[index]
        return parts.chunk(index, lambda: [one.to_json() for one in agent.propose_batch(of_batch, num, seed, first)])

    for index in progress(range(len(batches)), len(batches), "proposals", "batch"):
        piece(index)
    summary = Summary()

    def proposals() -> Iterator[Proposal]:
        made = (Proposal.from_json(value) for index in range(len(batches)) for value in piece(index))
        for proposal in with_earlier_users(made):
            summary.add(proposal)
            yield proposal

    write_atomically(path, lambda file: write(proposals(), file))
    told = {
        "agent": agent.name,
        "num": num,
        "seed": seed,
        "actions": agent.actions,
        **summary.to_json(),
        "predicted_ratings": agent.facts,
    }
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path.with_name(f"{path.name}.summary.json"), lambda file: file.write(text.encode()))
    shutil.rmtree(parts.path)
    return told


def columns_of(proposal: Proposal) -> dict[str, Any]:
    """A row of a table: `utility` and `gain` by encoder, steps, nearest items and faults as JSON."""
    names = [field.name for field in dataclasses.fields(proposal)]
    row = {name: getattr(proposal, name) for name in names if name not in _AS_JSON + _BY_ENCODER}
    for encoder in (TRAIN, HELD_OUT):
        row |= {f"{encoder}_{name}": value for name, value in proposal.utility[encoder].items()}
        row[f"{encoder}_gain"] = proposal.gain[encoder]
    told = proposal.to_json()
    return row | {name: json.dumps(told[name], ensure_ascii=False) for name in _AS_JSON}


def _request(agent: Agent, pairs: Sequence[Pair], num: int, seed: int) -> dict[str, Any]:
    """What the pieces depend on; the pairs by a digest of ids, texts and embeddings."""
    digest = hashlib.sha256()
    for item, user in pairs:
        digest.update(f"{item.entity_id}\0{item.description}\0{user.user_id}\0{user.profile}\0".encode())
        digest.update(user.embedding.tobytes())
    return {
        "agent": agent.name,
        "policy": agent.policy.name,
        "environment": agent.environment.generator.name,
        "pairs": digest.hexdigest(),
        "num": num,
        "seed": seed,
        **({} if agent.actions == 1 else {"actions": agent.actions}),
    }


def check_target(path: Path) -> str:
    """The end of its name; raises `UserError` where the proposals could not be written there."""
    if path.suffix not in _WRITERS:
        raise UserError(f"{path}: must end in one of {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: there is no such folder")
    if path.exists() and not _parts(path).exists():
        raise UserError(f"{path}: is there already; remove it or name another file")
    return path.suffix


def _parts(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _write_jsonl(proposals: Iterable[Proposal], file: BinaryIO) -> None:
    for proposal in proposals:
        file.write((json.dumps(proposal.to_json(), ensure_ascii=False) + "\n").encode())


def _write_csv(proposals: Iterable[Proposal], file: BinaryIO) -> None:
    is_first = True
    for proposal in proposals:
        row, lines = columns_of(proposal), io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([row, row.values()] if is_first else [row.values()])
        file.write(lines.getvalue().encode())
        is_first = False


def _write_parquet(proposals: Iterable[Proposal], file: BinaryIO) -> None:
    texts = ("item_id", "title", "user_id", "text", "near_copy_of", "same_as_user", *_AS_JSON)
    kinds = dict.fromkeys(("rank", "environment_calls", "num_tokens"), pa.int64())
    kinds |= dict.fromkeys(("left_anchor", "unchanged"), pa.bool_()) | dict.fromkeys(texts, pa.string())
    rows = map(columns_of, proposals)
    writer = None
    while group := list(itertools.islice(rows, _ROW_GROUP)):
        schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in group[0]])
        writer = writer or parquet.ParquetWriter(file, schema)
        writer.write_table(pa.Table.from_pylist(group, schema=schema))
    writer.close()


_WRITERS: dict[str, Callable[[Iterable[Proposal], BinaryIO], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
