"""Conversations of files as the policy's own chat template renders them, against TRL."""

import json
import random
from types import SimpleNamespace

import pytest

from eagle_jax.data.preferences.dialogues import dialogue_turns
from eagle_jax.data.preferences.examples import labelled_pair
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.real.conversations import end_of_prompt, end_of_turn
from eagle_jax.real.settings import PreferenceFiles
from eagle_jax.real.task import files_task, supervised_pairs
from eagle_jax.real.training.preference import PairBatches
from tests.language_model.small_checkpoints import write_tokenizer

START, EOS, TURN, USER, ASSISTANT = 1, 2, 95, 84, 85  # w80, w81
PLAIN = """\
{% for m in messages %}{% set names = {'user': 'w80', 'assistant': 'w81', 'system': 'w82'} %}\
{{ names[m.role] }} {{ m.content }} [EOS] {% endfor %}{% if add_generation_prompt %}w81 {% endif %}\
"""
# As Gemma's: the beginning token, turns that end otherwise than texts, no system turns.
TURNS = """\
{{ bos_token }}{% for m in messages %}\
{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}\
{{ 'w80' if m.role == 'user' else 'w81' }}
{{ m.content | trim }}[TURN]
{% endfor %}{% if add_generation_prompt %}w81
{% endif %}"""


@pytest.fixture(params=[PLAIN, TURNS], ids=["plain", "turns"])
def tokenizer(request, tmp_path):
    write_tokenizer(tmp_path, with_bos=True)
    backend = load_tokenizer(tmp_path).backend
    backend.add_special_tokens(["[TURN]"])
    backend.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": request.param}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [EOS, TURN]}))
    return load_tokenizer(tmp_path)


def conversations(has_system):
    """Rows of one to five turns and two replies, a prompt once for all."""
    draw = random.Random(0)

    def turn(role):
        return {"role": role, "content": " ".join(draw.choices([f"w{i}" for i in range(70)], k=5))}

    for _ in range(30):
        turns = [turn(role) for role in (["user", "assistant"] * 3)[: draw.choice([1, 3, 5])]]
        prompt = [turn("system"), *turns] if has_system else turns
        yield {"prompt": prompt, "chosen": [turn("assistant")], "rejected": [turn("assistant")]}


def read(tokenizer, tmp_path, rows, file_format="trl", max_tokens=64):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = PreferenceFiles(paths=(str(path),), file_format=file_format, test_fraction=0.1, max_prompts=None)
    return files_task(files, tokenizer, max_tokens, 0)


def encoded(tokenizer, task):
    """Prompt, chosen and rejected response of every pair, as training reads them."""
    pairs = [labelled_pair(e, e.label) for part in task.examples.values() for e in part]
    limits = SimpleNamespace(max_prompt_tokens=64, max_tokens=96)
    model = SimpleNamespace(tokenizer=tokenizer)
    rows = PairBatches(model, pairs, task.ending, limits, 0).rows
    return {
        (tuple(chosen.prompt), tuple(chosen.response), tuple(rejected.response))
        for chosen, rejected in zip(rows[::2], rows[1::2], strict=True)
    }


def test_conversations_are_tokens_as_in_trl(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    data_utils = pytest.importorskip("trl.data_utils")
    has_system = "no system" not in tokenizer.chat_template.templates["default"]
    rows = list(conversations(has_system))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = set()
    for row in rows:
        texts = data_utils.maybe_apply_chat_template(row, theirs)
        ids = [theirs(texts[name], add_special_tokens=False)["input_ids"] for name in row]
        expected.add(tuple(map(tuple, ids)))
    assert len(expected) == 30
    assert encoded(tokenizer, read(tokenizer, tmp_path, rows)) == expected


def test_dialogues_of_hh_rlhf_and_posts_are_turns_too(tokenizer, tmp_path):
    end = tokenizer.token_id(end_of_turn(tokenizer))
    start = [START] if end == TURN else []
    prompt = "\n\nHuman: w0\n\nAssistant: w1\n\nHuman: w2\n\nAssistant:"
    row = {"chosen": f"{prompt} w3", "rejected": f"{prompt} w4"}
    task = read(tokenizer, tmp_path, [row, row], "hh_rlhf")
    assert [e.responses for part in task.examples.values() for e in part] == [("w3", "w4")] * 2
    turns = [USER, 4, end, ASSISTANT, 5, end, USER, 6, end, ASSISTANT]
    assert encoded(tokenizer, task) == {((*start, *turns), (7, end), (8, end))}


def test_what_the_template_refuses_is_a_bad_row(tokenizer, tmp_path):
    system = next(conversations(True))
    task = read(tokenizer, tmp_path, [*conversations(False), system])
    refused = [fact for fact in task.facts if "its chat template fails" in str(fact["value"])]
    is_refused = end_of_turn(tokenizer) == "[TURN]"
    assert len(refused) == is_refused
    assert sum(map(len, task.examples.values())) == 31 - is_refused


def test_long_conversations_lose_their_oldest_turns_first(tokenizer):
    system = "" if end_of_turn(tokenizer) == "[TURN]" else "\n\nSystem: w9 w8"
    opening, end = "\n\nHuman: ", "\n\nAssistant:"
    prompt = f"{system}{opening}w0 w1{end} w2{opening}w3 w4 w5{end}"
    last = f"{system}{opening}w3 w4 w5{end}"
    least = len(tokenizer.encode_prompt(last))
    whole = len(tokenizer.encode_prompt(prompt))
    assert end_of_prompt(tokenizer, prompt, whole) == prompt
    for max_tokens in (whole - 1, least):
        assert end_of_prompt(tokenizer, prompt, max_tokens) == last
    assert end_of_prompt(tokenizer, prompt, least - 2) == f"{system}{opening}w5{end}"
    assert end_of_prompt(tokenizer, prompt, least - 3) is None
    # A text that is no dialogue is what the user says.
    least = len(tokenizer.encode_prompt("w3 w4 w5"))
    assert end_of_prompt(tokenizer, "w3 w4 w5", least - 1) == "w4 w5"
    assert end_of_prompt(tokenizer, "w3 w4 w5", least - 3) is None
    assert end_of_prompt(tokenizer, f"{end} w1{end}", 1) is None


def test_prompts_without_room_beside_the_template_are_counted_or_refused(tokenizer, tmp_path):
    rows = [{"prompt": f"w{i}", "chosen": " w1", "rejected": " w2"} for i in range(3)]
    least = len(tokenizer.encode_prompt("w0"))
    task = read(tokenizer, tmp_path, rows, max_tokens=least)
    assert sum(map(len, task.examples.values())) == 3
    with pytest.raises(ValueError, match=rf"max_prompt_tokens is {least - 1}, .*rows.jsonl"):
        read(tokenizer, tmp_path, rows, max_tokens=least - 1)
    pairs = supervised_pairs(task, None, tokenizer, 64, 0)
    assert all(target == f" w1{end_of_turn(tokenizer)}" for _, target in pairs)


def test_dialogues_are_their_turns_and_no_other_text_is_one():
    turns = [
        {"role": "system", "content": " a"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "b\n"},
        {"role": "user", "content": "Human: c"},
    ]
    text = "\n\nSystem:  a\n\nHuman: \n\nAssistant: b\n\n\nHuman: Human: c\n\nAssistant:"
    assert dialogue_turns(text) == turns
    for other in ("a", "", text[1:], text + " d", "\n\nAssistant", f"x{text}"):
        assert dialogue_turns(other) is None
