"""Where replies begin: laws, TRL's own functions on what `datasets` writes, the real HH-RLHF."""

import gzip
import itertools
import json
import random
import re
from collections import Counter

import pytest

from eagle_jax.data.preferences.dialogues import (
    PLAIN_LAYOUT,
    split_at_common_prefix,
    split_at_common_turns,
    split_dialogue,
)
from eagle_jax.data.preferences.files import read_preferences

HH_FILES = {
    # file: rows, and bad rows by reason
    "harmless-base.test.jsonl.gz": (2312, {"dialogues differ before the last turn": 5, "empty response": 4}),
    "helpful-base.test.jsonl.gz": (
        2354,
        {"dialogues differ before the last turn": 9, "empty response": 4, "identical responses": 2},
    ),
}


def real_rows(path):
    with gzip.open(path, "rb") as file:
        return [json.loads(line) for line in file.read().split(b"\n") if line]


def random_texts(num_pairs, seed=0):
    """Pairs of short texts that share a beginning, which may end within a word."""
    draw = random.Random(seed)

    def text(length):
        return "".join(draw.choices("ab   \n.,é1", k=length))

    for _ in range(num_pairs):
        start = text(draw.randrange(1, 12))
        yield start + text(draw.randrange(8)), start + text(draw.randrange(8))


def check_cut(chosen, rejected):
    """The laws of a cut; returns whether TRL's, after the last common character, is in a word."""
    prompt, first, second = split_at_common_prefix(chosen, rejected)
    assert prompt + first == chosen and prompt + second == rejected
    in_word = bool(prompt) and prompt[-1].isalnum()
    assert not (in_word and (first[:1].isalnum() or second[:1].isalnum()))
    # Nothing but a word, or the space before it, could be added to the prompt.
    shared = len(prompt)
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    assert re.fullmatch(r" ?[^\W_]*", chosen[len(prompt) : shared])
    return shared > len(prompt) + (first[:1] == second[:1] == " ")


def test_a_prompt_ends_where_a_word_does():
    cuts = Counter(check_cut(*texts) for texts in random_texts(3000))
    assert min(cuts[True], cuts[False]) > 300


def test_implicit_prompts_are_trls_but_for_cuts_in_a_word():
    pytest.importorskip("trl")
    from trl.data_utils import extract_prompt

    compared = 0
    for chosen, rejected in random_texts(3000, seed=1):
        # TRL loses a character where one text goes on from the other, and wraps at the first.
        if chosen.startswith(rejected) or rejected.startswith(chosen) or chosen[0] != rejected[0]:
            continue
        theirs = extract_prompt({"chosen": chosen, "rejected": rejected})
        found = split_at_common_prefix(chosen, rejected)
        if check_cut(chosen, rejected):
            left_in_prompt = theirs["prompt"][len(found[0]) :]
            assert theirs["prompt"].startswith(found[0])
            assert re.fullmatch(r" ?[^\W_]+", left_in_prompt)
        else:
            assert found == (theirs["prompt"], theirs["chosen"], theirs["rejected"])
            compared += 1
    assert compared > 1000


