"""An ELM comes back from its folder as it was; another base, width or a damaged file is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.elm.model.adapter import EmbeddingError
from eagle_jax.elm.model.files import load_embedding_lm, save_embedding_lm
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model, save_language_model
from eagle_jax.language_model.checkpoints.placeholders import with_placeholders
from eagle_jax.language_model.decoder.config import LoRA
from eagle_jax.language_model.decoder.lora import add_lora
from eagle_jax.language_model.decoder.transformer import forward, init_params
from tests.elm.model.small_embedding_lm import COMPLETIONS, PROMPTS, on_base, small_model

TOKENS = ["<item>", "<user>"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_model("llama3_2", tmp_path_factory.mktemp("llama3_2"), num_layers=1)


def full_vocabulary(name, folder):
    """The model without rows that no token has: new tokens need new ones."""
    model = small_model(name, folder, num_layers=1)
    config = dataclasses.replace(model.config, vocab_size=model.tokenizer.vocab_size)
    params = init_params(config, jax.random.key(0))
    return dataclasses.replace(model, config=config, params=params)


def trained(elm, mode):
    """As if trained: what the mode trains is moved a little."""
    if mode == "lora":
        lora = LoRA(rank=2, alpha=4.0, targets="query|down")
        config, params = add_lora(elm.model.config, elm.decoder.params, lora, jax.random.key(1))
        model = dataclasses.replace(elm.model, config=config, params=elm.model.params | params)
        elm = dataclasses.replace(elm, model=model)

    def move(path, leaf):
        name = jax.tree_util.keystr(path)
        is_moved = "'adapter'" in name or (mode == "full" and "adapter_input" not in name)
        return leaf + 0.05 if is_moved or "lora_" in name else leaf

    moved = jax.tree_util.tree_map_with_path(move, elm.model.params)
    return dataclasses.replace(elm.with_params(moved), trained=mode)


@pytest.mark.parametrize("mode", ["adapter", "lora", "full"])
def test_it_comes_back_as_it_was(base, mode, tmp_path):
    elm = trained(on_base(base), mode)
    save_embedding_lm(elm, tmp_path)
    back = load_embedding_lm(tmp_path, None if mode == "full" else base)
    theirs, ours = (dict(jax.tree_util.tree_leaves_with_path(e.model.params)) for e in (elm, back))
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(ours[path], theirs[path]) for path in theirs)
    assert (back.base, back.trained, back.widths, back.slot_multiple) == (elm.base, mode, elm.widths, 2)
    if mode == "lora":
        np.testing.assert_allclose(back.log_probs(PROMPTS, COMPLETIONS), elm.log_probs(PROMPTS, COMPLETIONS), atol=1e-5)
    if mode == "full":  # the whole model, as others read it
        whole = load_language_model(tmp_path / "base")
        assert whole.tokenizer.token_id("<user>") == elm.model.tokenizer.token_id("<user>")
    else:
        assert back.model.params["token_embedding"] is base.params["token_embedding"]
    record = json.loads((tmp_path / "embedding_lm.json").read_text())
    assert record["adapters"]["behavioral"] == {
        "placeholder": "<user>",
        "input_width": 3,
        "hidden_width": 16,
        "statistics": ["adapter_input/behavioral/mean", "adapter_input/behavioral/scale"],
    }


def test_adapters_of_another_model_are_refused(base, tmp_path):
    save_embedding_lm(on_base(base), tmp_path)
    params = base.params | {"token_embedding": base.params["token_embedding"] + 1.0}
    other = dataclasses.replace(base, params=params, name="other")
    with pytest.raises(EmbeddingError, match="trained with the model tiny@.*, this is other@"):
        load_embedding_lm(tmp_path, other)
    with pytest.raises(EmbeddingError, match="holds adapters of the model tiny@.* and not the"):
        load_embedding_lm(tmp_path, None)
    config = dataclasses.replace(base.config, hidden_size=32)
    with pytest.raises(EmbeddingError, match="write token embeddings of width 48, .* tiny have 32"):
        load_embedding_lm(tmp_path, dataclasses.replace(base, config=config))


def test_damaged_files_are_named(base, tmp_path):
    elm = on_base(base)
    tensors_file, record_file = tmp_path / "adapter.safetensors", tmp_path / "embedding_lm.json"

    def refused(match, change_tensors=None, change_record=None, kind=CheckpointError):
        save_embedding_lm(elm, tmp_path)
        if change_tensors:
            tensors = safetensors.numpy.load_file(tensors_file)
            change_tensors(tensors)
            safetensors.numpy.save_file(tensors, tensors_file)
        if change_record:
            record = json.loads(record_file.read_text())
            change_record(record)
            record_file.write_text(json.dumps(record))
        with pytest.raises(kind, match=match):
            load_embedding_lm(tmp_path, base)

    bias = "adapter/semantic/up/bias"
    refused(f"{bias} is missing", lambda t: t.pop(bias))
    refused(f"{bias} has shape .15,., .* say .16,.", lambda t: t.update({bias: t[bias][:15]}))
    refused(f"{bias} has values that are no number", lambda t: t.update({bias: t[bias] * np.nan}))
    refused("adapter/x has no place", lambda t: t.update({"adapter/x": t[bias]}))
    refused("token_width is missing or no int", None, lambda r: r.update(token_width="48"))
    refused("trained is 'all', expected adapter", None, lambda r: r.update(trained="all"))
    refused("adapters has 'visual'; known kinds are semantic", None, lambda r: r["adapters"].update(visual={}))
    refused("input_width of semantic is missing or", None, lambda r: r["adapters"]["semantic"].pop("input_width"))
    save_embedding_lm(elm, tmp_path)
    tensors_file.write_bytes(tensors_file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="adapter.safetensors: truncated"):
        load_embedding_lm(tmp_path, base)
    record_file.unlink()
    with pytest.raises(CheckpointError, match="embedding_lm.json: not found"):
        load_embedding_lm(tmp_path, base)


@pytest.mark.parametrize("name", ["llama3_2", "phi"])  # tied; untied, and with a bias
def test_new_tokens_get_rows_and_the_others_keep_their_logits(name, tmp_path):
    model = full_vocabulary(name, tmp_path)
    longer = with_placeholders(model, TOKENS)
    assert longer.config.vocab_size == model.config.vocab_size + 2 == 97
    assert [longer.tokenizer.token_id(token) for token in TOKENS] == [95, 96]
    assert longer.tokenizer.encode("w1<item> w2 <user>") == [1, 5, 95, 6, 96]
    assert longer.tokenizer.eos_ids == model.tokenizer.eos_ids
    tokens, mask = np.arange(4, 12)[None], np.ones((1, 8), bool)
    before, after = (forward(m.config, m.params, tokens, mask).logits for m in (model, longer))
    np.testing.assert_allclose(after[..., :95], before, atol=1e-6)
    shares = jax.nn.softmax(after, axis=-1)[..., 95:]
    assert np.all((shares > 0) & (shares < 1 / 97))
    assert with_placeholders(longer, TOKENS) is longer
    save_language_model(longer, tmp_path / "saved", "float32")
    again = load_language_model(tmp_path / "saved")
    assert again.tokenizer.encode("<user>") == [1, 96]
    np.testing.assert_array_equal(again.params["token_embedding"], longer.params["token_embedding"])


def test_rows_that_no_token_has_are_used_first(base):
    longer = with_placeholders(base, TOKENS)
    assert longer.config == base.config
    assert longer.params["token_embedding"] is base.params["token_embedding"]
    elm = on_base(base)
    bare = dataclasses.replace(elm.model, tokenizer=base.tokenizer)
    with pytest.raises(UserError, match="lacks the placeholder '<item>' of semantic"):
        dataclasses.replace(elm, model=bare).encode([], [])
