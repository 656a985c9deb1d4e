"""A tokenizer with one token per word, for languages with a small closed vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[END]"


def write_word_tokenizer(words: Sequence[str], folder: Path) -> None:
    """tokenizer.json and its config for `words`; those that begin with # or < are markers.

    Text is lower-cased and signs are split from words; decoding puts them back together.
    """
    vocabulary = {word: i for i, word in enumerate([PAD, UNKNOWN, END, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # Markers are matched before lower-casing and splitting, which would take them apart.
    markers = [word for word in words if word.startswith(("#", "<"))]
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in markers])
    tokenizer.add_special_tokens([PAD, UNKNOWN, END])
    signs = [word for word in words if not word.isalnum() and word not in markers]
    glue = [decoders.Replace(f" {sign}", sign) for sign in signs]
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(prefix="##", cleanup=False), *glue])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", '
        '"unk_token": "[UNK]", "eos_token": "[END]"}\n'
    )
