"""GGUF files as llama.cpp's converter writes them: the weights, logits and tokens that went in."""

import json

import gguf
import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from eagle_jax.base.tensor_files import CheckpointError
from eagle_jax.embeddings.sentences.tokenizer_files import TokenizerError
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model, save_language_model
from eagle_jax.language_model.decoder.config import UnsupportedModelError
from eagle_jax.language_model.decoder.transformer import forward
from experiments import cli

torch = pytest.importorskip("torch", reason="torch makes the models that are written")
import transformers  # noqa: E402

TEXTS = ["a film of 1984", "in  2  acts, don't", "x", "\n\n  12 345"]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rope_theta": 5000.0,
    "rms_norm_eps": 1e-5,
}
CLASSES = {
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "gemma3": transformers.Gemma3TextConfig,
}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@pytest.fixture(scope="module")
def bpe() -> tokenizers.Tokenizer:
    """Byte-level BPE whose digits stand alone, as SmolLM2's."""
    backend = tokenizers.Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 20, trainer)
    return backend


def new_model(architecture, **changes):
    torch.manual_seed(0)
    config = CLASSES[architecture](**{**SIZES, "vocab_size": 320, "initializer_range": 0.2, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # all ones or zeros say nothing
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def stored_name(architecture, name):
    module, _, leaf = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{leaf}"
    _, _, layer, inner = module.split(".", 3)
    names = LAYER | GEMMA if architecture == "gemma3" else LAYER
    return f"blk.{layer}.{names[inner]}.{leaf}"


def stored_tensors(architecture, model):
    """By convert_hf_to_gguf.py: a head's rows of the two halves take turns in Llama, Gemma's norms
    are one more."""
    config = model.config
    for name, parameter in model.state_dict().items():
        array = parameter.numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if architecture == "llama" and part in name:
                halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
                array = halves.swapaxes(1, 2).reshape(array.shape)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            array = array + 1.0
        yield stored_name(architecture, name), np.ascontiguousarray(array)


def write(path, architecture, model, bpe, *, kind=None, without=(), more=(), tensors=()):
    """kind: what matrices are quantised to; more: (key, value) pairs of the architecture."""
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    rope = config.rope_parameters
    theta = (rope.get("full_attention") or rope)["rope_theta"]
    given = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": theta,
    }
    if architecture == "gemma3":
        given["attention.sliding_window"] = config.sliding_window
    for key, value in {**{k: v for k, v in given.items() if k not in without}, **dict(more)}.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(f"{architecture}.{key}", value)
    vocabulary = sorted(bpe.get_vocab(), key=bpe.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in merges_of(bpe)])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_chat_template("{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}")
    for name, array in (*stored_tensors(architecture, model), *tensors):
        if kind is not None and array.ndim == 2:
            array = gguf.quantize(array, kind)
            writer.add_tensor(name, array, raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merges_of(bpe):
    return json.loads(bpe.to_str())["model"]["merges"]


def logits_agree(path, model):
    ours = load_language_model(path)
    tokens = np.random.default_rng(0).integers(4, 300, (2, 40))
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(tokens)).logits.numpy()
    got = forward(ours.config, ours.params, tokens, np.ones_like(tokens, bool)).logits
    np.testing.assert_allclose(got, theirs, atol=1e-4 * np.ptp(theirs))
    return ours


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", sorted(CLASSES))
def test_what_was_written_is_read(tmp_path, bpe, architecture, tied):
    tied = tied or architecture == "gemma3"
    windows = {"sliding_window": 8, "num_hidden_layers": 7} if architecture == "gemma3" else {}
    scale = {"query_pre_attn_scalar": 32} if architecture == "gemma3" else {}
    model = new_model(architecture, tie_word_embeddings=tied, **windows, **scale)
    ours = logits_agree(write(tmp_path / "model.gguf", architecture, model, bpe), model)
    assert ours.name == "model"
    assert ours.config.tie_word_embeddings == tied
    save_language_model(ours, tmp_path / "folder", "float32")
    again = load_language_model(tmp_path / "folder")
    for read, of_folder in zip(*(jax.tree.leaves(each.params) for each in (ours, again)), strict=True):
        np.testing.assert_array_equal(read, of_folder)
    assert again.tokenizer.encode_prompt(TEXTS[1]) == ours.tokenizer.encode_prompt(TEXTS[1])


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_tensors_are_those_that_the_package_gives(tmp_path, bpe, kind):
    kind, model = gguf.GGMLQuantizationType[kind], new_model("qwen2", tie_word_embeddings=True)
    ours = load_language_model(write(tmp_path / "model.gguf", "qwen2", model, bpe, kind=kind))
    weight = model.state_dict()["model.layers.1.mlp.up_proj.weight"].numpy()
    expected = gguf.dequantize(gguf.quantize(weight, kind), kind)
    assert not np.array_equal(expected, weight)
    np.testing.assert_array_equal(ours.params["layers"]["1"]["feed_forward"]["up"]["kernel"], expected.T)


