"""Stage 3b: what the best of some fixed instructions gains, for a reader who is not the reward.

Nothing is trained: a frozen environment rewrites each anchor under each instruction, the reward chooses
for each user, and an encoder that was never chosen by says what was gained. A loop of training cannot
be worth more than there is here to choose from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.film_fields import field_edits, with_fields_of
from eagle_jax.eagle.ceiling.choices import BEST_REWRITING, Worth, measure, worth
from eagle_jax.eagle.ceiling.settings import CeilingSettings
from eagle_jax.eagle.evaluation.episodes import plot_alone
from eagle_jax.eagle.roles.listed_actions import ActionList
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.embeddings.scorer import HELD_OUT, INDEPENDENT, TRAIN, judge_of
from eagle_jax.reports.statistics import BootstrapSettings

_ENCODERS = (TRAIN, HELD_OUT, INDEPENDENT)


def run_ceiling_stage(
    stage: StageFolder, world: EagleWorld, settings: CeilingSettings, bootstrap: BootstrapSettings, seed: int
) -> dict[str, Any]:
    """What the stage found (`choices.measure`, and counts); writes rewrites.jsonl, an anchor a line, and facts.json.

    Raises `UserError` where the split has too few anchors or users for an interval.
    """
    if not stage.is_complete():
        split = world.split
        rng = np.random.default_rng(seed)
        anchors = rng.permutation(split.entities["validation"])[: settings.num_anchors].tolist()
        users = np.sort(rng.permutation(np.concatenate(list(split.users.values())))[: settings.num_users])
        if min(len(anchors), len(users)) < 2:
            raise UserError(
                f"config.ceiling: the split has {len(anchors)} validation anchors and {len(users)} users, an interval "
                "needs two of both; raise config.split.validation_fraction or lower min_anchor_ratings"
            )
        instructions = ActionList.read(settings.instructions, world.entity_format).draw(derive_seed(seed, 0))
        rows = [
            stage.chunk(index, lambda anchor=anchor: _rewritten(world, anchor, instructions, seed))
            for index, anchor in enumerate(progress(anchors, len(anchors), "ceiling", "anchor"))
        ]
        stage.write_jsonl("rewrites.jsonl", rows)
        encoders = [name for name in _ENCODERS if name in world.scorers]
        texts = [_texts(world, row) for row in rows]
        worths = {name: _worths(world, name, rows, texts, users) for name in encoders}
        if any(row["field_changes"] for row in rows):
            held = [[with_fields_of(own[0], text) for text in own] for own in texts]
            worths |= {plot_alone(name): _worths(world, name, rows, held, users) for name in encoders}
        actions = [action for _, action in instructions]
        found = measure(worths, TRAIN, actions, len(rows[0]["others"]), bootstrap)
        told = {"judge": judge_of(worths), "malformed": sum((Counter(row["malformed"]) for row in rows), Counter())}
        stage.write_json("facts.json", found | told | {"num_rewrites": len(anchors) * len(instructions)})
        stage.finish()
    return stage.read_json("facts.json")


def is_above_noise(facts: Mapping[str, Any]) -> bool:
    """Whether the judge's interval of what the best rewriting gains in the user term is above 0."""
    return user_gain(facts)["low"] > 0


def user_gain(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """What the best rewriting gains in the user term, says the judge."""
    (best,) = (row for row in facts["rows"] if row["choice"] == BEST_REWRITING)
    return best["cells"][f"{facts['judge']}/user_term"]


def _worths(
    world: EagleWorld,
    encoder: str,
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[Sequence[str]],
    users: np.ndarray,
) -> list[Worth]:
    """Of each anchor's texts; for the reward with the quality of what was made of it where there is one."""
    found = [worth(world.scorers[encoder], of_anchor, users) for of_anchor in texts]
    if encoder == TRAIN:
        for own, row, of_anchor in zip(found, rows, texts, strict=True):
            made = of_anchor[: len(of_anchor) - len(row["others"])]
            own.other[: len(made)] = world.with_quality(own.other[: len(made)], made, made[:1] * len(made))
    return found


def _rewritten(world: EagleWorld, anchor: int, instructions: Sequence[tuple[str, str]], seed: int) -> dict[str, Any]:
    """An anchor under each instruction, and as many other held-out entities."""
    description = world.catalogue.entities[anchor].description
    actions = [action for _, action in instructions]
    steps = world.environment.step([description] * len(actions), actions, derive_seed(seed, 1, anchor))
    rest = np.setdiff1d(world.split.entities["validation"], [anchor])
    others = np.random.default_rng(derive_seed(seed, 2, anchor)).permutation(rest)[: len(actions)]
    return {
        "entity_index": anchor,
        **world.catalogue.item_names(anchor),
        "actions": actions,
        "texts": [step.description for step in steps],
        "malformed": [step.malformed for step in steps if step.malformed],
        "field_changes": field_edits(description),
        "others": others.tolist(),
    }


def _texts(world: EagleWorld, row: Mapping[str, Any]) -> list[str]:
    """The anchor, its rewritings, its changes by rule, the others."""
    entities = world.catalogue.entities
    others = [entities[other].description for other in row["others"]]
    return [entities[row["entity_index"]].description, *row["texts"], *row["field_changes"].values(), *others]
