"""A text generator that remembers what it was asked."""

from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, SamplingSettings

SAMPLING = SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=8)


def prompts(*texts):
    return [Prompt(text=text, stop=("#END",), opening="#BEGIN") for text in texts]


class Counting:
    """Remembers its calls; gives token ids and log-probs as a local model would."""

    def __init__(self, name):
        self.name = name
        self.calls = []

    def generate(self, prompts, sampling, seed):
        self.calls.append([prompt.text for prompt in prompts])
        return [
            Generation(
                text=f"{prompt.text}/{seed}/{row}",
                token_ids=(row, seed),
                log_probs=(-0.1, -1 / 3),
                stop_reason="length",
            )
            for row, prompt in enumerate(prompts)
        ]
