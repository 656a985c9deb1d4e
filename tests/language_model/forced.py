"""Teacher forcing on whole texts, against which sampling and training are held."""

import functools

import jax

from eagle_jax.language_model.log_probs import following_log_probs, read_text


@functools.partial(jax.jit, static_argnames="config")
def token_log_probs(config, params, tokens, mask, temperature):
    """log p(tokens[:, 1:] | what stands before) [B, T - 1], 0 at padding."""
    read = read_text(config, params, tokens, mask)
    return following_log_probs(read, tokens, mask, temperature)
