"""How consistent texts are with the embeddings that they tell: semantic (SC) and behavioral (BC).

Tennenholtz et al. 2024 (ELM), section 3.2 and appendix B. P is any function from texts to
embeddings. What the papers do not say: a text that could not be read (malformed, cut short, empty)
is a row of nan among the embeddings and gets the worst value of each measure, SC -1, NDCG 0,
Spearman -1; it is counted, and it stays in every mean.

Axis letters: B texts, N candidates (items or users), U users, d width of P.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.prompts import MalformedText
from eagle_jax.elm.answer_text import read_task_answer
from eagle_jax.elm.model.adapter import bad_rows
from eagle_jax.embeddings.rank_correlation import ranks, spearman
from eagle_jax.language_model.generation import Generation

EmbedFn = Callable[[Sequence[str]], np.ndarray]  # P: texts -> [B, d]
WORST_SC, WORST_NDCG, WORST_SPEARMAN = -1.0, 0.0, -1.0


class Outputs(NamedTuple):
    """texts: what was written, None where it could not be read; reasons: None, or why not."""

    texts: list[str | None]
    reasons: list[str | None]


class BehavioralConsistency(NamedTuple):
    """ndcg, spearman [B].

    Where a row's ratings do not differ (none of the candidates was rated, say) there is nothing to
    agree with: Spearman is 0, NDCG is 0 (all unrated) or 1.
    """

    ndcg: np.ndarray
    spearman: np.ndarray

    def by_measure(self) -> dict[str, np.ndarray]:
        """As tables and curves name them."""
        return {"bc/ndcg": self.ndcg, "bc/spearman": self.spearman}


def read_outputs(book: str, generations: Sequence[Generation]) -> Outputs:
    """The answers that a model wrote to a book's prompts of `data.tasks`, malformed ones by reason."""
    texts: list[str | None] = []
    reasons: list[str | None] = []
    for generation in generations:
        try:
            texts.append(read_task_answer(book, generation))
            reasons.append(None)
        except MalformedText as error:
            texts.append(None)
            reasons.append(error.reason)
    return Outputs(texts, reasons)


def is_readable(text: str | None) -> bool:
    return text is not None and bool(text.strip())


def embed_outputs(embed: EmbedFn, texts: Sequence[str | None], width: int) -> np.ndarray:
    """P of each text [B, d] float64, rows of nan for None and for blank texts; one call of P.

    width: d, of what the outputs are compared with. Raises UserError where P maps to another
    width, or to a vector that is zero or not finite.
    """
    embeddings = np.full((len(texts), width), np.nan)
    readable = [row for row, text in enumerate(texts) if is_readable(text)]
    if not readable:
        return embeddings
    made = np.asarray(embed([texts[row] for row in readable]), np.float64)
    if made.shape != (len(readable), width):
        raise UserError(
            f"{len(readable)} texts were embedded as an array of shape {made.shape}, and what they "
            f"are compared with has width {width}: both must be in the space that P maps to"
        )
    for fault, rows in bad_rows(made).items():
        row = readable[rows[0]]
        raise UserError(f"the embedding of output {row} is {fault}: {texts[row][:80]!r}")
    embeddings[readable] = made
    return embeddings


def semantic_consistency(embed: EmbedFn, texts: Sequence[str | None], target_embeddings: np.ndarray) -> np.ndarray:
    """SC(o, w) = cos(P(o), w) [B] (section 3.2); -1 for None and for blank texts.

    target_embeddings [B, d]: w, the embedding that was decoded; for tasks about two items that of
    the teacher's text (appendix B). Raises UserError as `embed_outputs`, and for targets that are
    zero or not finite.
    """
    width = np.shape(target_embeddings)[-1]
    return cosine_consistency(embed_outputs(embed, texts, width), target_embeddings)


