"""The decoder and the token ids that all contenders are given.

Axis letters: B batch, T prompt tokens, N new tokens or action tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

NUM_SPECIAL = 3  # padding, unknown, end: never among the inputs


def decoder_json(hidden_size: int, num_layers: int, vocab_size: int, max_positions: int) -> dict[str, Any]:
    """config.json of a small Qwen 3: heads of 64, half as many for keys, three times the width."""
    num_heads = max(2, hidden_size // 64)
    return {
        "model_type": "qwen3",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads // 2,
        "head_dim": hidden_size // num_heads,
        "max_position_embeddings": max_positions,
        # tunix 0.1.7 computes with this one whatever the checkpoint says.
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }


def token_ids(seed: int, batch: int, length: int, vocab_size: int, shared: int = 0) -> np.ndarray:
    """[B, T] int32, of which all rows begin with the same `shared`."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(NUM_SPECIAL, vocab_size, (batch, length), dtype=np.int32)
    tokens[:, :shared] = tokens[:1, :shared]
    return tokens


def action_lengths(seed: int, batch: int, longest: int) -> np.ndarray:
    """[B], from half of the longest up, the last row's being the longest."""
    lengths = np.random.default_rng(seed).integers((longest + 1) // 2, longest + 1, batch)
    lengths[-1] = longest
    return lengths


def rewards(seed: int, batch: int) -> np.ndarray:
    """[B] float32."""
    return np.random.default_rng(seed).normal(size=batch).astype(np.float32)
