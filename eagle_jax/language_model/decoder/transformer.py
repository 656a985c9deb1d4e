"""Decoders of all families as Flax NNX modules behind a functional facade.

`params` is a plain nested dictionary of arrays, float32 or bfloat16; `config` is static and
hashable. Activations have the parameters' dtype; norms, softmax and logits are float32.
Axes: B batch, T tokens, S cache slots, D model width, V vocabulary, L layers.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from eagle_jax.language_model.decoder.attention import Attention, KeyValue, rotary_angles, window_mask
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.linear import Linear
from eagle_jax.language_model.decoder.norms import NORMS
from eagle_jax.language_model.sharding import constrain, platform

Params = dict[str, Any]
_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


class SoftEmbeddings(NamedTuple):
    """Vectors [B, T, D] in token-embedding space that stand for tokens where is_soft [B, T]."""

    vectors: jax.Array
    is_soft: jax.Array


def scaled(values: jax.Array, multiplier: float) -> jax.Array:
    """values * multiplier, rounded once to their dtype."""
    return values if multiplier == 1 else (values.astype(jnp.float32) * multiplier).astype(values.dtype)


class FeedForward(nnx.Module):
    """Gated linear unit: down(act(gate(x)) * up(x)) (Shazeer 2020), or down(act(up(x)))."""

    def __init__(self, config: DecoderConfig, path: str, *, rngs: nnx.Rngs):
        def linear(name: str, inputs: int, outputs: int) -> Linear:
            bias = config.feed_forward_bias
            return Linear(config, f"{path}/{name}", inputs, outputs, bias, rngs=rngs)

        self.activation = config.activation
        self.is_gated = config.family.is_gated
        if self.is_gated:
            self.gate = linear("gate", config.hidden_size, config.intermediate_size)
        self.up = linear("up", config.hidden_size, config.intermediate_size)
        self.down = linear("down", config.intermediate_size, config.hidden_size)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        activation = _ACTIVATIONS[self.activation]
        if self.is_gated:
            inner = activation(self.gate(hidden)) * self.up(hidden)
        else:
            inner = activation(self.up(hidden))
        return self.down(constrain(inner, "BTF"))


class Layer(nnx.Module):
    """Transformer layer, its sublayers in the order that `Family.block` says.

    Their inputs are normed, in Gemma 2 and 3 their outputs as well, in OLMo 2 only these.
    """

    def __init__(self, config: DecoderConfig, path: str, *, rngs: nnx.Rngs):
        norm = functools.partial(NORMS[config.family.norm], config.hidden_size, config)
        self.block = config.block
        self.has_input_norms, self.has_output_norms = config.family.input_norms, config.family.output_norms
        self.residual_multiplier = config.residual_multiplier
        if self.has_input_norms:
            self.attention_norm = norm()
        self.attention = Attention(config, f"{path}/attention", rngs=rngs)
        if self.has_input_norms and self.block != "parallel_one_norm":
            self.feed_forward_norm = norm()
        self.feed_forward = FeedForward(config, f"{path}/feed_forward", rngs=rngs)
        if self.has_output_norms:
            self.attention_output_norm = norm()
            self.feed_forward_output_norm = norm()

    def __call__(self, hidden, rotation, allowed, cache=None, slot=None, first=0, shared=None):
        normed = self.attention_norm(hidden) if self.has_input_norms else hidden
        mixed, stored = self.attention(normed, rotation, allowed, cache, slot, first, shared)
        if self.has_output_norms:
            mixed = self.attention_output_norm(mixed)
        before, hidden = hidden[:, first:], hidden[:, first:] + scaled(mixed, self.residual_multiplier)
        if self.block == "parallel_one_norm":
            seen = normed[:, first:]
        else:
            seen = hidden if self.block == "sequential" else before
            seen = self.feed_forward_norm(seen) if self.has_input_norms else seen
        fed = self.feed_forward(seen)
        if self.has_output_norms:
            fed = self.feed_forward_output_norm(fed)
        return constrain(hidden + scaled(fed, self.residual_multiplier), "BTD"), stored


class DecoderStates(NamedTuple):
    """last [B, T - first, D] after the final norm; each layer's input [B, T, D]; caches."""

    last: jax.Array
    inputs: tuple[jax.Array, ...]
    caches: tuple[KeyValue, ...]


