"""An environment whose answers are known: it writes the action's last word behind the plot."""

import dataclasses

from eagle_jax.data.prompts import MOVIE, begin, end, parse_blocks
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.language_model.generation import Generation
from tests.small_world import SAMPLING


def written(text):
    return Generation(text=text or "add", token_ids=None, log_probs=None, stop_reason="stop" if text else "length")


class PlotEditor:
    """The environment's model: the last word of the action comes at the end of the plot."""

    def __init__(self):
        self.asked = []

    def generate(self, prompts, sampling, seed):
        return [self.write(prompt.text) for prompt in prompts]

    def write(self, text):
        action = text.split(begin("ACTION"))[1].split(end("ACTION"))[0].strip()
        start, stop = text.index(begin("PLOT")), text.rindex(end("REASONS_TO_DISLIKE"))
        blocks = parse_blocks(text[start:stop] + end("REASONS_TO_DISLIKE"), MOVIE.blocks)
        self.asked.append((blocks["PLOT"], action))
        if action == "garble":
            return written("no blocks here")
        if action != "leave it":
            blocks["PLOT"] += " " + action.split()[-1]
        told = " ".join(f"{begin(name)} {text} {end(name)}" for name, text in blocks.items())
        return written(told.removeprefix(begin("PLOT")).removesuffix(end("REASONS_TO_DISLIKE")).strip())


def edited_by(world):
    """The world with such an environment."""
    environment = LLMEnvironment(generator=PlotEditor(), book=world.book, entity_format=MOVIE, sampling=SAMPLING)
    return dataclasses.replace(world, environment=environment)
