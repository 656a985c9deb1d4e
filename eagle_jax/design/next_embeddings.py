"""What the candidate actions change: next embeddings relative to the anchor, on few directions.

Axis letters: K candidates, d domain width, r rank.
"""

import jax
import jax.numpy as jnp


def project_changes(next_embeddings: jax.Array, anchor_embedding: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """delta_a = z_a - z_anchor on the leading right singular directions of all delta.

    The directions are those of the second moment about the anchor (uncentred): an edit that every
    candidate shares is a direction too. EAGLE's design is about these changes (section 4.3 states
    it for z_a itself, whose common offset z_anchor takes one direction of the design for nothing).

    next_embeddings [K, d], anchor_embedding [d], rank r at most min(K, d) -> changes [K, r] and
    kept_energy [], the share of sum_a ||delta_a||^2 that the r directions keep; 0 and 1 where nothing
    moved at all. Raises ValueError for shapes that do not fit each other or the rank.
    """
    if next_embeddings.ndim != 2 or anchor_embedding.shape != next_embeddings.shape[1:]:
        raise ValueError(
            "expected next_embeddings [K, d] and anchor_embedding [d], got"
            f" {next_embeddings.shape} and {anchor_embedding.shape}"
        )
    if not 1 <= rank <= min(next_embeddings.shape):
        raise ValueError(f"rank must lie between 1 and min(K, d) = {min(next_embeddings.shape)}, got {rank}")
    changes = next_embeddings - anchor_embedding[None, :]
    _, singular_values, directions = jnp.linalg.svd(changes, full_matrices=False)
    projected = jnp.matmul(changes, directions[:rank].T, precision="highest")
    energy = jnp.square(singular_values)
    total = jnp.sum(energy)
    kept = jnp.sum(energy[:rank]) / jnp.where(total > 0, total, 1.0)
    return projected, jnp.where(total == 0, 1.0, kept)
