"""Settings of next-token prediction, of which a test changes what matters to it."""

import dataclasses

from eagle_jax.learning.supervised import NextTokenSettings


def next_token_settings(**changes):
    """A few large steps; nothing is clipped."""
    settings = NextTokenSettings(
        num_steps=12,
        learning_rate=0.02,
        warmup_steps=0,
        weight_decay=0.1,
        max_gradient_norm=1e6,
        checkpoint_every=4,
        log_every=1,
    )
    return dataclasses.replace(settings, **changes)
