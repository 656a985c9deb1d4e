"""The commands `eagle-jax propose` and `export`; what they run is imported once their flags have been read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.command_line import FlagParser

_MEANINGS = {
    "num_proposals": "texts, of one item and user those that differ",
    "train_gain": "mean gain in U over the item, under the training encoder",
    "held_out_gain": "the same under the encoder that gave no reward",
    "left_anchor_share": "farther from their item than half of all other items are",
    "unchanged_share": "the item's own text",
    "near_copy_share": "nine words in ten are those of another item nearby",
    "same_as_another_user_share": "an earlier user got the same text from the same item",
    "same_for_all_users_share": "items whose best text is the same for all users asked for",
    "malformed_share": "of all steps",
    "environment_calls": "rewritings asked for",
    "num_tokens": "read and written by policy and environment",
    "seconds": "all together",
}


def propose(arguments: Sequence[str]) -> None:
    """Reads the flags, makes the proposals and says what they are like."""
    flags = _parser().parse_args(arguments)
    from eagle_jax.eagle.serving.files import check_target, write_proposals
    from eagle_jax.eagle.serving.loading import load_agent
    from eagle_jax.eagle.serving.requests import asked_items, asked_users

    check_target(flags.out)
    agent = load_agent(flags.workdir, flags.agent).trying(flags.actions)
    items = None if flags.items is None else asked_items(agent, flags.items)
    users = None if flags.users is None else asked_users(agent, flags.users, flags.seed)
    pairs = agent.pairs(items, users)
    print(
        f"{agent.name} of {flags.workdir}: {len(pairs)} pairs of an item and a user, up to {flags.num} texts for each"
    )
    summary = write_proposals(agent, pairs, flags.num, flags.seed, flags.out)
    print(_told(summary))
    print(f"proposals: {flags.out}")


def export(arguments: Sequence[str]) -> None:
    """Reads the flags and writes the folder."""
    parser = FlagParser(
        prog="eagle-jax export",
        description="The policy of a trained agent as a folder in Hugging Face's layout, with a card that says how to "
        "ask it and what was measured, and a NOTICE of licences. The card's example holds the profile of one user.",
    )
    add_agent_flags(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    flags = parser.parse_args(arguments)
    from eagle_jax.eagle.serving.export import export_agent

    print(f"card: {export_agent(flags.workdir, flags.out, flags.agent)}")


def add_run_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that says which run."""
    told = "a finished run of experiments.eagle"
    parser.add_argument("--workdir", type=Path, required=True, metavar="RUN", help=told)


def add_agent_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which agent."""
    add_run_flag(parser)
    parser.add_argument(
        "--agent",
        metavar="STAGE",
        help="as agent_g_optimal_0 or planner_0, or action_head where the run has listed actions "
        "(default: the best planner, else the best agent by validation)",
    )


def _told(summary: dict[str, Any]) -> str:
    """The summary, a line for each number that there is."""
    lines = []
    for name, meaning in _MEANINGS.items():
        value = summary[name]
        shown = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        lines.append(f"  {name:28} {shown:>10}  {meaning}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="eagle-jax propose",
        description="What a trained agent would make of items for users: texts, what they are worth, how far they "
        "are from what exists. The order is that of items, users and U under the training encoder. After an "
        "interruption the same command goes on.",
    )
    add_agent_flags(parser)
    parser.add_argument("--items", metavar="IDS|FILE", help="ids with commas, or a file of ids and texts")
    parser.add_argument(
        "--users", metavar="IDS|FILE", help="ids with commas, or a file of ids and ratings of new users"
    )
    parser.add_argument("--num", type=int, default=5, help="texts for each item and user (default: 5)")
    parser.add_argument(
        "--actions",
        type=int,
        default=1,
        help="tried in each state, of which the one of best reward is gone on with: better texts at so many times the "
        "calls (default: 1, the policy's own)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same proposals (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("proposals.jsonl"),
        metavar="FILE",
        help=".jsonl, .csv or .parquet (default: proposals.jsonl)",
    )
    return parser
