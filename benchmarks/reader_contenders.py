"""Reading a file of ratings, by this build and by an earlier one, as contenders of `readers`.

Nothing of the package is imported before a contender says which checkout it comes from.
"""

import hashlib
import sys
import time
from pathlib import Path

from benchmarks.worker import processor_seconds


def reading(*, file, num_items, checkout):
    """From the file to the table of ratings; `checkout` is the folder of another build, None this one.

    A turn's values are the table's digest, how many rows it left out, and the processor's seconds.
    """
    if checkout is not None:
        sys.path.insert(0, checkout)
    items = tuple(map(str, range(1, num_items + 1)))
    read = _earlier() if checkout is not None else _ours()

    def run(_):
        start, processor_start = time.perf_counter(), processor_seconds()
        table, num_bad = read(Path(file), items)
        seconds, busy = time.perf_counter() - start, processor_seconds() - processor_start
        digest = hashlib.sha256()
        for array in (table.user_index, table.item_index, table.rating):
            digest.update(array.tobytes())
        digest.update("\n".join(table.user_names).encode())
        found = {"table": digest.hexdigest(), "num_ratings": len(table), "num_bad_rows": num_bad}
        return seconds, {**found, "processor_seconds": busy}

    return run


def _ours():
    from eagle_jax.data.bad_rows import BadRows
    from eagle_jax.data.readers.rating_files import read_ratings

    def read(path, items):
        bad_rows = BadRows()
        return read_ratings(path, known_items=items, bad_rows=bad_rows, doubtful=BadRows()), len(bad_rows)

    return read


def _earlier():
    from eagle_jax.data.ratings import read_ratings

    def read(path, items):
        table, bad_rows = read_ratings(path, known_items=items)
        return table, len(bad_rows)

    return read
