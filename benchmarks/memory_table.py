"""The table that `memory` writes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks import rounds

MOST_MEMORY = {"sft": 1 / 10, "reinforce": 1 / 10, "dpo": 1 / 5}  # of the earlier build's temporaries
MOST_TIME = 1.0  # of the earlier build's
_NAMES = {"sft": "SFT", "reinforce": "REINFORCE, exact KL", "dpo": "DPO, pairs"}


class Plan(NamedTuple):
    """Of a compiled step, bytes; `seconds` to compile it."""

    program: str
    sizes: tuple[int, int, int]  # rows, tokens of a prompt, tokens learned
    who: str
    seconds: float
    temporaries: int
    arguments: int


class Timing(NamedTuple):
    """Of the same step, a value for each round; ratios are ours to this build's."""

    program: str
    sizes: tuple[int, int, int]
    vocab_size: int
    who: str
    seconds: list[float]
    processor_seconds: list[float]
    ratios: list[float]
    processor_ratios: list[float]
    loss_difference: float


def _step(of: Plan | Timing) -> str:
    rows, prompt, length = of.sizes
    return f"{_NAMES[of.program]} {rows} x {f'({prompt} + {length})' if prompt else length}"


def page(made_by: dict[str, str], notes: list[str], plans: list[Plan], timings: list[Timing]) -> str:
    """The tables in Markdown."""
    parts = ["# Memory and time of training steps\n"]
    if plans:
        header = ("step, remat, vocabulary 262,144", "who", "temporaries, GB", "arguments, GB", "seconds to compile")
        rows = [
            (_step(p), p.who, f"{p.temporaries / 1e9:.2f}", f"{p.arguments / 1e9:.2f}", f"{p.seconds:.0f}")
            for p in plans
        ]
        parts.append(f"## Planned memory\n\n{rounds.markdown_table(header, rows)}")
    if timings:
        header = ("step", "vocabulary", "who", "seconds", "processor seconds", "ours / it", "in processor seconds",
                  "largest difference of losses")  # fmt: skip
        rows = [
            (
                _step(t),
                f"{t.vocab_size:,}",
                t.who,
                *map(rounds.spread, (t.seconds, t.processor_seconds, t.ratios, t.processor_ratios)),
                f"{t.loss_difference:.1e}",
            )
            for t in timings
        ]
        parts.append(f"## Time\n\nMedian [least, largest].\n\n{rounds.markdown_table(header, rows)}")
    judged = [(v.target, v.setting, v.reached, rounds.OUTCOME[v.is_met]) for v in _verdicts(plans, timings)]
    parts.append(f"## Targets\n\n{rounds.markdown_table(('target', 'setting', 'reached', ''), judged)}")
    machine = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    parts.append(f"## Machine\n\n{machine}\n" + "".join(f"- {note}\n" for note in notes))
    return "\n".join(parts)


def _verdicts(plans: list[Plan], timings: list[Timing]):
    """Of this build, wherever there is an earlier one beside it."""
    for ours, other in zip(plans, plans[1:], strict=False):
        if ours.program == other.program:
            share, most = ours.temporaries / other.temporaries, MOST_MEMORY[ours.program]
            target = f"at most {most:.2f} of the earlier build's temporaries"
            yield rounds.Verdict(target, _step(ours), f"{share:.3f}", share <= most)
    for timing in timings:
        if timing.who != "this build":
            middle = float(np.median(timing.ratios))
            setting = f"{_step(timing)}, {timing.vocab_size:,}"
            target = f"at most {MOST_TIME:.1f} of the earlier build's time"
            yield rounds.Verdict(target, setting, f"{middle:.2f}", middle <= MOST_TIME)