def cosine_consistency(output_embeddings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """SC [B] of outputs that P has mapped already: [B, d] of `embed_outputs`, and w [B, d]."""
    if np.shape(output_embeddings) != np.shape(targets):
        raise ValueError(f"outputs {np.shape(output_embeddings)}, targets {np.shape(targets)}")
    outputs, there = directions(output_embeddings, "output", may_be_missing=True)
    cosine = np.einsum("bd,bd->b", outputs, directions(targets, "target")[0])
    return np.where(there, cosine, WORST_SC)


def behavioral_consistency(
    output_embeddings: np.ndarray, candidate_embeddings: np.ndarray, ratings: np.ndarray
) -> BehavioralConsistency:
    """BC(o_u, u) = RankingScore(R_u, rho(o_u)), rho: items by cosine to the profile (section 3.2);
    BC(o_m, m; U): users by cosine of their profile's text to the item's (appendix B).

    Args:
      output_embeddings: [B, d], P of the texts, nan where there is none.
      candidate_embeddings: [N, d], P of the texts of the fixed set of items (or users).
      ratings: [B, N] of each profile's user (or given to each text's item), 0 where unrated
        (`rating_matrix`).

    RankingScore is NDCG with gains 2^rating - 1 (Burges et al. 2005, whom the paper cites) and
    Spearman's correlation. Raises UserError for ratings below 0 and for embeddings that are zero.
    """
    ratings = np.asarray(ratings, np.float64)
    expected = len(output_embeddings), len(candidate_embeddings)
    if ratings.shape != expected:
        raise UserError(f"ratings must be [texts, candidates] {expected}, got {ratings.shape}")
    if not (np.isfinite(ratings).all() and (ratings >= 0).all()):
        raise UserError(
            f"ratings must be 0 (unrated) or more, got {ratings.min()}: clip predicted ones to the "
            "scale of the given ones"
        )
    outputs, there = directions(output_embeddings, "text", may_be_missing=True)
    scores = outputs @ directions(candidate_embeddings, "candidate")[0].T
    return BehavioralConsistency(
        ndcg=np.where(there, ndcg(scores, np.exp2(ratings) - 1.0), WORST_NDCG),
        spearman=np.where(there, spearman(scores, ratings), WORST_SPEARMAN),
    )


def chance_consistency(ratings: np.ndarray) -> BehavioralConsistency:
    """What a ranking at random scores on average, for ratings [B, N]: Figure 5's lower line."""
    ratings = np.asarray(ratings, np.float64)
    nothing = np.zeros_like(ratings)
    return BehavioralConsistency(ndcg(nothing, np.exp2(ratings) - 1.0), spearman(nothing, ratings))


def ndcg(scores: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """sum_i gain_i / log2(1 + rank_i), over its value in the best order: [B, N] twice -> [B].

    Candidates of equal score share the mean of their ranks' discounts, the expectation over their
    orders (as scikit-learn's ndcg_score). 0 where all gains are.
    """
    first, last = (ranks(-scores, method=end).astype(int) for end in ("min", "max"))
    discounts = 1.0 / np.log2(np.arange(2, scores.shape[-1] + 2))
    total = np.concatenate([[0.0], np.cumsum(discounts)])
    mean_discounts = (total[last] - total[first - 1]) / (last - first + 1)
    best = np.sort(gains, axis=-1)[..., ::-1] @ discounts
    return (mean_discounts * gains).sum(axis=-1) / np.where(best > 0, best, 1.0)


def rating_matrix(table: RatingTable, users: Sequence[int], items: Sequence[int]) -> np.ndarray:
    """Ratings [users, items], 0 where unrated (appendix B); both lists may have repeats."""
    given = scipy.sparse.csr_array(
        (table.rating.astype(np.float64), (table.user_index, table.item_index)),
        shape=(table.num_users, table.num_items),
    )
    return given[np.asarray(users)][:, np.asarray(items)].toarray()


def directions(embeddings: np.ndarray, what: str, may_be_missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows [B, d] over their lengths, zeros where missing (all nan), and which are there [B].

    Raises UserError for the first row that is zero or not finite; `what` names it.
    """
    embeddings = np.asarray(embeddings, np.float64)
    there = np.ones(len(embeddings), bool)
    if may_be_missing:
        there = ~np.isnan(embeddings).all(axis=1)
    for fault, rows in bad_rows(embeddings[there]).items():
        raise UserError(f"the embedding of {what} {np.flatnonzero(there)[rows[0]]} is {fault}")
    rows = np.where(there[:, None], embeddings, 0.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(there[:, None], lengths, 1.0), there
