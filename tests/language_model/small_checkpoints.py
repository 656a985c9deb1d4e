"""Small random checkpoints of each family, made and saved by PyTorch `transformers`, and logits."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.checkpoints.word_tokenizer import write_word_tokenizer
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import forward, init_params

TOKENS = np.random.default_rng(0).integers(4, 94, (2, 9))
WORDS = [f"w{index}" for index in range(90)]


def write_tokenizer(folder: Path, *, with_bos: bool) -> None:
    """A word tokenizer: [PAD] 0, [BOS] 1, [EOS] 2, [UNK] 3, words, then the marker #END_PLOT."""
    specials = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]
    vocabulary = {word: index for index, word in enumerate([*specials, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.add_special_tokens(specials)
    backend.add_special_tokens([AddedToken("#END_PLOT", normalized=False)])
    if with_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="[BOS] $A", pair="[BOS] $A $B", special_tokens=[("[BOS]", 1)]
        )
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "[BOS]", "eos_token": "[EOS]",'
        ' "pad_token": {"__type": "AddedToken", "content": "[PAD]"}}'
    )


# What each family adds to SHAPE: every switch that a published checkpoint of it uses.
SHAPE = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e3,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
CHECKPOINTS = {
    "llama": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e3}}),
    "llama3_2": ("Llama", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "llama_biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": 5}),
    "qwen2_5": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True}),
    "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    # The heads are wider than hidden_size / num_attention_heads, as in Qwen 3 0.6B.
    "qwen3": (
        "Qwen3",
        {"head_dim": 16, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    # The second layer has a window and no rotary positions.
    "smollm3": (
        "SmolLM3",
        {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": 5, "tie_word_embeddings": True},
    ),
    "olmo2": ("Olmo2", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e3}}),
    "phi3": ("Phi3", {"sliding_window": 5}),
    "granite": (
        "Granite",
        {
            "attention_multiplier": 0.4,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.7,
            "logits_scaling": 0.8,
            "tie_word_embeddings": True,
        },
    ),
    "gpt2": ("GPT2", {}),
    "gpt_neox": ("GPTNeoX", {"rope_parameters": {"rope_theta": 5e3, "partial_rotary_factor": 0.5}}),
    "gpt_neox_sequential": ("GPTNeoX", {"use_parallel_residual": False, "rotary_pct": 0.5, "rotary_emb_base": 5e3}),
    "phi": ("Phi", {"num_key_value_heads": 2}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 5,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
        },
    ),
}


def shape_of(family: str) -> dict[str, Any]:
    """SHAPE under the names of the family's config.json."""
    shape, kind = SHAPE | {"layer_norm_eps": 1e-5}, family.lower().replace("_", "")
    if kind in ("gpt2", "gptneox"):
        del shape["num_key_value_heads"]  # unknown there
    if kind != "gpt2":
        return shape
    names = {
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }
    return {names.get(key, key): value for key, value in shape.items()}


def config_of(name: str) -> DecoderConfig:
    """The decoder of a checkpoint, from the keys alone."""
    family, extra = CHECKPOINTS[name]
    model_type = {"Gemma3": "gemma3_text", "GPTNeoX": "gpt_neox"}.get(family, family.lower())
    return decoder_config_from_hf(shape_of(family) | extra | {"model_type": model_type})


def tiny_config(model_type: str, **changes: Any) -> DecoderConfig:
    """A decoder too small to be slow anywhere."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "max_position_embeddings": 64}
    return decoder_config_from_hf({"model_type": model_type, "num_hidden_layers": 2} | shape | changes)


def word_model(words: list[str], folder: Path, **changes: Any) -> LanguageModel:
    """A random one of `tiny_config`, each of whose tokens is a word."""
    write_word_tokenizer(words, folder)
    tokenizer = load_tokenizer(folder)
    config = tiny_config("llama", vocab_size=tokenizer.vocab_size, **changes)
    return LanguageModel("toy", config, init_params(config, jax.random.key(0)), tokenizer)


def our_logits(model) -> np.ndarray:
    """Of TOKENS, by a LanguageModel."""
    return np.asarray(forward(model.config, model.params, TOKENS, np.ones_like(TOKENS, bool)).logits)


def load_in_torch(folder: Path):
    """A folder's model of `transformers`, eager: the other kinds of attention leave out Gemma 2's soft caps."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def their_logits(model, tokens: np.ndarray = TOKENS) -> np.ndarray:
    """By a folder's model or one that is loaded."""
    torch = pytest.importorskip("torch")
    model = load_in_torch(model) if isinstance(model, Path) else model
    with torch.no_grad():
        return model(input_ids=torch.tensor(tokens)).logits.numpy()


def make_checkpoint(name: str, folder: Path):
    """(folder, torch model): 2 layers, grouped queries, odd widths, all norms and biases random."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, extra = CHECKPOINTS[name]
    torch.manual_seed(0)
    config_class = getattr(transformers, f"{family}{'Text' * (family == 'Gemma3')}Config")
    config = config_class(**shape_of(family) | extra)
    config._attn_implementation = "eager"  # the others leave out Gemma's soft caps
    kind = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    model = getattr(transformers, family + kind)(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or ".ln_" in parameter_name:
                low = -0.5 if "gemma" in name else 0.5
                parameter.uniform_(low, low + 1.0)
            if parameter_name.endswith("bias"):
                parameter.normal_(0.0, 0.3)
    model.eval()
    model.save_pretrained(folder)
    write_tokenizer(folder, with_bos="qwen" not in name)
    return folder, model
