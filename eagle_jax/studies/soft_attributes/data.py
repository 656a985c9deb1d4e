"""Films, tags and raters' orderings as arrays: what concept activation vectors are fitted to.

Axis letters: N films that are tagged or ordered (the tagged ones first), P pairs.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.soft_attributes import Ordering
from eagle_jax.embeddings.concept_problems import Comparisons, comparisons_within_users
from eagle_jax.studies.soft_attributes.measures import RatedPairs


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SoftAttributeData:
    """By attribute, in alphabetical order; rows are positions in `items`.

    has_tag: [num_tagged] bool, over the films that have any tag: of an untagged film nothing is
    known. tag_pairs: within users, a film that the user gave one of the attribute's tags above
    films to which the same user gave other tags only. opinions: of the raters.
    """

    items: np.ndarray  # [N], index in the catalogue
    num_tagged: int
    num_unrated: int  # films with tags but no rating, which have no behavioral embedding: left out
    popularity: np.ndarray  # [N], number of ratings
    has_tag: Mapping[str, np.ndarray]
    tag_pairs: Mapping[str, Comparisons]
    opinions: Mapping[str, RatedPairs]
    num_named: Mapping[str, int]  # films tagged with the attribute's own name


def gather(
    catalogue: Catalogue,
    orderings: Sequence[Ordering],
    related_tags: Mapping[str, Sequence[str]],
    *,
    lower_per_positive: int,
    seed: int,
) -> SoftAttributeData:
    """The arrays of a catalogue with tags; raises UserError for `related_tags` of no attribute.

    A film has an attribute when any user gave it the attribute's name or one of its related tags,
    all compared in lower case with anything but letters and digits as a space. Of the films below
    one positive of a user at most `lower_per_positive` are drawn, and each positive weighs 1.
    """
    attributes = sorted({ordering.attribute for ordering in orderings})
    if strange := sorted(set(related_tags) - set(attributes)):
        raise UserError(f"related_tags: {strange[0]!r} is no soft attribute of the orderings")
    counts = np.bincount(catalogue.ratings.item_index, minlength=len(catalogue.entities))
    of_user: dict[int, dict[int, set[str]]] = collections.defaultdict(dict)
    for user, item, tag in catalogue.tags:
        if counts[item]:
            of_user[user].setdefault(item, set()).add(normalized(tag))
    tagged = sorted({item for films in of_user.values() for item in films})
    item_of = {entity.entity_id: index for index, entity in enumerate(catalogue.entities)}
    ordered = {item_of[film] for one in orderings for film in (*one.less, *one.about, *one.more)}
    items = np.array(tagged + sorted(ordered - set(tagged)))
    row_of = {item: row for row, item in enumerate(items.tolist())}
    rng = np.random.default_rng(seed)
    has_tag, tag_pairs, num_named = {}, {}, {}
    for attribute in attributes:
        names = {normalized(name) for name in (attribute, *related_tags.get(attribute, ()))}
        has_tag[attribute] = _has_any(of_user.values(), names, row_of, len(tagged))
        only_name = {normalized(attribute)}
        num_named[attribute] = int(_has_any(of_user.values(), only_name, row_of, len(tagged)).sum())
        tag_pairs[attribute] = comparisons_within_users(of_user.values(), names, row_of, lower_per_positive, rng)
    return SoftAttributeData(
        items=items,
        num_tagged=len(tagged),
        num_unrated=len({item for _, item, _ in catalogue.tags if not counts[item]}),
        popularity=counts[items],
        has_tag=has_tag,
        tag_pairs=tag_pairs,
        opinions={name: _opinions(orderings, name, item_of, row_of) for name in attributes},
        num_named=num_named,
    )


def normalized(tag: str) -> str:
    """ "Slow-Paced" -> "slow paced"."""
    return " ".join(re.findall(r"[^\W_]+", tag.lower()))


def _has_any(
    of_users: Iterable[Mapping[int, set[str]]], names: set[str], row_of: Mapping[int, int], num_tagged: int
) -> np.ndarray:
    has = np.zeros(num_tagged, bool)
    for films in of_users:
        for item, tags in films.items():
            has[row_of[item]] |= bool(tags & names)
    return has


def _opinions(
    orderings: Sequence[Ordering], attribute: str, item_of: Mapping[str, int], row_of: Mapping[int, int]
) -> RatedPairs:
    """Raters by number, in order of their appearance."""
    raters: dict[str, int] = {}
    rows = [
        (row_of[item_of[high]], row_of[item_of[low]], raters.setdefault(one.rater, len(raters)))
        for one in orderings
        if one.attribute == attribute
        for high, low in one.pairs()
    ]
    return RatedPairs(*np.array(rows, int).reshape(-1, 3).T)
