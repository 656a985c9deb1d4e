"""What plays a large environment model on loopback: it takes every action word by word."""

import re

from eagle_jax.data.prompts import MOVIE, begin, end, parse_blocks


def rewrite(prompt: str) -> str:
    """The film with the action at the end of its plot, told as chat models do it."""
    marked = re.search(rf"{begin('PLOT')}.*{end('REASONS_TO_DISLIKE')}", prompt)
    blocks = parse_blocks(marked[0], MOVIE.blocks)
    action = re.search(rf"{begin('ACTION')}(.*){end('ACTION')}", prompt)[1]
    blocks["PLOT"] += f" {' '.join(action.split())}"
    return " ".join(f"{begin(name)} {text} {end(name)}" for name, text in blocks.items())
