"""WALS with its tables over a mesh, and over two processes, is WALS on one device."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.embeddings.wals import WALSOutput
from eagle_jax.embeddings.wals_solver import rating_blocks
from tests.base.processes_test import start_two
from tests.embeddings.wals_mesh_program import SETTINGS, fit_on, uneven_ratings

VARIANTS = {
    "bias": SETTINGS,
    "no bias": dataclasses.replace(SETTINGS, bias="none"),
    "bias alone": dataclasses.replace(SETTINGS, dim=0),
}


def assert_close(found, expected):
    for name, one, other in zip(WALSOutput._fields, found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_is_as_on_one_device(variant, monkeypatch):
    monkeypatch.setattr(rating_blocks, "_BLOCK_ELEMENTS", 1000)  # several blocks of each device
    table, settings = uneven_ratings(0), VARIANTS[variant]
    assert_close(fit_on((2, 2, 2), table, settings), fit_on(None, table, settings))


def test_what_float32_matrices_do_not_hold_is_solved_from_the_ratings_of_each_device():
    """Blocks differ, and with them which rows are solved so: what has to agree is J."""
    table = uneven_ratings(0)
    settings = dataclasses.replace(SETTINGS, dim=8, unobserved_weight=0.0, regularization=1e-3, num_iterations=2)
    found, expected = fit_on((2, 2, 2), table, settings), fit_on(None, table, settings)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-4)


def test_fewer_users_than_devices():
    table = uneven_ratings(1, num_users=3)
    assert_close(fit_on((8, 1, 1), table, SETTINGS), fit_on(None, table, SETTINGS))


def test_every_device_has_its_rows_and_their_ratings():
    """Each rating is in the block of its row's own device, once for either side, and places lead back to the rows."""
    table, num_parts = uneven_ratings(2), 8
    sizes = table.num_users, table.num_items
    user, item = table.user_index, table.item_index + sizes[0]
    blocks, places = rating_blocks.pack_ratings([(user, item), (item, user)], table.rating, sizes, 8, num_parts)
    row_at = dict(zip(places.place.tolist(), range(sum(sizes)), strict=True))
    assert len(row_at) == sum(sizes) and max(row_at) < num_parts * places.part_size
    padding = places.part_size - 1
    assert not any(place % places.part_size == padding for place in row_at)
    found = []
    for block, (row, segment_row, column) in enumerate(zip(*blocks[:3], strict=True)):
        part = block // (len(blocks.row) // num_parts)
        own = np.repeat(row[segment_row], len(column) // len(segment_row)) + part * places.part_size
        for place in np.flatnonzero(column != padding).tolist():
            rating = float(blocks.rating[block][place])
            found.append((row_at[int(own[place])], row_at[int(column[place])], rating))
    rated = list(zip(user.tolist(), item.tolist(), table.rating.tolist(), strict=True))
    assert sorted(found) == sorted(rated + [(item, user, rating) for user, item, rating in rated])
    # Memory: no device has much more than its share of places.
    assert places.sizes <= (2 * -(-sizes[0] // num_parts), 2 * -(-sizes[1] // num_parts))


def test_two_processes_fit_what_one_device_does(tmp_path):
    for code, _, stderr in start_two("tests.embeddings.wals_mesh_program", tmp_path):
        assert code == 0, stderr
    expected = fit_on(None, uneven_ratings(0), SETTINGS)
    for process in range(2):
        with np.load(tmp_path / f"process_{process}.npz", allow_pickle=False) as archive:
            assert_close([archive[name] for name in WALSOutput._fields], expected)
