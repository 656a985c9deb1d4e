"""Every format from small files written by hand, and what is counted and what is refused."""

import csv
import json
from collections import Counter

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.preferences.dialogues import DialogueLayout
from eagle_jax.data.preferences.files import read_preferences

Q, A = "\n\nHuman: ", "\n\nAssistant:"


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    if name.endswith(".csv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path, rows, file_format, name="rows.jsonl", **options):
    """Examples as tuples, and (line, reason) of the bad rows."""
    examples, report = read_preferences(write(tmp_path, rows, name), file_format, **options)
    found = [(e.prompt, e.responses, e.scores, e.label) for e in examples]
    return found, [(row.line, row.reason) for row in report.bad_rows]


def turn(role, content):
    return {"role": role, "content": content}


def test_hh_rlhf_and_its_faults(tmp_path):
    start = f"{Q}Hi{A} Yes?{Q}Why?{A}"
    rows = [
        {"chosen": f"{start} Because.", "rejected": f"{start}  No.\n"},
        {"chosen": f"{start} Because.", "rejected": f"{Q}Ho{A} Yes?{Q}Why?{A} No."},
        {"chosen": f"{start} Because.", "rejected": f"{Q}Hi{A} No."},
        {"chosen": f"{Q}Hi, anyone?", "rejected": f"{Q}Hi{A} No."},
        {"chosen": f"Human: Hi{A} Yes.", "rejected": f"{Q}Hi{A} No."},
        {"chosen": f"{Q}Hi{A} Yes.", "rejected": f"{Q}Hi{A} No.{Q}Why?"},
        {"chosen": f"{Q}Hi{A} Yes.", "rejected": f"{Q}Hi{A} "},
        {"chosen": f"{Q}Hi{A} Yes.", "rejected": f"{Q}Hi{A} Yes."},
        {"chosen": f"{Q}Hi{A} Yes.", "rejected": None},
    ]
    examples, bad_rows = read(tmp_path, rows, "hh_rlhf")
    assert examples == [(start, (" Because.", "  No.\n"), None, (0, 1))]
    kinds = [(line, reason.partition(":")[0]) for line, reason in bad_rows]
    assert kinds == [
        (2, "dialogues differ before the last turn"),
        (3, "dialogues differ before the last turn"),
        (4, "dialogue without Assistant's turn"),
        (5, "dialogue does not begin with Human's turn"),
        (6, "dialogue ends with Human's turn"),
        (7, "empty response"),
        (8, "identical responses"),
        (9, "no text"),
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_trl_plain_explicit_and_implicit(tmp_path, name):
    rows = [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green.\n"},
        {"prompt": "", "chosen": "", "rejected": " green."},
    ]
    examples, bad_rows = read(tmp_path, rows, "trl", name)
    assert examples == [("The sky is", (" blue.", " green.\n"), None, (0, 1))]
    assert [reason for _, reason in bad_rows] == ["empty prompt"]
    rows = [
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": "The sky is gray.", "rejected": "The sky is green."},  # TRL cuts after "gr"
        {"chosen": "Yes.", "rejected": "No."},
        {"chosen": "The sky", "rejected": "The sky is green."},
        {"chosen": "[{'role': 'user'}]", "rejected": "[{'role': 'system'}]"},
    ]
    examples, bad_rows = read(tmp_path, rows, "trl", name)
    assert examples == [
        ("The sky is", (" blue.", " green."), None, (0, 1)),
        ("The sky is", (" gray.", " green."), None, (0, 1)),
    ]
    assert [reason.partition(":")[0] for _, reason in bad_rows] == [
        "no common prompt",
        "empty response",
        "turns written as text",
    ]


def test_trl_conversational_explicit_and_implicit(tmp_path):
    asked = [turn("system", "Be brief."), turn("user", "Sky?"), turn("assistant", "Up.")]
    asked.append(turn("user", "Color?"))
    blue, green = turn("assistant", "Blue."), turn("assistant", "Green.")
    explicit = {"prompt": asked, "chosen": [blue], "rejected": [green]}
    implicit = {"chosen": [*asked, blue], "rejected": [*asked, green]}
    rows = [explicit, implicit, implicit | {"prompt": "Color?"}]
    examples, bad_rows = read(tmp_path, rows, "trl")
    text = f"\n\nSystem: Be brief.{Q}Sky?{A} Up.{Q}Color?{A}"
    assert examples == [(text, (" Blue.", " Green."), None, (0, 1))] * 3 and bad_rows == []

    def bracketed(turns):
        return "".join(f"<{t['role']}>{t['content']}" for t in turns) + "<assistant>"

    layout = DialogueLayout(prompt=bracketed, reply_prefix="")
    examples, _ = read(tmp_path, rows, "trl", layout=layout)
    text = "<system>Be brief.<user>Sky?<assistant>Up.<user>Color?<assistant>"
    assert examples == [(text, ("Blue.", "Green."), None, (0, 1))] * 3


def test_faults_of_conversational_rows(tmp_path):
    user, blue, green = turn("user", "Q"), turn("assistant", "Blue."), turn("assistant", "Green.")
    good = {"prompt": [user], "chosen": [blue], "rejected": [green]}
    rows = [
        good,
        good | {"rejected": [green, user, green]},
        good | {"rejected": [user]},
        good | {"rejected": "Green."},
        good | {"rejected": []},
        good | {"rejected": [turn("assistant", " ")]},
        good | {"rejected": [turn("assistant", None)]},
        good | {"rejected": [{"content": "Green."}]},
        good | {"prompt": [turn("tool", "{}")]},
        good | {"tools": [{"name": "search"}], "chat_template_kwargs": None},
        good | {"prompt": [user, turn("assistant", "") | {"tool_calls": [{}]}, user]},
        good | {"prompt": [turn("user", f"Q{A} Yes.{Q}Why?")]},
        {"chosen": [user, blue], "rejected": [turn("user", "R"), green]},
        {"chosen": [user], "rejected": [user, green]},
    ]
    examples, bad_rows = read(tmp_path, rows, "trl")
    assert len(examples) == 1
    assert [(line, reason.partition(":")[0]) for line, reason in bad_rows] == [
        (2, "reply that is not one turn of the assistant"),
        (3, "reply that is not one turn of the assistant"),
        (4, "no turns"),
        (5, "no turns"),
        (6, "empty response"),
        (7, "no text"),
        (8, "turn without role and content"),
        (9, "unknown role"),
        (10, "arguments of a chat template, which are not read"),
        (11, "turn that calls tools, which are not read"),
        (12, "turn that holds the opening of another"),
        (13, "no common prompt"),
        (14, "empty response"),
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_tables_of_k_responses(tmp_path, name):
    columns = ["prompt"] + [f"{c}_{k}" for c in ("response", "score") for k in (1, 2, 3)]
    columns.append("label")
    values = [
        ("P1", " a", "b ", "c", 1, 2.5, -3, ""),
        ("P2", "a", "", "c", 1, "", 0, ""),  # K = 2
        ("P3", "a", "", "c", "", "", "", 3),
        ("P4", "a", "b", "c", "", "", "", 2),  # better than both; nothing of these two
        ("P5", "a", "b", "c", "", "", "", ""),  # for a rater
        ("P6", "a", "b", "c", 0, 1, 0, 2),
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in values]
    examples, bad_rows = read(tmp_path, rows, "table", name)
    assert examples == [
        ("P1", (" a", "b ", "c"), (1.0, 2.5, -3.0), None),
        ("P2", ("a", "c"), (1.0, 0.0), None),
        ("P3", ("a", "c"), None, (1, 0)),
        ("P4", ("a", "b", "c"), (0.0, 1.0, 0.0), None),
        ("P5", ("a", "b", "c"), None, None),
        ("P6", ("a", "b", "c"), (0.0, 1.0, 0.0), None),
    ]
    assert bad_rows == []
    _, report = read_preferences(tmp_path / name, "table")
    assert (report.num_responses, report.num_undecided) == (16, 1)
    for text in (f"{name}: 6 rows, 6 prompts with 16 responses, 1 of them", "no bad rows"):
        assert text in report.summary(3)


def test_faults_of_tables(tmp_path):
    good = {"prompt": "P", "response_1": "a", "response_2": "b", "response_3": "c"}
    scored = good | {"score_1": 1, "score_2": 2, "score_3": 3}
    rows = [
        good,
        good | {"response_2": "", "response_3": " "},
        good | {"response_2": "a", "response_3": "a"},
        good | {"prompt": ""},
        good | {"label": 4},
        good | {"label": True},
        good | {"label": 1.5},
        good | {"label": "a"},
        good | {"label": 2, "response_2": ""},
        scored | {"score_2": float("nan")},
        scored | {"score_2": "many"},
        scored | {"score_2": None},
        scored | {"response_2": None},
        scored | {"label": 2},
    ]
    examples, bad_rows = read(tmp_path, rows, "table")
    assert len(examples) == 1
    assert [(line, reason.partition(":")[0]) for line, reason in bad_rows] == [
        (2, "fewer than two responses"),
        (3, "identical responses"),
        (4, "empty prompt"),
        (5, "label out of range"),
        (6, "no number"),
        (7, "no whole number"),
        (8, "no number"),
        (9, "label out of range"),
        (10, "score that is not a finite number"),
        (11, "no number"),
        (12, "response without a score"),
        (13, "empty response"),
        (14, "label contradicts the scores"),
    ]


def test_tables_of_pairs_and_of_64_responses(tmp_path):
    pairs = [{"prompt": "P", "chosen": "a", "rejected": "b"}]
    assert read(tmp_path, pairs, "table", "rows.csv")[0] == [("P", ("a", "b"), None, (0, 1))]
    many = {"prompt": "P"} | {f"response_{k}": f"r{k}" for k in range(1, 65)}
    assert read(tmp_path, [many], "table", "rows.csv")[0][0][1] == tuple(list(many.values())[1:])


def test_a_parquet_table_by_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {
            "prompt": ["P1", "P2", "P3"],
            "response_1": ["a", "a", None],
            "response_2": ["b", "b", "b"],
            "label": [2, None, 1],  # pandas makes numbers with a decimal point of them
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    examples, report = read_preferences(tmp_path / "rows.parquet", "table")
    assert [(e.responses, e.label) for e in examples] == [(("a", "b"), (1, 0)), (("a", "b"), None)]
    assert [(row.line, row.reason) for row in report.bad_rows] == [(3, "label out of range: 1, the responses are [2]")]


UNPAIRED = {"prompt": "P", "completion": "a", "label": True}


@pytest.mark.parametrize(
    ("name", "rows", "file_format", "match"),
    [
        ("rows.jsonl", [UNPAIRED], "trl", "rows.jsonl: holds unpaired preferences.*chosen, rej"),
        ("rows.csv", [UNPAIRED], "trl", "rows.csv: holds unpaired preferences"),
        ("rows.jsonl", [UNPAIRED], "table", "rows.jsonl: holds unpaired preferences"),
        ("rows.csv", [{"prompt": "P", "response_1": "a"}], "table", "no column response_2"),
        ("rows.csv", [{"prompt": "P", "chosen": "a"}], "table", "no column rejected"),
        ("rows.csv", [{"history": "P", "labels": 1}], "shp", "no column post_id, human_ref_A"),
        (
            "rows.csv",
            [{"prompt": "P", "response_0": "a", "response_1": "b", "response_2": "c"}],
            "table",
            "rows.csv: response_0: responses are numbered from 1 to 64",
        ),
        (
            "rows.jsonl",
            [{"chosen": "a"}],
            "hh_rlhf",
            "no preference left of 1 rows; expected hh_rlhf .* the first: .*: no field rejected",
        ),
        (
            "rows.csv",
            [{"prompt": "P", "response_1": "poor", "response_2": "good", "label": k} for k in (1, 0)],
            "table",
            "rows.csv:3: label is 0, but responses are numbered from 1 .*: add 1 to every label",
        ),
        ("rows.jsonl", [], "trl", "rows.jsonl: no preference left of 0 rows; expected trl"),
        ("rows.jsonl", [], "dpo", "format 'dpo': expected one of hh_rlhf, shp, trl, table"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, name, rows, file_format, match):
    with pytest.raises(UserError, match=match):
        read_preferences(write(tmp_path, rows, name), file_format)


def test_bad_rows_of_the_file_and_of_the_format_stand_in_one_list_by_line(tmp_path):
    path = write(tmp_path, [{"chosen": "a b", "rejected": "a c"}])
    path.write_text(path.read_text() + '{"chosen": "a", "rejected": "a"}\n{\n' + path.read_text())
    examples, report = read_preferences(path, "trl")
    assert (report.num_rows, len(examples), report.num_examples) == (4, 2, 2)
    assert [row.line for row in report.bad_rows] == [2, 3]
    assert Counter(row.file for row in report.bad_rows) == {"rows.jsonl": 2}
