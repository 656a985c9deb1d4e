"""Items and users as a command names them: ids with commas between, or a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Entity
from eagle_jax.data.prompts import begin
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.users import User


def asked_items(agent: Agent, asked: str) -> list[str | Entity]:
    """`f3,f7`, or a file: lines are ids of the catalogue or marked texts; in .jsonl they are
    objects, {"item_id": ...} or {"text": ..., "item_id": ..., "title": ...}, the last two may lack.

    A new item without an id is called by file and line.
    """
    items: list[str | Entity] = []
    for place, line in _entries(asked):
        if isinstance(line, str):
            is_text = line.startswith(begin(agent.catalogue.entity_format.blocks[0]))
            items.append(agent.new_item(line, place) if is_text else line)
            continue
        _check_keys(place, line, {"item_id": str, "text": str, "title": str}, ("item_id", "text"))
        if "text" in line:
            items.append(agent.new_item(line["text"], line.get("item_id", place), line.get("title", "")))
        else:
            items.append(line["item_id"])
    return items


def asked_users(agent: Agent, asked: str, seed: int) -> list[str | User]:
    """`u3,u7`, or a file: lines are ids; in .jsonl they are objects, {"user_id": ...} or for a new
    user {"ratings": {item id: stars}, "profile": ..., "user_id": ...}, the last two may lack."""
    users: list[str | User] = []
    for place, line in _entries(asked):
        if isinstance(line, str):
            users.append(line)
            continue
        _check_keys(place, line, {"user_id": str, "ratings": dict, "profile": str}, ("user_id", "ratings"))
        if "ratings" in line:
            users.append(agent.new_user(line["ratings"], line.get("profile"), line.get("user_id", place), seed))
        else:
            users.append(line["user_id"])
    return users


def _entries(asked: str) -> Iterator[tuple[str, str | dict[str, Any]]]:
    """What each entry is called, and the entry: of the list, or of the file where there is one."""
    path = Path(asked)
    if not path.is_file():
        if path.suffix in (".jsonl", ".txt", ".csv"):
            raise UserError(f"{path}: there is no such file")
        yield from ((name.strip(), name.strip()) for name in asked.split(",") if name.strip())
        return
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        if path.suffix != ".jsonl":
            yield place, line.strip()
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise UserError(f"{path}, line {number}: an object was expected, got {type(value).__name__}")
        yield place, value


def _check_keys(place: str, line: dict[str, Any], kinds: dict[str, type], one_of: tuple[str, ...]) -> None:
    for name, value in line.items():
        if name not in kinds:
            raise UserError(f"{place}: unknown key {name!r}; allowed are: {', '.join(kinds)}")
        if not isinstance(value, kinds[name]):
            raise UserError(f"{place}: {name} must be of type {kinds[name].__name__}, got {value!r}")
    if not any(name in line for name in one_of):
        raise UserError(f"{place}: needs {' or '.join(one_of)}")
