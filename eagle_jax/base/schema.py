"""The version of what is kept and read again: the folders of stages, and config files.

A change of settings or artifacts that old ones do not survive raises `SCHEMA` by one and stands in
`CHANGES`. A stage's folder goes on under the version that it was begun under where all changes
since then say how, and is refused otherwise; a config file (`SCHEMA = 3`) where none is about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax.base.errors import StaleArtifactError, UserError

SCHEMA = 7
FIRST_SCHEMA = 1  # of what carries no version: it was made before there were any


class Change(NamedTuple):
    """From the version before to this one.

    sentence: what changed, and what a config file has to say now; without its full stop.
    before: (a stage's name, its settings as JSON) -> those that the version before wrote; None for
        a stage whose artifacts of before cannot be read.
    is_of_configs: whether config files of before have to be changed.
    """

    sentence: str
    before: Callable[[str, Any], Any]
    is_of_configs: bool


def _with_exact_kl(settings: Any) -> Any:
    return settings | {"training": settings.get("training", {}) | {"kl_estimator": "exact"}}


_SAMPLING_OFF = {"min_p": 0.0, "repetition_penalty": 1.0}


def _without(settings: Any, off_in: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Any:
    """Settings without what `off_in` says is off in each of their groups."""
    if isinstance(settings, list):
        return [_without(item, off_in) for item in settings]
    if not isinstance(settings, dict):
        return settings
    off = off_in(settings).items()
    return {key: _without(value, off_in) for key, value in settings.items() if (key, value) not in off}


def _without_later_sampling(settings: Any) -> Any:
    is_sampling = {"temperature", *_SAMPLING_OFF}
    return _without(settings, lambda group: _SAMPLING_OFF if group.keys() >= is_sampling else {})


# What ELM's stages say since its catalogue, teacher and tasks can be others than MiniLens'.
_OF_MINILENS = {
    "book": "compact",
    "profile_task": "user_profile",
    "asked_about": "all",
    "shows": "title",
    "teacher": "minilens/teacher",
}


def _of_minilens_alone(stage: str, settings: Any) -> Any:
    if not isinstance(settings, dict) or not (stage in ("space", "examples") or stage.startswith("elm_")):
        return settings
    kept = _without(settings, lambda group: _OF_MINILENS)
    if stage == "examples" and len(kept.get("tasks", ())) == 25:  # all that have a compact wording
        del kept["tasks"]
    return kept


# Of what came with the judge of other films, by what it is where nothing names it.
_WITH_FILMS = {"independent": False, "fields_file": None, "resampled": "pairs"}


def _one_update(group: dict[str, Any]) -> dict[str, Any]:
    return {"policy_updates": 1, "clip_range": 0.2} if group.get("policy_updates") == 1 else {}


CHANGES: dict[int, Change] = {  # version -> the change that made it
    2: Change(
        "rows of an evaluation carry their system, kind and environment",
        lambda stage, settings: None if stage == "evaluation" else settings,
        is_of_configs=False,
    ),
    3: Change(
        "agent.training.kl_estimator is gone, and is what `exact` was",
        lambda stage, settings: _with_exact_kl(settings) if "agent_" in stage else settings,
        is_of_configs=False,  # one that has the key is refused by its name
    ),
    4: Change(
        "sampling has min_p and repetition_penalty, which are off where nothing names them",
        lambda stage, settings: _without_later_sampling(settings),
        is_of_configs=False,
    ),
    5: Change(
        "ELM takes any catalogue, teacher and tasks: its config.catalogue names a source",
        _of_minilens_alone,
        is_of_configs=False,  # a config of before is refused by the keys of its catalogue
    ),
    6: Change(
        "user_space.independent, rewriting.fields_file, evaluation.resampled are off where nothing names them",
        lambda stage, settings: _without(settings, lambda group: _WITH_FILMS),
        is_of_configs=False,
    ),
    7: Change(
        "agent.training.policy_updates is 1 where nothing names it, with a clip_range that counts above it",
        lambda stage, settings: _without(settings, _one_update),
        is_of_configs=False,
    ),
}


def oldest_alike(stage: str, settings: Any) -> int:
    """The version of a stage begun now: the oldest that would have written it as it is."""
    version = SCHEMA
    while version > FIRST_SCHEMA and CHANGES[version].before(stage, settings) == settings:
        version -= 1
    return version


def settings_of(version: int, stage: Path, settings: Any) -> Any:
    """A stage's settings as `version` wrote them; raises `StaleArtifactError` where it cannot."""
    for later in range(SCHEMA, version, -1):
        if settings is not None:
            settings = CHANGES[later].before(stage.name, settings)
    if version > SCHEMA or settings is None:
        raise StaleArtifactError(
            f"{stage} {_distance_to(version)}. Remove it to make it anew, or choose another work directory"
        )
    return settings


def check_config(version: int, what: str) -> None:
    """Raises `UserError` for a config file of another version whose keys may be others."""
    since = range(version + 1, SCHEMA + 1)
    if version > SCHEMA or any(CHANGES[later].is_of_configs for later in since):
        raise UserError(f"{what} {_distance_to(version)}. Bring it up to date and write SCHEMA = {SCHEMA} in it")


def _distance_to(version: int) -> str:
    if version > SCHEMA:
        return f"is of schema {version}, which a later program wrote: this one knows {SCHEMA}"
    changes = "; ".join(CHANGES[later].sentence for later in range(version + 1, SCHEMA + 1))
    return f"is of schema {version}, now it is {SCHEMA}: {changes}"
