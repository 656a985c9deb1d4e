"""Pairs of comments on posts, gathered into K comments per post."""

import json

import pytest

from eagle_jax.data.preferences.examples import known_label
from eagle_jax.data.preferences.files import read_preferences

SCORES = {"red": 5, "green": 9, "blue": 5, "black": -2}


def pair(post, a, b, **changes):
    fields = {"post_id": post, "domain": "askcolor_train", "history": f"Post {post}?"}
    fields |= {"human_ref_A": a, "human_ref_B": b, "score_A": SCORES[a], "score_B": SCORES[b]}
    fields["labels"] = int(SCORES[a] > SCORES[b])
    return fields | changes


def read(tmp_path, rows):
    path = tmp_path / "train.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_preferences(path, "shp")


def test_rows_of_a_post_become_one_example(tmp_path):
    rows = [
        pair("p", "red", "green"),
        pair("q", "green", "black"),
        pair("p", "black", "green"),
        pair("p", "blue", "green", history="Another post?"),  # not this prompt
        pair("p", "blue", "black"),
    ]
    examples, report = read(tmp_path, rows)
    assert [(e.prompt, e.responses, e.scores, e.label) for e in examples] == [
        ("\n\nHuman: Post p?\n\nAssistant:", (" red", " green", " black", " blue"), (5.0, 9.0, -2.0, 5.0), None),
        ("\n\nHuman: Post q?\n\nAssistant:", (" green", " black"), (9.0, -2.0), (0, 1)),
        ("\n\nHuman: Another post?\n\nAssistant:", (" blue", " green"), (5.0, 9.0), (1, 0)),
    ]
    assert (report.num_rows, report.num_examples, report.num_responses) == (5, 3, 8)


def test_every_row_is_found_again_with_its_label(tmp_path):
    names = sorted(SCORES)
    rows = [
        pair(post, a, b)
        for post in "pqr"
        for a in names
        for b in names
        if SCORES[a] != SCORES[b] and (post != "r" or {a, b} == {"red", "green"})
    ]
    examples, report = read(tmp_path, rows)
    assert len(examples) == 3 and report.bad_rows == ()
    of_prompt = {example.prompt: example for example in examples}
    for row in rows:
        example = of_prompt[f"\n\nHuman: {row['history']}\n\nAssistant:"]
        a, b = (example.responses.index(" " + row[f"human_ref_{side}"]) for side in "AB")
        # labels: 1 says that A is preferred
        assert known_label(example, a, b) == ((a, b) if row["labels"] == 1 else (b, a))


def test_faults(tmp_path):
    good = pair("p", "red", "green")
    rows = [
        good,
        pair("p", "red", "black", score_A=6),
        pair("p", "green", "black", labels=0),
        good | {"labels": 2},
        good | {"labels": None},
        good | {"score_A": float("nan"), "post_id": "n"},
        good | {"score_B": "nine"},
        good | {"human_ref_A": "", "post_id": "n"},
        good | {"human_ref_A": "green", "score_A": 9, "post_id": "n"},
        good | {"history": 3},
        {name: value for name, value in good.items() if name != "post_id"},
    ]
    examples, report = read(tmp_path, rows)
    assert [example.responses for example in examples] == [(" red", " green")]
    assert examples[0].label == (1, 0)
    assert [(row.line, row.reason.partition(":")[0]) for row in report.bad_rows] == [
        (2, "score differs from an earlier row's"),
        (3, "label contradicts the scores"),
        (4, "label out of range"),
        (5, "no number"),
        (6, "score that is not a finite number"),
        (7, "no number"),
        (8, "empty response"),
        (9, "identical responses"),
        (10, "no text"),
        (11, "no field post_id"),
    ]


@pytest.mark.parametrize("num_comments", [64, 65])
def test_a_post_may_have_64_comments(tmp_path, num_comments):
    fields = {"history": "Q", "human_ref_B": "first", "score_B": 0, "labels": 1}
    rows = [fields | {"post_id": "p", "human_ref_A": f"c{k}", "score_A": k} for k in range(1, num_comments)]
    rows.append(fields | {"post_id": "q", "human_ref_A": "other", "score_A": 1})
    examples, report = read(tmp_path, rows)
    if num_comments == 64:
        assert len(examples[0].responses) == 64 and report.bad_rows == ()
    else:
        assert len(examples) == 1
        assert {row.reason for row in report.bad_rows} == {"more than 64 responses: 65"}
        assert [row.line for row in report.bad_rows] == list(range(1, 65))
