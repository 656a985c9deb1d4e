"""Crosses the border between text and arrays: ELM, a decoder that reads vectors between its words.

Tennenholtz et al. 2024 (ELM), section 2: M_ELM = ((E_0 x E_A)^H, M_0). The parameters are the
decoder's and, for each kind of embedding, `adapter/<kind>` (trained) and `adapter_input/<kind>`
(mean and scale of the catalogue's embeddings, never trained).
Axes: B batch, T tokens, S slots of a kind in a prompt, d domain width, D model width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.tasks import PLACEHOLDERS
from eagle_jax.elm.model.adapter import apply_adapter, init_adapter, standardise
from eagle_jax.elm.model.prompts import EmbeddedBatch, EmbeddedPrompt, encode_embedded, kind_of_id, own_vectors
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.placeholders import with_placeholders
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params, SoftEmbeddings
from eagle_jax.language_model.generation import Generation, SamplingSettings
from eagle_jax.language_model.log_probs import LastStates, following_log_probs, read_text
from eagle_jax.language_model.sampling.local import LocalGenerator, identity
from eagle_jax.language_model.sharding import constrain, fetch, mesh_of, on_mesh_of, tree_shardings

_OWN = ("adapter", "adapter_input")  # what an ELM has beside its decoder


def decoder_params(params: Params) -> Params:
    """The parameters without adapters and their statistics: those of a plain decoder."""
    return {name: part for name, part in params.items() if name not in _OWN}


def embed_vectors(params: Params, kind: str, vectors: jax.Array) -> jax.Array:
    """E_A of a kind, from embeddings as they are in the catalogue: [..., d] -> [..., D]."""
    standard = standardise(params["adapter_input"][kind], vectors)
    return apply_adapter(params["adapter"][kind], standard)


def soft_embeddings(params: Params, batch: EmbeddedBatch) -> SoftEmbeddings:
    """Each slot's E_A(w), where it stands."""
    table = [embed_vectors(params, kind, batch.vectors[kind]) for kind in sorted(batch.vectors)]
    vectors = constrain(jnp.concatenate(table, axis=1), "BSD")
    # A product, not a gather: its gradient is no scatter. "highest": vectors are copied exactly.
    chosen = jax.nn.one_hot(batch.slots, vectors.shape[1])
    spread = jnp.einsum("bts,bsd->btd", chosen, vectors, precision="highest")
    return SoftEmbeddings(constrain(spread, "BTD"), batch.slots >= 0)


def read_embedded(config: DecoderConfig, params: Params, batch: EmbeddedBatch) -> LastStates:
    """What the decoder makes of words and vectors."""
    soft = soft_embeddings(params, batch)
    return read_text(config, decoder_params(params), batch.tokens, batch.mask, soft)


def embedded_logits(config: DecoderConfig, params: Params, batch: EmbeddedBatch) -> jax.Array:
    """Logits [B, T, V] of the token that follows, under jit or not."""
    read = read_embedded(config, params, batch)
    return read.unembed(read.states)


@functools.partial(jax.jit, static_argnames="config")
def embedded_token_log_probs(config: DecoderConfig, params: Params, batch: EmbeddedBatch) -> jax.Array:
    """log p(tokens[:, 1:] | what stands before) [B, T - 1] at temperature 1, 0 at padding."""
    return following_log_probs(read_embedded(config, params, batch), batch.tokens, batch.mask)


