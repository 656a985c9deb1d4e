"""What the sizing of WALS says: shapes by what packing gives, memory and time by hand."""

import numpy as np
import pytest

from benchmarks import wals_sizing
from benchmarks.wals_sizing import Plan, Ratings
from eagle_jax.embeddings.wals_solver import rating_blocks
from eagle_jax.language_model.sharding import MeshSettings, make_mesh


def test_blocks_are_planned_as_they_are_packed(monkeypatch):
    monkeypatch.setattr(rating_blocks, "_BLOCK_ELEMENTS", 1 << 13)
    of = Ratings(3000, 2000, 30000)
    planned = wals_sizing.plan(of, 6, 8)
    user, item = (np.repeat(np.arange(len(counts)), counts) for counts in wals_sizing.draw_counts(of))
    number = min(len(user), len(item))
    rng = np.random.default_rng(1)
    user, item = (rng.permutation(index)[:number] for index in (user, item))
    sides = [(user, item + 3000), (item + 3000, user)]
    blocks, places = rating_blocks.pack_ratings(sides, np.ones(number, np.float32), (3000, 2000), 8, 8)
    assert planned.blocks == pytest.approx(len(blocks.row) / 8, rel=0.15)
    assert planned.segments == pytest.approx(blocks.segment_row.shape[1], rel=0.15)
    assert planned.slots == pytest.approx(blocks.column.size / 8, rel=0.15)
    np.testing.assert_allclose(planned.places, places.sizes, rtol=0.15)


def test_a_chip_holds_its_part_of_tables_and_blocks():
    mesh = make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))
    planned = Plan(blocks=3, segments=40, length=8, places=(50, 30), rows=70.0)
    found = wals_sizing.memory(Ratings(400, 240, 9000), planned, 6, mesh)
    table, blocks = 81 * 8, 3 * (40 + 40 + 2 * 320)
    rest = 3 + 2 + 1 + 5  # sides; penalty, squares, weights
    assert 4 * (table + blocks) <= found.arguments <= 4 * (table + blocks + rest)
    assert found.temporaries > 4 * table  # the new table at least


def test_an_iteration_by_hand():
    planned = Plan(blocks=3, segments=40, length=8, places=(50, 30), rows=70.0)
    found = wals_sizing.iteration(planned, 6, 16)  # rows of 8 floats, 7 unknowns, 960 slots in 120 segments
    assert found.operations == pytest.approx(960 * 2 * 64 * 6 + 70 * 343 / 3)
    assert found.moved == 4 * (960 * 34 * 8 + 120 * 2 * 64 + 70 * 6 * 64)
    assert found.exchanged == 4 * 960 * 15 * 9
    assert found.arguments == 4 * (80 * 8 + 2 * 960 + 2 * 120)
