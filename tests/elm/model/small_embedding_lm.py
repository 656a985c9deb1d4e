"""A small ELM that reads two kinds of embeddings, and prompts with none to three of them."""

import dataclasses

import jax
import numpy as np

from eagle_jax.data.prompts import Prompt
from eagle_jax.elm.model.adapter import input_statistics
from eagle_jax.elm.model.embedding_lm import EmbeddedPrompt, EmbeddingLM, new_embedding_lm
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.decoder.transformer import init_params
from tests.language_model.small_checkpoints import config_of, write_tokenizer

WIDTHS = {"semantic": 6, "behavioral": 3}
TABLES = {
    kind: np.random.default_rng(width).normal(1.0, 2.0, (9, width)).astype(np.float32) for kind, width in WIDTHS.items()
}


def small_model(name: str, folder, num_layers: int = 2) -> LanguageModel:
    """Random weights in the shape of a family's small checkpoint; needs no PyTorch."""
    write_tokenizer(folder, with_bos=True)
    config = config_of(name)
    windows = config.layer_windows[:num_layers]
    config = dataclasses.replace(config, num_layers=num_layers, layer_windows=windows)
    params = init_params(config, jax.random.key(3))
    return LanguageModel("tiny", config, params, load_tokenizer(folder))


def on_base(base: LanguageModel, **changes) -> EmbeddingLM:
    """The base with fresh adapters; `changes` are those of the batches' settings."""
    return new_embedding_lm(
        base,
        {kind: input_statistics(table) for kind, table in TABLES.items()},
        jax.random.key(5),
        **{"hidden_width": 16, "batch_size": 4, "length_multiple": 16, "slot_multiple": 2} | changes,
    )


def embedded(text: str, *rows: tuple[str, int], stop: tuple[str, ...] = ()) -> EmbeddedPrompt:
    """A prompt with rows of TABLES, such as ("semantic", 3)."""
    return EmbeddedPrompt(Prompt(text, stop, ""), tuple((k, TABLES[k][row]) for k, row in rows))


PROMPTS = (
    embedded("w1 <item> w2", ("semantic", 0)),
    embedded("<user> w3 w4 w5 w6 <item> w7 <item>", ("behavioral", 1), ("semantic", 2), ("semantic", 0)),
    embedded("w8 w9"),
    embedded("<item> <user>", ("semantic", 3), ("behavioral", 4)),
)
COMPLETIONS = ("w10 w11 w12", "w13", "w14 w15 w16 w17", "w18 w19")
