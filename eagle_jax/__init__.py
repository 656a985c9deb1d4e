"""EAGLE, ELM and REAL in JAX: language models steered by, and reading, embedding spaces.

What is listed here is the public interface; a name is imported when it is asked for.
"""

import importlib
from typing import Any

_HOMES = {
    "GOptimalSettings": "design.design_problem",
    "g_optimal_design": "design.g_optimal",
    "exchange_subset": "design.kept_subset",
    "WALSSettings": "embeddings.wals",
    "fit_wals": "embeddings.wals",
    "content_gap_utility": "embeddings.utility",
    "load_sentence_encoder": "embeddings.sentences.encoder",
    "load_language_model": "language_model.checkpoints.hf_checkpoints",
    "save_language_model": "language_model.checkpoints.hf_checkpoints",
    "LocalGenerator": "language_model.sampling.local",
    "SamplingSettings": "language_model.generation",
    "read_preferences": "data.preferences.files",
    "run_eagle": "eagle.run",
    "load_agent": "eagle.serving.loading",
    "run_real": "real.run",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