def test_rows_are_put_back_where_the_optional_count_of_keys_is_left_out(tmp_path, bpe):
    model = new_model("llama", num_key_value_heads=4, tie_word_embeddings=False)
    path = write(tmp_path / "model.gguf", "llama", model, bpe, without=["attention.head_count_kv"])
    ours = logits_agree(path, model)
    assert ours.config.num_kv_heads == 4


def test_scalings_of_positions_are_taken_over(tmp_path, bpe):
    model = new_model("llama", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0})
    scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    logits_agree(write(tmp_path / "linear.gguf", "llama", model, bpe, more=scaling.items()), model)
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    model = new_model("llama", rope_parameters=rope)
    plain = 500000.0 ** -(np.arange(0, 32, 2, dtype=np.float32) / 32)
    divisors = plain / model.model.rotary_emb.inv_freq.numpy()
    tensors = [("rope_freqs.weight", divisors.astype(np.float32))]
    ours = logits_agree(write(tmp_path / "llama3.gguf", "llama", model, bpe, tensors=tensors), model)
    assert ours.config.rope.rope_type == "llama3"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"rope.scaling.type": "yarn"}, "llama.rope.scaling.type = 'yarn'"),
        ({"attention.scale": 0.5}, "llama.attention.scale = 0.5"),
        ({"expert_count": 8}, "llama.expert_count = 8 is not known"),
        ({"attention.value_length": 16}, "llama.attention.value_length = 16"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path, bpe, more, named):
    path = write(tmp_path / "model.gguf", "llama", new_model("llama"), bpe, more=more.items())
    with pytest.raises(UnsupportedModelError, match=named):
        load_language_model(path)


def test_other_frequencies_than_known_are_refused(tmp_path, bpe):
    tensors = [("rope_freqs.weight", np.linspace(1, 3, 16, dtype=np.float32))]
    path = write(tmp_path / "model.gguf", "llama", new_model("llama"), bpe, tensors=tensors)
    with pytest.raises(UnsupportedModelError, match="other frequencies"):
        load_language_model(path)


def test_text_is_split_as_the_file_says(tmp_path, bpe):
    model = load_language_model(write(tmp_path / "model.gguf", "llama", new_model("llama"), bpe))
    for text in TEXTS:
        assert model.tokenizer.encode(text) == bpe.encode(text).ids
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text
    assert model.tokenizer.eos_ids == (0,)
    assert model.tokenizer.encode_prompt("x") == bpe.encode("<|start|>x<|end|>").ids


def test_what_is_no_gguf_or_names_an_unknown_split_is_refused(tmp_path, bpe):
    path = write(tmp_path / "model.gguf", "llama", new_model("llama"), bpe)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], b"x" * 100, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="model.gguf: truncated or not GGUF"):
            load_language_model(path)
    path.write_bytes(whole.replace(b"smollm", b"cinema"))
    with pytest.raises(TokenizerError, match="tokenizer.ggml.pre = 'cinema' is not known"):
        load_language_model(path)
    with pytest.raises(CheckpointError, match="not found"):
        load_language_model(tmp_path / "none.gguf")


def test_the_command_makes_a_folder_of_the_same_model(tmp_path, bpe, capsys):
    path = write(tmp_path / "model.gguf", "qwen3", new_model("qwen3"), bpe)
    cli.convert([str(path), str(tmp_path / "folder")])
    ours, again = load_language_model(path), load_language_model(tmp_path / "folder")
    assert again.config == ours.config
    np.testing.assert_array_equal(again.params["token_embedding"], ours.params["token_embedding"])
    cli.convert([str(path), str(tmp_path / "half"), "--dtype=bfloat16"])
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    capsys.readouterr()
    for arguments, said in (
        ([str(path)], "usage: eagle-jax convert FILE.gguf FOLDER"),
        ([str(path), str(tmp_path / "folder")], "folder: is not empty; give a new folder"),
        ([str(tmp_path / "none.gguf"), str(tmp_path / "new")], "none.gguf: not found"),
        ([str(tmp_path), str(tmp_path / "new")], "not a .gguf file"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.convert(arguments)
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
