"""Memory and time of WALS on Amazon's ratings, over the chips of a slice, which need not be there.

    pip install libtpu==0.0.42.* && python -m benchmarks.wals_sizing [--topology=v5e-16]

XLA's compiler for TPUs takes the whole fit (`alternate_half_steps`) with tables and blocks of that size on 16 chips and
tells what it holds of them. It counts a loop's body once, so time is by formula: per iteration and chip, with the S L
slots of its G blocks, of which the ratings fill a part, F floats a row and P chips,
    operations  slots * 2 F^2 * 6 (a float32 product is six of bfloat16) + rows * f^3 / 3
    moved       4 bytes * (slots * 2 (P + 1) F + segments * 2 F^2 + rows * 6 F^2): what all chips ask for is looked up,
                written and read, and so is the own; a segment's matrix, a row's system and factor likewise
    exchanged   4 bytes * slots * (P - 1) (F + 1): rows by reduce-scatter, places by all-gather
and seconds as in `benchmarks/sizing.py`, whose slices these are. Ratings a user and an item are drawn from log-normal
laws (those of `benchmarks/wals_contenders.py`), as the data set is not here. The tables are printed as Markdown; those
of launch/SIZING.md come from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from benchmarks.sizing import SLICES, Cost, cost, make_mesh, replicated, split_over
from eagle_jax.embeddings.wals import alternate_half_steps
from eagle_jax.embeddings.wals_solver.half_steps import WALSProblem, WALSWeights, table_width
from eagle_jax.embeddings.wals_solver.rating_blocks import RatingBlocks, plan_blocks

_DIMS, _ITERATIONS = (32, 64), 15


class Ratings(NamedTuple):
    """How many there are: R of U users and N items."""

    users: int
    items: int
    ratings: int


AMAZON = Ratings(43_530_000, 15_170_000, 233_100_000)  # 2018; Ni et al. 2019, as Hou et al. 2024 count it


class Plan(NamedTuple):
    """Of each chip: blocks G of S segments of L slots, places for users and items, rows with ratings."""

    blocks: int
    segments: int
    length: int
    places: tuple[int, int]
    rows: float

    @property
    def slots(self) -> int:
        return self.blocks * self.segments * self.length


def draw_counts(of: Ratings) -> list[np.ndarray]:
    """Ratings of each user [U] and of each item [N], one at least."""
    rng = np.random.default_rng(0)
    weights = [rng.lognormal(0.0, spread, number) for number, spread in ((of.users, 1.0), (of.items, 1.5))]
    return [np.maximum(np.rint(weight * (of.ratings / weight.sum())), 1).astype(np.int64) for weight in weights]


def plan(of: Ratings, dim: int, chips: int) -> Plan:
    """That of ratings which are drawn in these numbers."""
    length, segments, blocks = plan_blocks(draw_counts(of), table_width(dim), chips)
    places = -(-of.users // chips), -(-of.items // chips)
    return Plan(sum(blocks) // chips, segments, length, places, (of.users + of.items) / chips)


def memory(of: Ratings, planned: Plan, dim: int, mesh: Mesh) -> Cost:
    """What the compiler says of the whole fit; operations and bytes moved are of a block and a half step only."""

    def parts(width: int, number: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
        return split_over(mesh, (mesh.axis_names,), (mesh.size * number, width), dtype)

    number, slots = planned.blocks, planned.segments * planned.length
    rows, segment_row = (parts(planned.segments, number, jnp.int32) for _ in range(2))  # no more rows than segments
    sides = jax.ShapeDtypeStruct((3,), jnp.int32)
    blocks = RatingBlocks(rows, segment_row, parts(slots, number, jnp.int32), parts(slots, number), sides)
    one = jax.ShapeDtypeStruct((), jnp.float32)
    start = replicated(mesh, (sides, jax.ShapeDtypeStruct((2,), jnp.float32), one, WALSWeights(*[one] * 5)))
    axes = tuple(axis for axis in mesh.axis_names if mesh.shape[axis] > 1)
    problem = WALSProblem(dim, True, of[:2], planned.places, axes)

    def fit(blocks, table, penalty, squares, weights):
        settings = {"mesh": mesh, "problem": problem, "num_iterations": _ITERATIONS, "by_ratings": False}
        return alternate_half_steps(blocks, table, penalty, squares, weights, **settings)

    table = parts(table_width(dim), sum(planned.places) + 1)
    return cost(jax.jit(fit), mesh, blocks._replace(sides=start[0]), table, *start[1:])


def iteration(planned: Plan, dim: int, chips: int) -> Cost:
    """By the formulas above; arguments are the tables and the blocks, each read once."""
    width, slots = table_width(dim), planned.slots
    segments = planned.blocks * planned.segments
    return Cost(
        operations=slots * 12 * width**2 + planned.rows * (dim + 1) ** 3 / 3,
        moved=4 * (slots * 2 * (chips + 1) * width + (2 * segments + 6 * planned.rows) * width**2),
        exchanged=4 * slots * (chips - 1) * (width + 1),
        arguments=4 * (sum(planned.places) * width + 2 * slots + 2 * segments),
        temporaries=0,
    )


def report(name: str, of: Ratings = AMAZON) -> Iterator[str]:
    """The slice's table, line by line."""
    chip, shape = SLICES[name], (4, 1, 4)
    mesh = make_mesh(chip, shape)
    yield f"### {name}, mesh {shape}"
    yield ""
    columns = ("d", "GB of arguments", "GB held", "slots filled", "Tflop", "GB read and written", "GB exchanged")
    yield f"| {' | '.join(columns)} | s an iteration |"
    yield "|---" * (len(columns) + 1) + "|"
    for dim in _DIMS:
        planned = plan(of, dim, mesh.size)
        held, step = memory(of, planned, dim, mesh), iteration(planned, dim, mesh.size)
        filled = 2 * of.ratings / mesh.size / planned.slots
        low, high = step.seconds(chip)
        yield (
            f"| {dim} | {held.arguments / 1e9:.2f} | {(held.arguments + held.temporaries) / 1e9:.2f} | {filled:.0%} "
            f"| {step.operations / 1e12:.2f} | {step.moved / 1e9:.0f} | {step.exchanged / 1e9:.0f} "
            f"| {low:.1f} to {high:.1f} |"
        )


def main(_) -> None:
    one = flags.FLAGS.topology  # of benchmarks.sizing
    for name in [one] if one else SLICES:
        for line in report(name):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    app.run(main)