def conversations(num_rows, seed=2):
    """Rows of turns that share a beginning of one to five turns."""
    draw = random.Random(seed)

    def turn(role):
        return {"role": role, "content": draw.choice(["Why?", "é ☃", "No\nidea.", "\u2028"])}

    for number in range(num_rows):
        turns = [turn(role) for role in (["user", "assistant"] * 3)[: draw.choice([1, 3, 5])]]
        turns[-1]["content"] += f" {number}"
        replies = draw.sample(["Yes.", " No.", "May be\n", "é"], 2)
        chosen, rejected = ([{"role": "assistant", "content": reply}] for reply in replies)
        yield {"prompt": turns, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize("kind", ["json", "parquet"])
@pytest.mark.parametrize("is_explicit", [True, False])
def test_conversations_that_datasets_writes_are_split_as_trl_splits_them(tmp_path, kind, is_explicit):
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl.data_utils import maybe_extract_prompt

    rows = list(conversations(50))
    if not is_explicit:
        rows = [{name: row["prompt"] + row[name] for name in ("chosen", "rejected")} for row in rows]
    path = tmp_path / f"rows.{kind}"
    getattr(datasets.Dataset.from_list(rows), f"to_{kind}")(path)
    examples, report = read_preferences(path, "trl")
    assert report.num_rows == 50 and report.bad_rows == ()
    openings = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
    for row, example in zip(rows, examples, strict=True):
        split = maybe_extract_prompt(row)
        texts = {name: "".join(openings[turn["role"]] + turn["content"] for turn in split[name]) for name in split}
        for name, response in zip(("chosen", "rejected"), example.responses, strict=True):
            assert example.prompt + response == texts["prompt"] + texts[name]
        if not is_explicit:
            turns, *_ = split_at_common_turns(row["chosen"], row["rejected"])
            assert turns == split["prompt"]


def test_a_dialogue_is_its_prompt_and_its_reply():
    draw = random.Random(3)
    for _ in range(300):
        turns = draw.choices(["\n\nHuman: Hi", "\n\nAssistant:  Yes\n", "\n\nAssistant:"], k=4)
        dialogue = "".join(["\n\nHuman: Q", *turns, "\n\nAssistant: A\n\nB"])
        prompt, reply = split_dialogue(dialogue)
        assert prompt + reply == dialogue and reply == " A\n\nB"
        assert prompt.endswith("\n\nAssistant:")


@pytest.mark.parametrize("name", HH_FILES)
def test_real_hh_rlhf(eagle_data, name):
    path = eagle_data / "hh-rlhf" / name
    num_rows, bad = HH_FILES[name]
    examples, report = read_preferences(path, "hh_rlhf")
    assert Counter(row.reason.partition(":")[0] for row in report.bad_rows) == bad
    assert report.num_rows == num_rows == report.num_examples + len(report.bad_rows)
    assert (report.num_examples, report.num_undecided) == (len(examples), 0)
    # An independent reading, and what it leaves out.
    rows, bad_lines = real_rows(path), set()
    for line, row in enumerate(rows, 1):
        (prompt, chosen), (other, rejected) = (
            re.fullmatch(r"(.*\n\nAssistant:)(.*?)", row[side], re.DOTALL).groups() for side in ("chosen", "rejected")
        )
        if prompt != other or chosen == rejected or not chosen.split() or not rejected.split():
            bad_lines.add(line)
    assert [row.line for row in report.bad_rows] == sorted(bad_lines)
    # Prompts and responses are the dialogues again.
    kept = [row for line, row in enumerate(rows, 1) if line not in bad_lines]
    for row, example in zip(kept, examples, strict=True):
        assert example.label == (0, 1) and example.scores is None
        assert example.prompt + example.responses[0] == row["chosen"]
        assert example.prompt + example.responses[1] == row["rejected"]
        assert example.prompt.endswith("\n\nAssistant:")


@pytest.mark.parametrize("name", HH_FILES)
def test_real_dialogues_as_trls_turns_are_the_same_examples(eagle_data, tmp_path, name):
    """HH-RLHF's text cut into turns and laid out again is the text."""
    path = eagle_data / "hh-rlhf" / name
    roles = {"Human": "user", "Assistant": "assistant"}

    def turns(dialogue):
        parts = re.split(r"\n\n(Human|Assistant): ?", dialogue)[1:]
        return [{"role": roles[who], "content": what} for who, what in zip(parts[::2], parts[1::2], strict=True)]

    def is_spaced_evenly(row):
        openings = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
        return all(
            "".join(openings[turn["role"]] + turn["content"] for turn in turns(text)) == text for text in row.values()
        )

    examples, report = read_preferences(path, "hh_rlhf")
    bad_lines = {row.line for row in report.bad_rows}
    good = [row for line, row in enumerate(real_rows(path), 1) if line not in bad_lines]
    same = [is_spaced_evenly(row) for row in good]
    assert sum(same) > 0.95 * len(same)
    rows = [{side: turns(row[side]) for side in row} for row in itertools.compress(good, same)]
    as_turns = tmp_path / "turns.jsonl"
    as_turns.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, report = read_preferences(as_turns, "trl", layout=PLAIN_LAYOUT)
    assert report.bad_rows == ()
    assert found == list(itertools.compress(examples, same))
