"""ELM's toy: does training need a stage that moves the adapter alone?

Paper: ELM (Tennenholtz et al., ICLR 2024), appendix D: [1, 0] is to be told as "one", [0, 1] as
    "two", without any other prompt. The paper's pretrained model, fine-tuned as a whole, always
    ended in one of the two words; with the adapter first it converged in under 1000 iterations.
Command: bash launch/run.sh experiments.elm_toy
    (a real checkpoint, children's stories with 0.66M parameters:
    EAGLE_DATA=<folder that holds lm/tinystories-656k> in front and
    --config=experiments/configs/elm_toy.py:tinystories)
Hardware: two CPU cores.
Time: 1 min 20 s of one core (2 min 40 s on a busy machine).
Expect: the paper's finding is not seen: with one stage 12 of 12 runs converge (nats below 0.1,
    in 10 to 30 steps), with two stages 9 of 12 (10 to 250 steps; 10 in an earlier build:
    at a rate of 0.3 rounding decides). What the paper saw, a constant
    output at ln 2 nats, is where 2 of 3 runs with two stages end when everything begins to move at
    a rate of 0.3, with adapters that started at 100 times the scale of token embeddings: a matter
    of far too large steps of the whole model, not of stages. With tinystories
    (1 min 32 s) all runs at 0.003 converge; at 0.3, 4 of 6 with one stage and 5 of 6 with two.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

SCHEMA = 3


def get_config(variant: str = "default") -> ConfigDict:
    """`variant`: default (MiniLens-LM), tinystories, or quick (for tests)."""
    if variant not in ("default", "tinystories", "quick"):
        raise ValueError(f"unknown variant {variant!r}: expected default, tinystories or quick")
    config = ConfigDict()
    config.title = "Two vectors, two words: one stage of training or two"
    config.seed = 0
    config.model = "minilens/generator"  # it knows numbers: it answers the rater form
    config.texts = ("1", "2")  # MiniLens-LM has no words for numbers
    config.num_seeds = 3  # adapters and batches
    config.learning_rates = (3e-3, 0.3)  # of both stages; MiniLens-LM was pretrained at 3e-3
    config.adapter_scales = (1.0, 100.0)  # of fresh adapters; 1: that of token embeddings
    config.num_steps = 300
    config.adapter_steps = 150  # the first stage of two-stage training
    config.warmup_steps = 10  # of each stage
    config.weight_decay = 0.0
    config.max_gradient_norm = 1.0
    config.batch_size = 16
    config.adapter_hidden_width = 64
    config.log_every = 10
    if variant == "tinystories":
        config.model = str(Path(os.environ.get("EAGLE_DATA", "data")) / "lm" / "tinystories-656k")
        config.texts = ("one", "two")
    if variant == "quick":
        config.num_seeds, config.learning_rates, config.adapter_scales = 1, (3e-3,), (1.0,)
        config.num_steps, config.adapter_steps, config.log_every = 60, 30, 10
    return config.lock()
