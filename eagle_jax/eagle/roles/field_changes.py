"""What an instruction changes in the fields of a text beside its plot, by a list of actions.

A model that writes one sentence more leaves genres and year as they were, and a text that is a western by its plot
alone is none for a reader of its fields. So a list of actions may have two columns more: `genres` ("+Western -Comedy")
and `year` ("1955"), which an accepted answer to the action changes by rule.
"""

from __future__ import annotations

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRows
from eagle_jax.data.film_fields import FieldChange
from eagle_jax.data.prompts import EntityFormat
from eagle_jax.data.rows import read_rows
from eagle_jax.eagle.roles.signs import actions_path


def read_field_changes(file: str, entity_format: EntityFormat) -> dict[str, FieldChange]:
    """By action, of those that have any; raises `UserError` that names file and line."""
    path, found = actions_path(file, entity_format), {}
    for row in read_rows(path, ("action",), ("genres", "year"), BadRows()):
        action, genres, year = (row.values[name] for name in ("action", "genres", "year"))
        try:
            change = FieldChange.parse(genres, year)
        except ValueError as error:
            raise UserError(f"{path}, line {row.line}: {error}") from error
        if change != FieldChange():
            found[" ".join(action.split())] = change
    return found
