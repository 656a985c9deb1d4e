"""Crosses the border between text and arrays: sentence embeddings by an encoder in memory.

Reads folders of sentence-transformers (MiniLM, E5, BGE, GTE, MPNet, Sentence-T5, GTR) and plain
Hugging Face ones. Axes: B texts, T tokens, E width of the embedding.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eagle_jax.base.tensor_files import CheckpointError, read_json
from eagle_jax.embeddings.sentences.checkpoints import DTYPES, load_params
from eagle_jax.embeddings.sentences.families import ENCODER_FAMILIES, EncoderConfig, read_config
from eagle_jax.embeddings.sentences.layers import Params
from eagle_jax.embeddings.sentences.modules import MODULES_FILE, Head, apply_head, pool, read_modules, read_truncate_dim
from eagle_jax.embeddings.sentences.tokenizer import SentenceTokenizer, load_sentence_tokenizer
from eagle_jax.embeddings.sentences.transformer import encode

_LENGTH_MULTIPLE = 8  # at least
# Of a batch on one CPU: half the time of 8,192 tokens (MiniLM), whose intermediates fit no cache.
_CPU_TOKENS = 1024
_BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """What is computed of token ids; static and hashable."""

    encoder: EncoderConfig
    pooling_modes: tuple[str, ...]
    num_skipped: int  # tokens at the beginning that are not pooled
    heads: tuple[Head, ...]
    truncate_dim: int | None  # so many coordinates are kept; None: all


def embed(config: SentenceConfig, params: Params, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """Tokens [B, T], of which each text has the first `lengths` [B], to float32 [B, E]."""
    mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    hidden = encode(config.encoder, params["encoder"], tokens, mask)
    embeddings = pool(config.pooling_modes, hidden, lengths, config.num_skipped)
    for head, own in zip(config.heads, params["heads"], strict=True):
        embeddings = apply_head(head, own, embeddings)
    return embeddings[:, : config.truncate_dim]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SentenceEncoder:
    """Texts -> embeddings.

    Texts of like length share a batch; its length is rounded up by at most an eighth (or 7 tokens)
    and the last batch to a power of two rows: little padding, few compilations. `batch_size` is the
    most rows; on CPU long texts get fewer. With a mesh the rows are split over its axes "data" and
    "fsdp", and every device holds the parameters.
    """

    folder_name: str
    tokenizer: SentenceTokenizer
    config: SentenceConfig
    params: Params
    batch_size: int
    mesh: Mesh | None

    @functools.cached_property
    def name(self) -> str:
        """The folder's name and a digest of all that decides the embeddings."""
        digest = hashlib.sha256(repr((self.config, self.tokenizer.identity)).encode())
        for leaf in jax.tree.leaves(self.params):
            digest.update(np.asarray(leaf).tobytes())
        return f"{self.folder_name}@{digest.hexdigest()[:16]}"

    @functools.cached_property
    def dim(self) -> int:
        """E, the width of the embeddings."""
        inputs = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((1, 1), (1,)))
        return jax.eval_shape(functools.partial(embed, self.config), self.params, *inputs).shape[1]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [B, E]; no texts give [0, E]. Raises UserError for a text without tokens."""
        ids, num_cut = self.tokenizer(texts)
        if num_cut:
            logging.warning(
                "%d of %d texts have more than the %d tokens of %s and are cut",
                num_cut,
                len(texts),
                self.tokenizer.max_tokens,
                self.folder_name,
            )
        embeddings = np.zeros((len(ids), self.dim), np.float32)
        # The longest first: if a batch does not fit into memory, it is the first one.
        by_length = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        running, start = collections.deque(), 0
        while start < len(ids):
            shape = self._batch_shape(len(ids[by_length[start]]), len(ids) - start)
            rows = by_length[start : start + shape[0]]
            running.append((rows, self._embed_batch([ids[row] for row in rows], shape)))
            start += len(rows)
            if len(running) > 1:  # a batch is waited for when the next one is under way
                _collect(embeddings, *running.popleft())
        while running:
            _collect(embeddings, *running.popleft())
        return embeddings

    def _batch_shape(self, longest: int, num_texts: int) -> tuple[int, int]:
        """Rows (of padding, too, once there are few texts) and tokens of the next batch."""
        num_shards = 1 if self.mesh is None else math.prod(_split(self.mesh).values())
        num_tokens = _padded_length(longest, self.tokenizer.max_tokens)
        num_rows = self.batch_size
        if jax.default_backend() == "cpu":
            num_rows = min(num_rows, max(1, _CPU_TOKENS // num_tokens) * num_shards)
        num_rows = min(num_rows, 1 << (num_texts - 1).bit_length())
        return -(-num_rows // num_shards) * num_shards, num_tokens

    def _embed_batch(self, ids: list[np.ndarray], shape: tuple[int, int]) -> jax.Array:
        """[B, E] of at least these texts, not waited for."""
        tokens, lengths = np.zeros(shape, np.int32), np.ones(shape[0], np.int32)
        for row, own in enumerate(ids):
            tokens[row, : len(own)], lengths[row] = own, len(own)
        if self.mesh is not None:
            split = NamedSharding(self.mesh, PartitionSpec(tuple(_split(self.mesh))))
            tokens, lengths = (
                jax.make_array_from_callback(array.shape, split, array.__getitem__) for array in (tokens, lengths)
            )
        return _program(self.mesh)(self.config, self.params, tokens, lengths)


def _split(mesh: Mesh) -> dict[str, int]:
    """The axes over which rows are split, with their sizes."""
    return {axis: mesh.shape[axis] for axis in _BATCH_AXES if axis in mesh.shape}


@functools.cache
def _program(mesh: Mesh | None):
    """`embed`, compiled once for each config and shape; every process gets all embeddings."""
    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.jit(embed, static_argnums=0, out_shardings=whole)


def _padded_length(length: int, limit: int) -> int:
    """The next multiple of an eighth of the next power of two, at most `limit`."""
    step = max(_LENGTH_MULTIPLE, (1 << (length - 1).bit_length()) // 8)
    return min(-(-length // step) * step, limit)


def _collect(embeddings: np.ndarray, rows: list[int], output: jax.Array) -> None:
    embeddings[rows] = np.asarray(output)[: len(rows)]


def is_sentence_encoder(folder: Path | str) -> bool:
    """Whether a folder's files are those of a sentence encoder (and not, say, of a decoder)."""
    folder = Path(folder)
    config = folder / "config.json"
    return (folder / MODULES_FILE).is_file() or (
        config.is_file() and read_json(config).get("model_type") in tuple(ENCODER_FAMILIES)
    )


