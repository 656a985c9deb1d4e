"""WALS on a mesh, in this process or as one of two: `python -m tests.embeddings.wals_mesh_program <folder>`."""

import sys
from pathlib import Path

import jax
import numpy as np

from eagle_jax.base.processes import join_others
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.wals import WALSOutput, WALSSettings, fit_wals
from eagle_jax.language_model.sharding import MeshSettings, make_mesh

SETTINGS = WALSSettings(
    dim=4,
    num_iterations=4,
    bias="user_item",
    observed_weight=1.0,
    unobserved_weight=0.05,
    regularization=4.0,
    regularization_scaling=0.5,
    bias_regularization=3.0,
)


def uneven_ratings(seed: int, num_users: int = 23, num_items: int = 31) -> RatingTable:
    """User 0 has rated nothing, item 1 has no rating, user 2 has rated most."""
    rng = np.random.default_rng(seed)
    rated = rng.random((num_users, num_items)) < rng.random((num_users, 1)) * 0.6
    rated[2], rated[0], rated[:, 1] = True, False, False
    user_index, item_index = np.nonzero(rated)
    return RatingTable(
        user_names=tuple(f"u{user}" for user in range(num_users)),
        item_names=tuple(f"i{item}" for item in range(num_items)),
        user_index=user_index.astype(np.int32),
        item_index=item_index.astype(np.int32),
        rating=rng.integers(1, 11, len(user_index)).astype(np.float32) / 2,
    )


def fit_on(shape: tuple[int, int, int] | None, table: RatingTable, settings: WALSSettings) -> WALSOutput:
    """On the mesh (data, fsdp, tensor), or on one device (None)."""
    data, fsdp, tensor = shape or (1, 1, 1)
    mesh = make_mesh(MeshSettings(data=data, fsdp=fsdp, tensor=tensor, first_device=0))
    return fit_wals(table, settings, jax.random.key(3), None if shape is None else mesh)


def main(folder: Path) -> None:
    join_others()
    output = fit_on((2, 2, 2), uneven_ratings(0), SETTINGS)
    np.savez(folder / f"process_{jax.process_index()}.npz", allow_pickle=False, **output._asdict())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
