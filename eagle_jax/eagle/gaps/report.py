"""The page on what is missing: a verdict, the regions in a table, and each with its users, items and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.provenance import provenance
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import parse_blocks
from eagle_jax.eagle.gaps.gaps import Gap
from eagle_jax.eagle.gaps.settings import GapSettings, WalkSettings
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.reports.markdown import LEFT, Column, share, table
from eagle_jax.reports.pages import Report, write_pages


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapsReport(Report):
    """All that the page says."""

    num_items: int
    num_users: int
    num_imagined: int
    gaps: Sequence[Mapping[str, Any]]


def gap_sentences(gaps: Sequence[Gap], settings: GapSettings) -> list[str]:
    """What the page begins with, in sentences."""
    apart = [gap for gap in gaps if gap.is_told_apart]
    if not apart:
        most = f", the largest as often as in {share(gaps[0].chance)} of complete catalogues" if gaps else ""
        return [f"No gap is told apart from chance{most}."]
    first = apart[0]
    wanted = f"{first.demand:.1f} items that the mean user would want and {first.supply:.1f} that are there"
    return [
        f"{len(apart)} of the {len(gaps)} regions told below lack more than {1 - settings.level:.0%} of complete "
        "catalogues do anywhere.".replace("%", " %"),
        f"The largest gap: {wanted}; {first.found} items where {first.expected:.0f} would be.",
    ]


def make_gaps_report(
    folder: Path,
    catalogue: Catalogue,
    gaps: Sequence[Gap],
    num_imagined: int,
    settings: GapSettings,
    walks: WalkSettings | None,
) -> tuple[Path, Path]:
    """report.html and report.md; walks: None where fields were put together anew."""
    data = GapsReport(
        title=f"What {catalogue.name} lacks",
        settings={"gaps": dataclasses.asdict(settings)} | ({"walks": dataclasses.asdict(walks)} if walks else {}),
        provenance=provenance(),
        num_items=len(catalogue.entities),
        num_users=catalogue.ratings.num_users,
        num_imagined=num_imagined,
        gaps=[gap.to_json() for gap in gaps],
    )
    context = {
        "data": data,
        "summary": gap_sentences(gaps, settings),
        "by_walks": walks is not None,
        "regions": table(data.gaps, _REGIONS),
        "gaps": [_told(gap, catalogue) for gap in data.gaps],
        "share": share,
    }
    return write_pages(folder, "eagle/gaps/report", context, {})


def _told(gap: Mapping[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    blocks = parse_blocks(gap["text"], catalogue.entity_format.blocks, may_be_empty=True)
    return {
        **gap,
        "users": ", ".join(gap["users"]),
        "paragraphs": [content for content in blocks.values() if content],
        "groups": table(gap["groups"], _GROUPS),
        "nearest": table(gap["nearest"], _NEAREST),
    }


_REGIONS = (
    Column("Region", "rank"),
    Column("Unmet demand", lambda gap: f"{gap['unmet']:.2f}"),
    Column("In deviations", lambda gap: f"{gap['excess']:.1f}"),
    Column("Wanted", lambda gap: f"{gap['demand']:.2f}"),
    Column("There", lambda gap: f"{gap['supply']:.2f}"),
    Column("Items expected", lambda gap: f"{gap['expected']:.0f}"),
    Column("Items found", "found"),
    Column("Chance", lambda gap: share(gap["chance"])),
    Column("Users who want its text", "num_users"),
    Column("Nearest item", lambda gap: gap["nearest"][0]["title"], LEFT),
    Column("Better than, training encoder", lambda gap: share(gap["better_than"][TRAIN])),
    Column("Better than, held-out encoder", lambda gap: share(gap["better_than"][HELD_OUT])),
)
_GROUPS = (
    Column("Group", "group"),
    Column("Users", "num_users"),
    Column("Unmet demand of each", lambda group: f"{group['unmet']:.2f}"),
    Column("Likes more than others do", lambda group: "; ".join(group["likes"]), LEFT),
)
_NEAREST = (
    Column("Nearest item", "title", LEFT),
    Column("Id", "item_id", LEFT),
    Column("Distance", lambda item: f"{item['distance']:.2f}"),
)