_embed_vectors = jax.jit(embed_vectors, static_argnames="kind")


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddingLM:
    """ELM. `model.params` hold decoder and adapters, its tokenizer the placeholders.

    base: the model on which it was built, by name and digest. trained: what differs from the base
    beside the adapters: nothing ("adapter"), low-rank updates ("lora") or all ("full").
    batch_size and length_multiple as in `LocalGenerator`; slot_multiple as in `encode_embedded`.
    """

    model: LanguageModel
    base: str
    trained: Literal["adapter", "lora", "full"]
    batch_size: int
    length_multiple: int
    slot_multiple: int

    @functools.cached_property
    def name(self) -> str:
        """The model's name and a digest of its weights, adapters included."""
        return identity(self.model)

    @property
    def widths(self) -> dict[str, int]:
        """Domain width of each kind of embedding that it reads."""
        statistics = self.model.params["adapter_input"]
        return {kind: of_kind["mean"].shape[0] for kind, of_kind in statistics.items()}

    @property
    def decoder(self) -> LanguageModel:
        """The language model without its adapters; the same arrays."""
        return dataclasses.replace(self.model, params=decoder_params(self.model.params))

    def with_params(self, params: Params) -> EmbeddingLM:
        """The same ELM with other parameters; nothing is compiled again."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, params=params))

    def encode(self, prompts: Sequence[EmbeddedPrompt], completions: Sequence[str | Sequence[int]]) -> EmbeddedBatch:
        """`encode_embedded` for this model; UserError for a row beyond its positions."""
        batch = encode_embedded(
            self.model.tokenizer,
            self.widths,
            prompts,
            completions,
            length_multiple=self.length_multiple,
            slot_multiple=self.slot_multiple,
        )
        lengths = batch.mask.sum(axis=1)
        limit = self.model.config.max_position_embeddings
        if (lengths > limit).any():
            row = int(np.argmax(lengths > limit))
            raise UserError(
                f"prompt {row} and its completion have {lengths[row]} tokens, more than the "
                f"{limit} positions of {self.model.name}"
            )
        return batch

    def generate(self, prompts: Sequence[EmbeddedPrompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        """One generation per prompt, as `LocalGenerator.generate` (with its cache of keys and
        values). Raises UserError that names the prompt."""
        kinds_by_id = kind_of_id(self.model.tokenizer, sorted(self.widths))
        vectors = self._token_vectors(prompts, kinds_by_id)
        # In the space of tokens a vector's kind does not matter any more: one placeholder for all.
        one, *others = (PLACEHOLDERS[kind] for kind in sorted(self.widths))
        texts = [prompt.prompt.text for prompt in prompts]
        for other in others:
            texts = [text.replace(other, one) for text in texts]
        plain = [dataclasses.replace(prompt.prompt, text=text) for prompt, text in zip(prompts, texts, strict=True)]
        generator = LocalGenerator(self.decoder, self.batch_size, self.length_multiple)
        return generator.generate_spliced(plain, vectors, one, sampling, seed)

    def _token_vectors(self, prompts: Sequence[EmbeddedPrompt], kinds_by_id: Mapping[int, str]) -> list[np.ndarray]:
        """[number of embeddings, D] for each prompt, computed kind by kind for all of them."""
        width = self.model.config.hidden_size
        vectors = [np.zeros((len(prompt.embeddings), width), np.float32) for prompt in prompts]
        places: dict[str, list[tuple[int, int]]] = {kind: [] for kind in self.widths}
        for row, prompt in enumerate(prompts):
            ids = self.model.tokenizer.encode_prompt(prompt.prompt.text)
            own_vectors(prompt, [kinds_by_id[i] for i in ids if i in kinds_by_id], self.widths, row)
            for number, (kind, _) in enumerate(prompt.embeddings):
                places[kind].append((row, number))
        for kind, of_kind in places.items():
            # A power of two of them: few shapes.
            stacked = np.zeros((1 << max(len(of_kind) - 1, 0).bit_length(), self.widths[kind]))
            for index, (row, number) in enumerate(of_kind):
                stacked[index] = prompts[row].embeddings[number][1]
            with on_mesh_of(self.model.params):
                made = fetch(_embed_vectors(self.model.params, kind, np.float32(stacked)))
            for index, (row, number) in enumerate(of_kind):
                vectors[row][number] = made[index]
        return vectors

    def log_probs(self, prompts: Sequence[EmbeddedPrompt], completions: Sequence[str | Sequence[int]]) -> np.ndarray:
        """[B]: log p(completion | prompt) at temperature 1, in nats, batch by batch."""
        totals = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = self.encode(prompts[rows], completions[rows])
            with on_mesh_of(self.model.params):
                scores = embedded_token_log_probs(self.model.config, self.model.params, batch)
                totals.append(fetch(jnp.sum(scores * batch.loss_weights[:, 1:], axis=1)))
        return np.concatenate(totals)


def new_embedding_lm(
    base: LanguageModel,
    statistics: Mapping[str, Mapping[str, np.ndarray]],
    key: jax.Array,
    *,
    hidden_width: int,
    batch_size: int,
    length_multiple: int,
    slot_multiple: int,
) -> EmbeddingLM:
    """The base with fresh adapters, one for each kind, on the mesh of its parameters.

    statistics: `input_statistics` of each kind's catalogue, whose width its adapter reads. The base
    gets the placeholders that it lacks. The key is consumed. Raises UserError for an unknown kind.
    """
    if unknown := sorted(set(statistics) - set(PLACEHOLDERS)):
        raise UserError(f"kind of embedding {unknown[0]!r}: known are {', '.join(PLACEHOLDERS)}")
    if not statistics:
        raise UserError("an ELM needs an adapter for at least one kind of embedding")
    model = with_placeholders(base, [PLACEHOLDERS[kind] for kind in sorted(statistics)])
    table = base.params["token_embedding"].astype(jnp.float32)
    scale = float(fetch(jnp.sqrt(jnp.mean(jnp.square(table)))))
    made, inputs = {}, {}
    for number, (kind, of_kind) in enumerate(sorted(statistics.items())):
        kind_key = jax.random.fold_in(key, number)
        made[kind] = init_adapter(kind_key, len(of_kind["mean"]), hidden_width, model.config.hidden_size, scale)
        inputs[kind] = {name: jnp.asarray(of_kind[name]) for name in ("mean", "scale")}
    params = model.params | place_like(model.params, {"adapter": made, "adapter_input": inputs})
    return EmbeddingLM(
        dataclasses.replace(model, params=params), identity(base), "adapter", batch_size, length_multiple, slot_multiple
    )


def place_like(params: Params, tree: Params) -> Params:
    """`tree` on the mesh on which `params` lie, if they lie on one."""
    mesh = mesh_of(params)
    return tree if mesh is None else jax.device_put(tree, tree_shardings(mesh, tree))