class Decoder(nnx.Module):
    """Token embedding, layers, final norm and (tied or own) unembedding."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        init = nnx.initializers.normal(config.initializer_range)
        shape = (config.vocab_size, config.hidden_size)
        self.config = config
        self.token_embedding = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.layers = nnx.Dict({str(i): Layer(config, f"layers/{i}", rngs=rngs) for i in range(config.num_layers)})
        self.final_norm = NORMS[config.family.norm](config.hidden_size, config)
        if config.family.learned_positions:
            shape_of_positions = (config.max_position_embeddings, config.hidden_size)
            positions = init(rngs.params(), shape_of_positions, jnp.float32)
            self.position_embedding = nnx.Param(positions)
        if not config.tie_word_embeddings:
            self.unembedding = nnx.Param(init(rngs.params(), shape, jnp.float32))
        if config.family.unembedding_bias:
            self.unembedding_bias = nnx.Param(jnp.zeros((config.vocab_size,), jnp.float32))

    def embed(self, tokens: jax.Array, soft: SoftEmbeddings | None = None) -> jax.Array:
        """Tokens [B, T] -> [B, T, D]; soft embeddings are spliced in before Gemma's and Granite's scaling."""
        table, tokens = constrain(self.token_embedding[...], "VD"), constrain(tokens, "BT")
        hidden = jnp.take(table, tokens, axis=0)
        if soft is not None:
            hidden = jnp.where(soft.is_soft[..., None], soft.vectors.astype(hidden.dtype), hidden)
        if self.config.family.is_gemma:
            hidden *= jnp.asarray(self.config.hidden_size**0.5, hidden.dtype)
        hidden = scaled(hidden, self.config.embedding_multiplier)
        return constrain(hidden, "BTD")

    def __call__(
        self,
        hidden: jax.Array,
        positions: jax.Array,
        allowed: jax.Array,
        caches: tuple[KeyValue, ...] | None = None,
        slot: jax.Array | None = None,
        first: int = 0,
        shared: tuple[KeyValue, ...] | None = None,
    ) -> DecoderStates:
        """hidden [B, T, D] of `embed` at positions [B, T] that see allowed [B, T, S].

        The last layer is computed from token `first` on: most of it is saved where only the end of
        a sequence is asked for. shared: each layer's keys and values of what all rows have read before, in front of S.
        """
        if self.config.family.learned_positions:
            hidden += jnp.take(self.position_embedding[...], positions, axis=0)
        views, kinds = self._views(positions, allowed)
        inputs, stored = [], []
        looped = self.config.num_layers - (first > 0)
        if looped and caches is None and shared is None and self._is_looped():
            inputs, stored, hidden = self._scan(looped, hidden, views, kinds)
        for index in range(len(inputs), self.config.num_layers):
            inputs.append(hidden)
            cache = None if caches is None else caches[index]
            is_last = index == self.config.num_layers - 1
            graph, state = nnx.split(self.layers[str(index)])
            run = self._runner(graph, first if is_last else 0)
            of_all = None if shared is None else shared[index]
            hidden, kept = run(state, hidden, *views[kinds[index]], cache, slot, of_all)
            stored.append(kept)
        return DecoderStates(self.final_norm(hidden), tuple(inputs), tuple(stored))

    def read(self, tokens: jax.Array, mask: jax.Array, soft: SoftEmbeddings | None = None) -> DecoderStates:
        """Of whole sequences tokens [B, T] with mask [B, T] (True: real), padded left or right."""
        mask = mask.astype(bool)
        return self(self.embed(tokens, soft), token_positions(mask), causal_mask(mask))

    def _runner(self, graph: nnx.GraphDef, first: int):
        """(parameters of a layer, its arguments) -> its outputs; computed again if `remat`."""

        def run(state, hidden, rotation, allowed, cache=None, slot=None, shared=None):
            return nnx.merge(graph, state)(hidden, rotation, allowed, cache, slot, first, shared)

        return jax.checkpoint(run) if self.config.remat else run

    def _is_looped(self) -> bool:
        """Also with `remat` on a CPU, where XLA drops what keeps the second computation apart from the first and
        merges them, if they are not in loops."""
        return self.config.scan_layers or (self.config.remat and platform() == "cpu" and self._are_alike())

    def _are_alike(self) -> bool:
        graphs = [nnx.graphdef(self.layers[str(index)]) for index in range(self.config.num_layers)]
        return all(graph == graphs[0] for graph in graphs)

    def _views(self, positions, allowed):
        """Each (rotation, allowed) that some layer has, and which of them each layer has."""
        config = self.config
        ropes = [config.rope if window is None else config.local_rope for window in config.layer_windows]
        ropes = [None if index in config.unrotated_layers else rope for index, rope in enumerate(ropes)]
        rotations = {rope: rotary_angles(positions, config.rotary_dim, rope) for rope in ropes}
        masks = {w: allowed if w is None else window_mask(allowed, w) for w in config.layer_windows}
        kinds = list(zip(ropes, config.layer_windows, strict=True))
        distinct = list(dict.fromkeys(kinds))
        return [(rotations[rope], masks[window]) for rope, window in distinct], [distinct.index(kind) for kind in kinds]

    def _scan(self, count, hidden, views, kinds):
        """`count` layers by one compiled body -> their inputs of [B, T, D], caches, last output."""
        if not self._are_alike():
            raise ValueError("scan_layers needs layers that are all alike: give all of them LoRA")
        graphs, states = zip(*(nnx.split(self.layers[str(i)]) for i in range(count)), strict=True)
        run = self._runner(graphs[0], 0)

        def body(hidden, layer):
            state, kind = layer
            view = jax.tree.map(lambda *each: each[0] if len(each) == 1 else jax.lax.select_n(kind, *each), *views)
            output, stored = run(state, hidden, *view)
            return output, (hidden, stored)

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        last, (inputs, stored) = jax.lax.scan(body, hidden, (stacked, jnp.array(kinds[:count])))
        caches = [jax.tree.map(lambda leaf, i=i: leaf[i], stored) for i in range(count)]
        return [inputs[i] for i in range(count)], caches, last

    @property
    def head(self) -> jax.tree_util.Partial:
        """`logits` as a pytree of what they are made with: last states [..., D] -> float32 [..., V]."""
        matrix = self.token_embedding if self.config.tie_word_embeddings else self.unembedding
        bias = self.unembedding_bias[...] if self.config.family.unembedding_bias else None
        return jax.tree_util.Partial(functools.partial(_unembed, self.config), matrix[...], bias)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> float32 [..., V], divided in Granite, capped as softcap tanh(x / softcap) in Gemma 2."""
        return self.head(hidden)


