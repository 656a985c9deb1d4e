"""Small random checkpoints, made and saved by PyTorch `transformers`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

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
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": {"content": "[PAD]"},'
        ' "bos_token": "[BOS]", "eos_token": "[EOS]"}'
    )


@pytest.fixture(scope="session", params=["llama", "qwen3"])
def checkpoint(request, tmp_path_factory):
    """(folder, torch model): 2 layers, grouped queries, odd widths, all norms off one."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {
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
    if request.param == "llama":
        config = transformers.LlamaConfig(
            **shape, rope_parameters={"rope_type": "default", "rope_theta": 5e3}
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        # The heads are wider than hidden_size / num_attention_heads, as in Qwen 3 0.6B.
        config = transformers.Qwen3Config(
            **shape,
            head_dim=16,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        )
        model = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.eval()
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    write_tokenizer(folder, with_bos=request.param == "llama")
    return folder, model


@pytest.fixture(scope="session")
def tokenizer_writer():
    return write_tokenizer
