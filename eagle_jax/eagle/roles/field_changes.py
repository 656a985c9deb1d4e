"""What an instruction changes in the fields of a text beside its plot, by a list of actions.

A model that writes one sentence more leaves genres and year as they were, and a text that is a western by its plot
alone is none for a reader of its fields. So a list of actions may have two columns more: `genres` ("+Western -Comedy")
and `year` ("1955"), which an accepted answer to the action changes by rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from eagle_jax.data.film_fields import FieldChange
from eagle_jax.data.prompts import EntityFormat
from eagle_jax.eagle.roles.signs import read_by_action


def read_field_changes(file: str, entity_format: EntityFormat) -> dict[str, FieldChange]:
    """By action, of those that have any; raises `UserError` that names file and line."""
    found = read_by_action(file, entity_format, ("genres", "year"), FieldChange.parse)
    return {action: change for action, change in found.items() if change != FieldChange()}


def with_declared_fields(text: str, action: str, field_changes: Mapping[str, FieldChange]) -> str:
    """The text with the fields that the action is said to change, as it is where nothing is said of it."""
    change = field_changes.get(action)
    return text if change is None else change(text)
