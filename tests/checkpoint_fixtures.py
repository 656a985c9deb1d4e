"""Small random checkpoints as fixtures."""

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
