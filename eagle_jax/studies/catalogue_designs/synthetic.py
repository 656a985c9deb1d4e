"""Made-up next embeddings of a whole catalogue, for trying and measuring at scale.

Nothing is learned from them: they have what makes sentence embeddings hard for a design (a common
mean direction, a decaying spectrum, clusters of near-duplicates, unit length), and no meaning.

Axis letters: N problems, n problems of one block, K candidates, d domain width.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.metrics import progress
from eagle_jax.base.settings import setting, settings

_PROBLEMS_PER_BLOCK = 1024


@settings
class SyntheticEmbeddings:
    """Size of the catalogue, and its shape."""

    seed: int = setting("Of the embeddings.", at_least=0)
    num_problems: int = setting("N.", at_least=1)
    num_candidates: int = setting("K of each problem.", at_least=1)
    width: int = setting("d.", at_least=1)
    num_clusters: int = setting("Of each problem's candidates, around centres of their own.", at_least=1)
    cluster_spread: float = setting(
        "Standard deviation inside a cluster, in units of that between centres.", at_least=0
    )
    spectrum_exponent: float = setting("The i-th direction has standard deviation i ** -exponent.")
    mean_length: float = setting("Of what all embeddings have in common.", at_least=0)


def write_synthetic_embeddings(path: Path, settings: SyntheticEmbeddings) -> None:
    """Writes float32 [N, K, d] as `.npy`, a block of problems at a time."""
    shape = (settings.num_problems, settings.num_candidates, settings.width)
    starts = range(0, settings.num_problems, _PROBLEMS_PER_BLOCK)

    def write(file: BinaryIO) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block, first in enumerate(progress(starts, len(starts), "catalogue", "block")):
            size = min(_PROBLEMS_PER_BLOCK, settings.num_problems - first)
            file.write(_draw_block(settings, block)[:size].tobytes())

    write_atomically(path, write)


def _draw_block(settings: SyntheticEmbeddings, block: int) -> np.ndarray:
    """[n, K, d] little-endian float32, the same whatever the size of the catalogue."""
    mean = np.random.default_rng([settings.seed, 0]).normal(size=settings.width)
    mean = np.float32(mean * settings.mean_length / np.linalg.norm(mean))
    spectrum = np.float32(np.arange(1, settings.width + 1) ** -settings.spectrum_exponent)
    spread = np.float32(settings.cluster_spread)
    rng = np.random.default_rng([settings.seed, 1, block])
    problems = (_PROBLEMS_PER_BLOCK,)
    centers = rng.standard_normal((*problems, settings.num_clusters, settings.width), np.float32)
    cluster = rng.integers(settings.num_clusters, size=(*problems, settings.num_candidates))
    noise = rng.standard_normal((*problems, settings.num_candidates, settings.width), np.float32)
    embeddings = np.take_along_axis(centers, cluster[..., None], axis=1)
    embeddings = mean + spectrum * (embeddings + spread * noise)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings.astype("<f4")
