"""The command `eagle-jax gaps`; what it runs is imported once its flags have been read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eagle_jax.base.command_line import FlagParser
from eagle_jax.eagle.gaps.settings import GapSettings, WalkSettings
from eagle_jax.eagle.serving.command import add_run_flag

_WALKS, _FIELDS = "walks", "fields"


def gaps(arguments: Sequence[str]) -> None:
    """Reads the flags, has texts imagined, and writes what is missing."""
    flags = _parser().parse_args(arguments)
    settings = GapSettings(seed=flags.seed, num_groups=flags.groups, num_regions=flags.regions)
    walks = WalkSettings(
        seed=flags.seed, num_walks=flags.walks, num_steps=flags.steps, instructions_per_step=flags.told_at_once
    )
    from eagle_jax.eagle.gaps.run import gaps_of_run

    found, page = gaps_of_run(
        flags.workdir, flags.out, settings, None if flags.imagined == _FIELDS else walks, flags.instructions
    )
    for line in found:
        print(line)
    print(f"report: {page}")


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="eagle-jax gaps",
        description="What the catalogue of a finished run lacks, and for whom: regions that users want more of than "
        "there is, compared with texts that the run's environment writes when it is told anything. After an "
        "interruption the same command goes on.",
    )
    walks = WalkSettings()
    gaps = GapSettings()
    add_run_flag(parser)
    parser.add_argument(
        "--imagined",
        choices=(_WALKS, _FIELDS),
        default=_WALKS,
        help="what could exist: walks of the run's environment, or, of films and without a model, genres and year of "
        f"one with the plot of another (default: {_WALKS})",
    )
    parser.add_argument(
        "--instructions",
        metavar="FILE",
        help="a CSV with the columns kind and action that walks draw from (default: the run's candidate actions)",
    )
    for flag, default, told in (
        ("walks", walks.num_walks, "walks, of which each gives one text"),
        ("steps", walks.num_steps, "rewritings of each"),
        ("told_at_once", walks.instructions_per_step, "instructions in one rewriting"),
        ("groups", gaps.num_groups, "groups of users of similar taste"),
        ("regions", gaps.num_regions, "regions that are told"),
        ("seed", gaps.seed, "the same seed finds the same gaps"),
    ):
        parser.add_argument(f"--{flag}", type=int, default=default, metavar="N", help=f"{told} (default: {default})")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the page and the files (default: RUN/gaps)")
    return parser
