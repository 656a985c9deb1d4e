"""A process that runs one contender of a benchmark, a turn each time it is told to.

    python -m benchmarks.worker benchmarks.lm_ours:sampling '{"batch": 32, ...}' 2

The function named first makes the contender from the settings that follow; the last argument is the
number of processor cores it may use. A process of its own gives each contender its memory's
high-water mark and threads that no other library has, and lets one run under another interpreter:
this file, like `lm_tunix`, needs nothing of this repository and little of anything else.

Each line on standard input asks for a turn; each answer is a line of JSON on standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback

MISSING = "missing"


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mebibytes() -> float:
    """The most memory that this process has had in RAM so far."""
    if sys.platform == "linux":  # where getrusage also counts what the parent had when it became this program
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / (1 << 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def keep_to_cores(number: int) -> None:
    """Thread pools are as large as the cores that a process may use, if it is told before."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(number)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])


def main() -> None:
    # What libraries print goes to standard error: standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**values) -> None:
        answers.write(json.dumps(values) + "\n")

    name, settings, cores = sys.argv[1:]
    keep_to_cores(int(cores))
    module, _, function = name.partition(":")
    try:
        run = getattr(importlib.import_module(module), function)(**json.loads(settings))
    except ModuleNotFoundError as error:
        answer(**{MISSING: error.name})
        return
    answer(peak_mebibytes=peak_mebibytes())
    for turn, _ in enumerate(sys.stdin):
        start, processor_start = time.perf_counter(), processor_seconds()
        seconds, values = run(turn)
        busy = processor_seconds() - processor_start
        answer(
            seconds=seconds,
            busy_cores=busy / (time.perf_counter() - start),
            values=values,
            peak_mebibytes=peak_mebibytes(),
        )


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
