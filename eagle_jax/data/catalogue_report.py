"""What a catalogue holds, what is wrong with its files, and what of it can be used: words for a terminal.

Axis letters: `R` ratings, `U` users, `N` entities.
"""

from __future__ import annotations

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import settings
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.readers.items import LoadReport
from eagle_jax.data.sources import CatalogueSettings, read_source
from eagle_jax.data.splits import PARTS, SplitSettings, split_catalogue

RANKED_RATINGS = 5  # held-out ratings of a user whose order is compared with the predicted one
_BAD_ROWS_SHOWN = 20


@settings
class DataSettings:
    """The groups of an experiment's config that say where its data come from."""

    catalogue: CatalogueSettings
    split: SplitSettings


def tell_catalogue(data: DataSettings) -> str:
    """`describe_catalogue` of what the settings name."""
    return describe_catalogue(*read_source(data.catalogue), data.split)


def describe_catalogue(catalogue: Catalogue, loaded: LoadReport | None, split: SplitSettings) -> str:
    """Counts, scale, sparsity, lengths; the bad rows by kind and the first of them; what the split leaves.

    What cannot be computed is said to be absent, with its reason.
    """
    sections = {
        f"catalogue {catalogue.name}": _contents(catalogue),
        "what is wrong": loaded.summary(_BAD_ROWS_SHOWN).splitlines() if loaded else ["nothing: it is made, not read"],
        "what can be used": _usable(catalogue, split),
    }
    return "\n".join(line for title, lines in sections.items() for line in (title, *(f"  {line}" for line in lines)))


def _contents(catalogue: Catalogue) -> list[str]:
    ratings, noun = catalogue.ratings, catalogue.entity_format.noun
    values, counts = np.unique(ratings.rating, return_counts=True)
    kind = "implicit, log2(1 + weight)" if catalogue.is_implicit else "explicit"
    words = np.array([len(text.split()) for text in catalogue.descriptions]) - 2 * len(catalogue.entity_format.blocks)
    return [
        f"{len(catalogue.entities)} {noun}s, {ratings.num_users} users, {len(ratings)} ratings, "
        f"{len(catalogue.tags)} tags",
        f"ratings ({kind}): {values[0]:g} to {values[-1]:g}, {len(values)} different ones, mean "
        f"{ratings.rating.mean():.3g}; {values[counts.argmax()]:g} is the commonest, {counts.max() / len(ratings):.0%}",
        f"{len(ratings) / (ratings.num_users * ratings.num_items):.3%} of all pairs are rated",
        f"ratings of a user: {_spread(np.bincount(ratings.user_index, minlength=ratings.num_users))}",
        f"ratings of a {noun}: {_spread(np.bincount(ratings.item_index, minlength=ratings.num_items))}",
        f"words of a text: {_spread(words)}",
    ]


def _spread(counts: np.ndarray) -> str:
    low, middle, high = np.percentile(counts, (0, 50, 100))
    return f"{low:g} to {high:g}, median {middle:g}"


def _usable(catalogue: Catalogue, settings: SplitSettings) -> list[str]:
    try:
        split = split_catalogue(catalogue, settings)
    except UserError as error:
        return [f"nothing: {error}"]
    held_out = np.bincount(split.test.user_index, minlength=split.test.num_users)
    ranked = int((held_out >= RANKED_RATINGS).sum())
    return [
        f"{len(split.train)} ratings to fit, {len(split.test)} held out",
        *(
            f"{what}: {', '.join(f'{len(parts[part])} {part}' for part in PARTS)} (at least {least} ratings to fit)"
            for what, parts, least in (
                ("anchors", split.entities, settings.min_anchor_ratings),
                ("users", split.users, settings.min_user_ratings),
            )
        ),
        f"users whose ranking can be checked: {ranked}"
        if ranked
        else f"users whose ranking can be checked: absent, none has {RANKED_RATINGS} held-out ratings",
    ]
