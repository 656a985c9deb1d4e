"""Actions from a list, for models that carry out instructions better than they propose them."""

from __future__ import annotations

import dataclasses

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.bad_rows import BadRows, summarize_bad_rows
from eagle_jax.data.prompts import EntityFormat, MalformedText, render_block
from eagle_jax.data.rows import read_rows
from eagle_jax.eagle.roles.signs import actions_path

_COLUMNS = ("kind", "action")


@settings
class ListedActionSettings:
    """Candidates from a list of actions, beside those that the generator proposes."""

    file: str = setting("A CSV with the columns kind and action; empty: the list of the package.")
    num_candidates: int = setting("Drawn for each entity, none of them twice.", at_least=1)


def read_actions_file(file: str, entity_format: EntityFormat) -> list[tuple[str, str]]:
    """(kind, action) of each row, as they come.

    Raises `UserError` that names the file and line of what is no action or is there twice.
    """
    path = actions_path(file, entity_format)
    bad_rows, actions = BadRows(), {}
    for row in read_rows(path, _COLUMNS, (), bad_rows):
        kind, action = (" ".join(row.values[name].split()) for name in _COLUMNS)
        if not action or action in actions:
            raise UserError(f"{path}, line {row.line}: expected an action that no line before has, got {action!r}")
        try:
            render_block("ACTION", action)
        except MalformedText as error:
            raise UserError(f"{path}, line {row.line}: {error}") from error
        actions[action] = kind
    if bad_rows:
        raise UserError(f"{path}: {summarize_bad_rows(bad_rows, 3)}")
    return [(kind, action) for action, kind in actions.items()]


@dataclasses.dataclass(frozen=True)
class ActionList:
    """(kind, action) pairs, and how many of them an entity gets."""

    actions: tuple[tuple[str, str], ...]
    num_drawn: int

    @classmethod
    def read(cls, settings: ListedActionSettings | None, entity_format: EntityFormat) -> ActionList:
        """Without settings, an empty one; raises `UserError`."""
        if settings is None:
            return cls((), 0)
        actions = tuple(read_actions_file(settings.file, entity_format))
        if settings.num_candidates > len(actions):
            raise UserError(
                f"listed_actions.num_candidates is {settings.num_candidates}, but the list has {len(actions)} actions"
            )
        return cls(actions, settings.num_candidates)

    def draw(self, seed: int) -> list[tuple[str, str]]:
        """So many of them, in random order."""
        order = np.random.default_rng(seed).permutation(len(self.actions))
        return [self.actions[place] for place in order[: self.num_drawn]]