def load_sentence_encoder(
    folder: Path | str,
    *,
    batch_size: int,
    prompt_name: str | None = None,
    dtype: str = "float32",
    mesh: Mesh | None = None,
) -> SentenceEncoder:
    """Reads a sentence-transformers folder, or a plain Hugging Face one, which is mean-pooled.

    prompt_name: one of config_sentence_transformers.json, for instance "query"; None: the one that
        is the default there, or none.
    dtype: the transformer's, "float32" or "bfloat16"; norms, softmax and what follows the
        transformer are float32 in any case.
    Raises CheckpointError (files and tensors), UnsupportedEncoderError (what is not computed here)
    and UserError (an unknown prompt).
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    folder = Path(folder)
    modules = read_modules(folder)
    encoder = read_config(modules.transformer / "config.json")
    tokenizer = load_sentence_tokenizer(folder, modules.transformer, prompt_name, encoder.max_tokens)
    if tokenizer.vocab_size > encoder.vocab_size:
        raise CheckpointError(
            f"{modules.transformer}: the tokenizer has {tokenizer.vocab_size} tokens, the model's "
            f"vocab_size is only {encoder.vocab_size}"
        )
    width = encoder.hidden_size * len(modules.pooling.modes)
    for own in modules.head_params:
        if own and (inputs := len(own["linear"]["kernel"])) != width:
            raise CheckpointError(f"{folder}: a dense layer for {inputs} inputs gets {width}")
        width = own["linear"]["kernel"].shape[1] if own else width
    params = {"encoder": load_params(modules.transformer, encoder, dtype), "heads": modules.head_params}
    if mesh is not None:
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    return SentenceEncoder(
        folder_name=folder.resolve().name,
        tokenizer=tokenizer,
        config=SentenceConfig(
            encoder=encoder,
            pooling_modes=modules.pooling.modes,
            num_skipped=0 if modules.pooling.includes_prompt else tokenizer.prompt_length,
            heads=modules.heads,
            truncate_dim=read_truncate_dim(folder),
        ),
        params=params,
        batch_size=batch_size,
        mesh=mesh,
    )
