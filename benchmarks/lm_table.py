"""What the language-model benchmark measured, beside its targets, as Markdown."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.rounds import OUTCOME, Verdict, markdown_table, spread

OURS = "ours"
# (section, who) -> times as fast as this peer at least, in every setting but greedy sampling,
# which is there for its tokens.
MIN_RATIO = {
    ("sampling", "PyTorch generate"): 1.5,
    ("sampling", "tunix"): 1.2,
    ("sft", "PyTorch"): 1.0,
    ("sft", "TRL SFTTrainer"): 1.0,
    ("reinforce", "PyTorch"): 1.0,
    ("sentences", "sentence-transformers"): 1.0,
}
# Of the rate of a plain matrix product, where the decoder has one of these widths.
MIN_SHARE = 0.6
JUDGED_WIDTHS = (512, 1024)
GREEDY = "greedy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender in one setting.

    seconds: one number per round; amount: units of work in each.
    ratios: seconds by those of the first contender in the same round.
    first_call: seconds, compilation included.
    memory_before, memory_peak: high-water marks of its process before the first call and at the
        end, MiB.
    agreement: how what it computed compares with ours; agrees: None where that means nothing.
    """

    section: str
    setting: str
    who: str
    seconds: tuple[float, ...]
    amount: float
    unit: str
    ratios: tuple[float, ...]
    busy_cores: float
    first_call: float
    memory_before: float
    memory_peak: float
    agreement: str = ""
    agrees: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A program's FLOP/s by those of a plain product in the same round."""

    program: str
    width: int
    flops_per_second: tuple[float, ...]
    shares: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a training step timed alone; share: of a plain product's rate, None: no product."""

    width: int
    name: str
    seconds: tuple[float, ...]
    share: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """All that was measured."""

    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    shares: list[Share] = dataclasses.field(default_factory=list)
    pieces: list[Piece] = dataclasses.field(default_factory=list)
    accelerator: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def verdicts(found: Found, sections: Sequence[str]) -> list[Verdict]:
    """Every target of the sections asked for, missed and unmeasured ones included."""
    judged = []
    for (section, who), limit in MIN_RATIO.items():
        if section not in sections:
            continue
        target = f"{section}: at least {limit:g}x {who}"
        mine = [m for m in found.measurements if (m.section, m.who) == (section, who)]
        timed = [m for m in mine if m.setting != GREEDY]
        judged += [
            Verdict(target, m.setting, spread(m.ratios), statistics.median(m.ratios) >= limit) for m in timed
        ] or [Verdict(target, "", "not measured", None)]
        judged += [
            Verdict(f"{section}: the same as {who}", m.setting, m.agreement, m.agrees)
            for m in mine
            if m.agrees is not None
        ]
    if "share" in sections:
        target = f"at least {MIN_SHARE:.0%} of a plain product's FLOP/s"
        judged += [
            Verdict(target, f"{s.program}, d={s.width}", spread(s.shares), statistics.median(s.shares) >= MIN_SHARE)
            for s in found.shares
            if s.width in JUDGED_WIDTHS
        ] or [Verdict(target, "", "not measured", None)]
    return judged


def page(made_by: Mapping[str, str], found: Found, judged: Iterable[Verdict]) -> str:
    """The whole report in Markdown."""
    parts = [
        "# Language models and sentence encoders: ours and their peers, one run\n",
        markdown_table(("machine", ""), made_by.items()),
        *[f"- {note}" for note in found.notes],
        "\n## Targets\n",
        markdown_table(
            ("target", "setting", "reached: median [least, largest]", ""),
            [(v.target, v.setting, v.reached, OUTCOME[v.is_met]) for v in judged],
        ),
        "## Times\n",
        "`times the first`: seconds by those of the setting's first row in the same round. Memory: "
        "the process's high-water mark, before the first call and at the end.\n",
        markdown_table(
            (
                "what",
                "setting",
                "who",
                "rounds",
                "seconds",
                "per second",
                "times the first",
                "cores",
                "first call, s",
                "memory, MiB",
                "beside ours",
            ),
            [_time_row(m) for m in found.measurements],
        ),
    ]
    if found.shares:
        rows = [
            (s.program, str(s.width), spread([rate / 1e9 for rate in s.flops_per_second]), spread(s.shares))
            for s in found.shares
        ]
        parts += ["## Share of a plain matrix product\n", markdown_table(("program", "d", "GFLOP/s", "share"), rows)]
    if found.pieces:
        rows = [
            (str(p.width), p.name, spread([1e3 * s for s in p.seconds]), "" if p.share is None else f"{p.share:.2f}")
            for p in found.pieces
        ]
        parts += [
            "## Parts of a training step alone, forward and backward\n",
            markdown_table(("d", "part", "ms", "share"), rows),
        ]
    if found.accelerator:
        rows = [
            (name, value if isinstance(value, str) else f"{value:.4g}") for name, value in found.accelerator.items()
        ]
        parts += ["## Accelerator\n", markdown_table(("", ""), rows)]
    return "\n".join(parts)


def _time_row(m: Measurement) -> tuple[str, ...]:
    return (
        m.section,
        m.setting,
        m.who,
        str(len(m.seconds)),
        spread(m.seconds),
        f"{m.amount / statistics.median(m.seconds):,.0f} {m.unit}" if m.unit else "",
        spread(m.ratios),
        f"{m.busy_cores:.1f}",
        f"{m.first_call:.1f}",
        f"{m.memory_before:,.0f} -> {m.memory_peak:,.0f}",
        m.agreement,
    )
