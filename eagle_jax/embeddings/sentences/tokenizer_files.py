"""A folder's tokenizer as `transformers` reads it, of the components that tokenizer.json has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eagle_jax.base.tensor_files import CheckpointError, read_json

# What tokenizer_config.json says of a component, and what it is called there.
_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "add_prefix_space": "add_prefix_space",
}
# Classes in which what is not said is not taken from tokenizer.json.
_DEFAULTS = dict.fromkeys(("BertTokenizer", "MPNetTokenizer"), {"do_lower_case": True, "tokenize_chinese_chars": True})
_WITHOUT_OPTIONS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that pass them over


class TokenizerError(CheckpointError):
    """A tokenizer's files are missing or cannot be read."""


def read_tokenizer(folder: Path) -> Any:
    """A `PreTrainedTokenizerFast`; its `backend_tokenizer` neither cuts nor pads.

    Not `AutoTokenizer`'s: where tokenizer_class is GPT2Tokenizer or model_type is qwen2, among
    others, it builds normaliser and pre-tokeniser anew and drops those of tokenizer.json, with
    which the model was trained. The generic class keeps them and reads all the other files (added
    and special tokens, chat templates); the options of components, which it passes over, are set
    here. Raises TokenizerError, or CheckpointError for another file's JSON, that names the file.
    """
    from transformers import PreTrainedTokenizerFast  # takes seconds

    path = folder / "tokenizer.json"
    if not path.is_file():
        others = sorted(folder.glob("*.model"))
        raise TokenizerError(
            f"{path}: not found{f', only {others[0].name}' if others else ''}; "
            "AutoTokenizer.from_pretrained(<folder>).save_pretrained(<folder>) of `transformers` "
            "writes it from the tokenizer's other files"
        )
    files = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    named = [read_json(folder / file) if (folder / file).is_file() else {} for file in files][0]
    if "fast_tokenizer_files" in named:  # names of files, by version: they may lead anywhere
        raise TokenizerError(f"{folder / files[0]}: fast_tokenizer_files are not read")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # both may be on in the file
        backend.no_padding()
        if json.loads(backend.post_processor.__getstate__()).get("special_tokens") == {}:
            backend.post_processor = None  # the class puts one that does nothing where none is
        kind = str(named.get("tokenizer_class"))
        if kind not in _WITHOUT_OPTIONS:
            named = _DEFAULTS.get(kind.removesuffix("Fast"), {}) | named
            for component in (backend.normalizer, backend.pre_tokenizer):
                _set_options(component, named)
    except Exception as error:  # bare ones of the `tokenizers` library, or of any other kind
        reason = " ".join(str(error).split())
        raise TokenizerError(
            f"{path}: not a tokenizer, or not with the {files[0]} beside it: {type(error).__name__}: {reason:.400}"
        ) from error
    return tokenizer


def _set_options(component: Any, named: dict[str, Any]) -> None:
    for part in component if hasattr(component, "__getitem__") else ():
        _set_options(part, named)
    for key, attribute in _OPTIONS.items():
        if isinstance(named.get(key), bool) and hasattr(component, attribute):
            setattr(component, attribute, named[key])
