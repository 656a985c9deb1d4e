"""Decoder-only transformers (Llama, Qwen 3) as Flax NNX modules behind a functional facade.

`params` is a plain nested dictionary of float32 arrays; `config` is static and hashable.
Axes: B batch, T tokens, S cache slots, D model width, V vocabulary, L layers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.attention import Attention, KeyValue, Linear, RMSNorm, rotary_angles

Params = dict[str, Any]


class UnsupportedModelError(UserError):
    """A config.json asks for something that this decoder does not compute."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What one `model_type` of Hugging Face does differently, and its defaults."""

    model_type: str
    architecture: str
    head_norms: bool  # RMSNorm of every query and key head
    default_head_dim: int | None  # None: hidden_size / num_attention_heads


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="llama",
            architecture="LlamaForCausalLM",
            head_norms=False,
            default_head_dim=None,
        ),
        Family(
            model_type="qwen3",
            architecture="Qwen3ForCausalLM",
            head_norms=True,
            default_head_dim=128,
        ),
    )
}

# Keys of config.json that would change the computation, with the only value that is computed here.
_REQUIRED_VALUES = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": None,
    "use_sliding_window": False,
}


_NECESSARY = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder, as its config.json gives it."""

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    initializer_range: float

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise UnsupportedModelError(
                f"num_attention_heads {self.num_heads} is not a multiple of "
                f"num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UnsupportedModelError(
                f"head_dim must be even for rotary positions, got {self.head_dim}"
            )


def decoder_config_from_hf(config_json: Mapping[str, Any]) -> DecoderConfig:
    """Reads Hugging Face's config.json; missing keys take the defaults of `transformers`.

    Raises UnsupportedModelError that names the key and value that this decoder cannot compute.
    """
    model_type = config_json.get("model_type")
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; known: {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[model_type]
    for name, required in _REQUIRED_VALUES.items():
        if config_json.get(name, required) != required:
            raise UnsupportedModelError(
                f"{model_type}: {name} = {config_json[name]!r} is not supported, only {required!r}"
            )
    if missing := [name for name in _NECESSARY if name not in config_json]:
        raise UnsupportedModelError(f"{model_type}: config.json lacks {', '.join(missing)}")
    num_heads = config_json["num_attention_heads"]
    default_head_dim = family.default_head_dim or config_json["hidden_size"] // num_heads
    return DecoderConfig(
        family=family,
        vocab_size=config_json["vocab_size"],
        hidden_size=config_json["hidden_size"],
        intermediate_size=config_json["intermediate_size"],
        num_layers=config_json["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=config_json.get("num_key_value_heads") or num_heads,
        head_dim=config_json.get("head_dim") or default_head_dim,
        max_position_embeddings=config_json["max_position_embeddings"],
        rope_theta=_rope_theta(config_json),
        rms_norm_eps=float(config_json.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=config_json.get("tie_word_embeddings", False),
        initializer_range=float(config_json.get("initializer_range", 0.02)),
    )


def _rope_theta(config_json: Mapping[str, Any]) -> float:
    """Before transformers 5 `rope_theta` stood alone; since then it lives in `rope_parameters`."""
    parameters = config_json.get("rope_parameters") or {}
    if parameters.get("rope_type", "default") != "default":
        raise UnsupportedModelError(
            f"{config_json['model_type']}: rope_parameters = {parameters!r} is not supported, "
            "only rope_type 'default'"
        )
    return float(parameters.get("rope_theta", config_json.get("rope_theta", 10000.0)))


def decoder_config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The config.json from which `transformers` (4 and 5) builds the same decoder."""
    return {
        "architectures": [config.family.architecture],
        "model_type": config.family.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        **_REQUIRED_VALUES,
    }


class FeedForward(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        linear = functools.partial(Linear, scale=config.initializer_range, rngs=rngs)
        self.gate = linear(config.hidden_size, config.intermediate_size)
        self.up = linear(config.hidden_size, config.intermediate_size)
        self.down = linear(config.intermediate_size, config.hidden_size)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        return self.down(jax.nn.silu(self.gate(hidden)) * self.up(hidden))


class Layer(nnx.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(self, hidden, rotation, allowed, cache=None, slot=None):
        mixed, stored = self.attention(self.attention_norm(hidden), rotation, allowed, cache, slot)
        hidden = hidden + mixed
        return hidden + self.feed_forward(self.feed_forward_norm(hidden)), stored


class Decoder(nnx.Module):
    """Token embedding, layers, final norm and (tied or own) unembedding."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(config.initializer_range)
        shape = (config.vocab_size, config.hidden_size)
        self.config = config
        self.token_embedding = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.layers = nnx.Dict(
            {str(index): Layer(config, rngs=rngs) for index in range(config.num_layers)}
        )
        self.final_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.unembedding = nnx.Param(init(rngs.params(), shape, jnp.float32))

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        allowed: jax.Array,
        caches: tuple[KeyValue, ...] | None = None,
        slot: jax.Array | None = None,
    ) -> tuple[list[jax.Array], tuple[KeyValue, ...]]:
        """tokens [B, T] at positions [B, T] that see allowed [B, T, S] -> (L + 1 states, caches).

        States are those of `transformers`: the embeddings, then each layer's output, the last one
        after the final norm.
        """
        rotation = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        states = [jnp.take(self.token_embedding[...], tokens, axis=0)]
        stored = []
        for index in range(self.config.num_layers):
            cache = None if caches is None else caches[index]
            hidden, kept = self.layers[str(index)](states[-1], rotation, allowed, cache, slot)
            states.append(hidden)
            stored.append(kept)
        states[-1] = self.final_norm(states[-1])
        return states, tuple(stored)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [..., V]."""
        tied = self.config.tie_word_embeddings
        matrix = self.token_embedding if tied else self.unembedding
        flat = hidden.reshape(-1, hidden.shape[-1]) @ matrix[...].T
        return flat.reshape(*hidden.shape[:-1], flat.shape[-1])


@functools.lru_cache
def _graph(config: DecoderConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))


def bind(config: DecoderConfig, params: Params) -> Decoder:
    """The module with these parameters."""
    return nnx.merge(_graph(config), params)


@functools.partial(jax.jit, static_argnames="config")
def init_params(config: DecoderConfig, key: jax.Array) -> Params:
    """Normal(0, initializer_range) matrices and unit norms, float32. The key is consumed."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


def token_positions(mask: jax.Array) -> jax.Array:
    """Number of real tokens before each one of mask [B, T], whichever side is padded."""
    return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def causal_mask(mask: jax.Array) -> jax.Array:
    """[B, T] -> [B, T, T]: token t sees the real tokens s <= t."""
    length = mask.shape[-1]
    return mask[:, None, :] & jnp.tri(length, dtype=bool)[None]


class DecoderOutput(NamedTuple):
    """logits [B, T, V], hidden_states [L + 1, B, T, D] as `transformers` defines them."""

    logits: jax.Array
    hidden_states: jax.Array


@functools.partial(jax.jit, static_argnames="config")
def forward(
    config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array
) -> DecoderOutput:
    """Whole sequences tokens [B, T] with mask [B, T] (True: real), padded left or right.

    Outputs at padding are finite and mean nothing. Under jit, unused outputs cost nothing.
    """
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    decoder = bind(config, params)
    mask = mask.astype(bool)
    states, _ = decoder(tokens, token_positions(mask), causal_mask(mask))
    return DecoderOutput(decoder.logits(states[-1]), jnp.stack(states))
