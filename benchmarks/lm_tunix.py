"""google-tunix's sampler, as a contender of `language_models`; may run under its own interpreter.

Imports nothing of this project but `lm_inputs`.
"""

from __future__ import annotations

import importlib.metadata
import time

import jax.numpy as jnp
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3 import params as qwen3_params

from benchmarks import lm_inputs

_NO_END = [-1]


class _IdTokenizer:
    """Texts are token ids in decimal: the sampler takes strings only."""

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0  # none is added

    def eos_id(self) -> int:
        return -1

    def pad_id(self) -> int:
        return 0


def sampling(*, folder, decoder, batch, prompt_length, new_tokens, temperature, top_p, shared):
    """The whole call of the sampler with a cache that just fits; temperature 0 is greedy."""
    config = qwen3.ModelConfig(
        num_layers=decoder["num_hidden_layers"],
        vocab_size=decoder["vocab_size"],
        embed_dim=decoder["hidden_size"],
        hidden_dim=decoder["intermediate_size"],
        num_heads=decoder["num_attention_heads"],
        head_dim=decoder["head_dim"],
        num_kv_heads=decoder["num_key_value_heads"],
        rope_theta=int(decoder["rope_parameters"]["rope_theta"]),
        norm_eps=1e-6,
        use_tied_embedding=decoder["tie_word_embeddings"],
    )
    model = qwen3_params.create_model_from_safe_tensors(str(folder), config, None, jnp.float32)
    cache = CacheConfig(
        cache_size=prompt_length + new_tokens,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sampler = Sampler(model, _IdTokenizer(), cache)
    tokens = lm_inputs.token_ids(0, batch, prompt_length, config.vocab_size, shared)
    texts = [" ".join(map(str, row)) for row in tokens]
    version = f"google-tunix {importlib.metadata.version('google-tunix')}"
    drawing = {"temperature": temperature, "top_p": top_p} if temperature > 0 else {}

    def run(turn):
        start = time.perf_counter()
        output = sampler(texts, new_tokens, max_prompt_length=prompt_length, eos_tokens=_NO_END, seed=turn, **drawing)
        seconds = time.perf_counter() - start
        values = {"tokens": [row.tolist() for row in output.tokens], "version": version}
        return seconds, values

    return run
