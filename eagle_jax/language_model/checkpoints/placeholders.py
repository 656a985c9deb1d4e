"""Tokens that a checkpoint lacks are added to it: to its tokenizer and to its embeddings.

Axes: V vocabulary, D model width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import tokenizers

from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.sharding import mesh_of, tree_shardings

_VOCABULARY_LEAVES = ("token_embedding", "unembedding", "unembedding_bias")


def with_placeholders(model: LanguageModel, placeholders: Sequence[str]) -> LanguageModel:
    """The model with each placeholder one token; the same model where they all are already.

    Rows [V, D] are appended where the tokens have none yet: the mean of all rows. A new token's
    logit is then the mean of the others', so its probability is below 1 / V (Jensen): what the
    model says hardly changes.
    """
    missing = [text for text in placeholders if model.tokenizer.token_id(text) is None]
    if not missing:
        return model
    backend = tokenizers.Tokenizer.from_str(model.tokenizer.backend.to_str())
    backend.encode_special_tokens = model.tokenizer.backend.encode_special_tokens  # not in the text
    # Not normalised: found in the text before it is lower-cased or taken apart.
    backend.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in missing])
    vocab_size = max(model.config.vocab_size, 1 + max(map(backend.token_to_id, missing)))
    tokenizer = Tokenizer(
        backend,
        pad_token=model.tokenizer.pad_token,
        bos_token=model.tokenizer.bos_token,
        eos_token=model.tokenizer.eos_token,
        more_eos_ids=model.tokenizer.eos_ids,
        chat_template=model.tokenizer.chat_template,
        num_embeddings=vocab_size,
    )
    params = dict(model.params)
    for name in _VOCABULARY_LEAVES:
        if name in params and vocab_size > model.config.vocab_size:
            params[name] = _with_rows(name, params[name], vocab_size)
    config = dataclasses.replace(model.config, vocab_size=vocab_size)
    return dataclasses.replace(model, config=config, params=params, tokenizer=tokenizer)


def _with_rows(name: str, leaf: jax.Array, count: int) -> jax.Array:
    mean = jnp.mean(leaf.astype(jnp.float32), axis=0, keepdims=True).astype(leaf.dtype)
    rows = jnp.broadcast_to(mean, (count - len(leaf), *leaf.shape[1:]))
    longer = jnp.concatenate([leaf, rows])
    mesh = mesh_of({name: leaf})
    shardings = {} if mesh is None else tree_shardings(mesh, {name: longer})
    return jax.device_put(longer, shardings[name]) if shardings else longer
