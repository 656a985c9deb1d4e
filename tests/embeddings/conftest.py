"""Small random encoders, saved by `transformers` and sentence-transformers."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

# One is empty, one has more tokens than these encoders take.
TEXTS = (
    "A robot learns to paint.",
    "",
    "Zoë's naïve café, 北京市 and 🤖 – what now?",
    "x",
    "An old detective returns to the city of fog. " * 12,
    "UPPER and lower case\n\twith   spaces ",
    "Two sisters, one lighthouse; a storm is coming",
)
_WORDS = ("robot", "learn", "##s", "the", "city", "fog", "storm", "paint", "old", "to")
_LETTERS = "abcdefghijklmnopqrstuvwxyz.,;?'–"


def _tokenizer(specials: tuple[str, ...], begin: str | None, end: str, lowercase: bool = True):
    """A WordPiece tokenizer of lower-case pieces; `specials` get the first ids."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = (*specials, *_WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS))
    vocab = {piece: index for index, piece in enumerate(pieces)}
    pad, unk = "[PAD]", "[UNK]"
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    template = ([begin] if begin else []) + ["$A", end]
    named = [(token, vocab[token]) for token in (begin, end) if token]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, unk_token=unk, sep_token=end, model_max_length=40
    )


_BERT = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 48,
    "initializer_range": 0.2,
}
_T5 = {"vocab_size": 90, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_layers": 2, "num_heads": 3}
_T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
_FIRST = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_SECOND = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")  # padding is token 1, as for RoBERTa
# Kind -> classes of `transformers`, the values of the config, special tokens, the first one of a text.
_KINDS = {
    "bert": ("BertModel", "BertConfig", _BERT, _FIRST, "[CLS]"),
    "bert_relu": (
        "BertModel",
        "BertConfig",
        _BERT | {"hidden_act": "relu", "layer_norm_eps": 0.1, "type_vocab_size": 1},
        _FIRST,
        "[CLS]",
    ),
    "roberta": (
        "XLMRobertaModel",
        "XLMRobertaConfig",
        _BERT | {"pad_token_id": 1, "type_vocab_size": 1},
        _SECOND,
        "[CLS]",
    ),
    "mpnet": ("MPNetModel", "MPNetConfig", _BERT, _SECOND, "[CLS]"),
    "t5_v1_0": ("T5EncoderModel", "T5Config", _T5, _FIRST, None),
    "t5_v1_1": ("T5EncoderModel", "T5Config", _T5 | {"feed_forward_proj": "gated-gelu"}, _FIRST, None),
}


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Kind -> a plain Hugging Face folder with such an encoder; made once."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    @functools.cache
    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        model_class, config_class, values, specials, begin = _KINDS[kind]
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**values))
        with torch.no_grad():
            for parameter in model.parameters():  # biases and scales are constant at first
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        _tokenizer(specials, begin, "[SEP]", lowercase=kind != "roberta").save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)
