"""What this project asks of ELM on MiniLens, and whether a run meets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eagle_jax.pipeline.elm_evaluation import ELM, NEAREST, TEACHER
from eagle_jax.pipeline.elm_settings import PROFILE

LEAST_SLOTS = 0.85  # of the summary's film
LEAST_PROFILE_SHARE = 0.90  # of the teacher's NDCG


def measure_bar(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Three rows {"name", "value", "threshold", "met", "says"} from the table of scores."""
    cells = {(row["group"], row["system"]): row["cells"] for row in table["rows"]}
    ours, theirs = (cells["single-movie tasks", name]["sc"] for name in (ELM, NEAREST))
    slots = cells["summary", ELM]["slots"]["mean"]
    profiles = [cells[PROFILE, name]["bc/ndcg"]["mean"] for name in (ELM, TEACHER)]
    gap, share = ours["low"] - theirs["high"], profiles[0] / profiles[1]
    return [
        {
            "name": "sc_above_nearest", "value": gap, "threshold": 0.0, "met": gap > 0.0,
            "says": f"SC over the single-movie tasks: ELM {ours['mean']:.2f} [{ours['low']:.2f}, "
            f"{ours['high']:.2f}], nearest item {theirs['mean']:.2f} [{theirs['low']:.2f}, "
            f"{theirs['high']:.2f}]",
        },
        {
            "name": "summary_slots", "value": slots, "threshold": LEAST_SLOTS,
            "met": slots >= LEAST_SLOTS,
            "says": f"slots of the film that its summary has right: {slots:.0%}",
        },
        {
            "name": "profile_bc", "value": share, "threshold": LEAST_PROFILE_SHARE,
            "met": share >= LEAST_PROFILE_SHARE,
            "says": f"NDCG of user profiles: ELM {profiles[0]:.3f}, teacher {profiles[1]:.3f}",
        },
    ]  # fmt: skip