def _unembed(config: DecoderConfig, matrix: jax.Array, bias: jax.Array | None, hidden: jax.Array) -> jax.Array:
    flat = jnp.matmul(hidden.reshape(-1, hidden.shape[-1]), matrix.T, preferred_element_type=jnp.float32)
    if bias is not None:
        flat += bias[None].astype(jnp.float32)
    if config.logit_divisor != 1:
        flat /= config.logit_divisor
    if config.logit_softcap is not None:
        flat = config.logit_softcap * jnp.tanh(flat / config.logit_softcap)
    logits = flat.reshape(*hidden.shape[:-1], flat.shape[-1])
    return constrain(logits, "BV" if logits.ndim == 2 else "BTV")


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
    """logits [B, T, V], hidden_states [L + 1, B, T, D] as `transformers` defines them:
    the embeddings, then each layer's output, the last one after the final norm."""

    logits: jax.Array
    hidden_states: jax.Array


@functools.partial(jax.jit, static_argnames="config")
def forward(
    config: DecoderConfig, params: Params, tokens: jax.Array, mask: jax.Array, soft: SoftEmbeddings | None = None
) -> DecoderOutput:
    """Whole sequences tokens [B, T] with mask [B, T] (True: real), padded left or right.

    Outputs at padding are finite and mean nothing. Under jit, unused outputs cost nothing.
    """
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    decoder = bind(config, params)
    states = decoder.read(tokens, mask, soft)
    hidden_states = jnp.stack([*states.inputs, states.last])
    return DecoderOutput(decoder.logits(states.last), hidden_states)
