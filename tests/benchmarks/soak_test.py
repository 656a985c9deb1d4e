"""The soak's endpoint and its judgement of processes and files; the two hours are for a quiet machine."""

import pytest

from benchmarks.soak import Ended, Endpoint, different_files, page
from tests.language_model.remote.scripted_server import Asked, Reply
from tests.same_run import finished_files

FILM = " ".join(
    f"#BEGIN_{name} {text} #END_{name}"
    for name, text in (("PLOT", "a cat"), ("REASONS_TO_LIKE", "fur"), ("REASONS_TO_DISLIKE", "none"))
)


def asked(seed: int) -> Asked:
    prompt = f"{FILM} #BEGIN_ACTION make it a dog #END_ACTION"
    return Asked("/v1", {}, {"seed": seed, "messages": [{"role": "user", "content": prompt}]})


def test_every_request_is_answered_after_three_faults_at_most():
    endpoint, again = Endpoint(0.9, 0), Endpoint(0.9, 0)
    for seed in range(60):
        for times in range(8):
            reply = endpoint(asked(seed), times)
            assert repr(reply) == repr(again(asked(seed), times))  # drawn from the request and the seed
            is_final = isinstance(reply, Reply) and reply.status in (401, 429)
            if times % 4 == 3 and not is_final:
                assert "a cat make it a dog" in reply["choices"][0]["message"]["content"]
    assert len(endpoint.met) > 15  # kinds
    assert all(times >= 2 for times in endpoint.given.values())
    assert Endpoint(0.0, 0)(asked(1), 0)["usage"]["prompt_tokens"] == 100


@pytest.mark.parametrize(
    ("sent", "code", "told", "is_right"),
    [
        (None, 0, "", True),
        (None, 1, "ValueError", False),
        (None, -9, "", False),  # nobody of ours killed it
        (None, 2, "eagle.py: rewriter: http_401: wrong key", True),
        (None, 2, "Traceback, see the log: http_401", False),
        (None, 2, "eagle.py: disk full", False),
        ("SIGKILL", -9, "", True),
        ("SIGTERM", 143, "", True),
        ("SIGTERM", -15, "", True),
        ("SIGTERM", 1, "", False),
    ],
)
def test_how_a_process_may_end(sent, code, told, is_right):
    assert Ended(1, "design", 1.0, sent, code, told).is_right == is_right


def test_files_that_differ_are_named_and_times_are_none(tmp_path):
    for name, step in (("one", 1.0), ("two", 2.0)):
        folder = tmp_path / name / "stage"
        folder.mkdir(parents=True)
        (folder / "MANIFEST.json").write_text(name)
        (folder / "metrics.jsonl").write_text(f'{{"step": 1, "time/step": {step}}}\n')
        (folder / "value.json").write_text("1")

    expected = finished_files(tmp_path / "one")
    assert different_files(expected, tmp_path / "two") == []
    (tmp_path / "two" / "stage" / "value.json").write_text("2")
    (tmp_path / "two" / "stage" / "more.json").write_text("2")
    assert different_files(expected, tmp_path / "two") == ["stage/more.json", "stage/value.json"]


def test_the_page_counts_kills_by_stage_and_tells_what_went_wrong():
    run = {"run": 1, "starts": 3, "killed": 1, "terminated": 1, "refused": 0, "seconds": 90.0}
    run |= {"requests": 7, "paid_twice": 1, "different": ["a/b"], "num_files": 9}
    ended = [("design", "SIGKILL", -9, True), ("design", "SIGTERM", 1, False), ("report", None, 0, True)]
    processes = [
        dict(zip(("stage", "sent", "code", "is_right"), row, strict=True)) | {"run": 1, "told": "x"} for row in ended
    ]
    text = page({"python": "3"}, {"minutes": 2.0, "runs": [run], "processes": processes, "met": {"timeout": 4}})
    assert "2 minutes, 2 kills, 4 faults." in text
    assert "| 1 | 3 | 1 | 1 | 0 | 1.5 | 7 | 1 | a/b |" in text and "| design | 2 |" in text
    assert "should not: 1\n\n- run 1, design: code 1, x" in text
