"""What an evaluation has played is listed by gain, read back as it was, and refused where it is damaged."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.serving.played import PlayedEpisodes
from tests.eagle.evaluation.records import make_record

STEP = Step(action="sing – loudly", description="an aria", malformed=None)


@pytest.fixture
def records():
    gains = {"anchor": [0.0, 0.0], "EAGLE": [0.25, 0.75, -0.5]}
    return {
        row: [
            make_record([1.0, 1.0 + gain], [STEP], seed=7, entity_index=place, user_index=10 + place)
            for place, gain in enumerate(of_row)
        ]
        for row, of_row in gains.items()
    }


@pytest.fixture
def workdir(tmp_path, records):
    stage = StageFolder(tmp_path / "evaluation", {})
    lines = ({"row": row, "system": "x"} | one.to_json() for row, of_row in records.items() for one in of_row)
    stage.write_jsonl("records.jsonl", lines)
    stage.finish()
    return tmp_path


def test_each_row_has_its_episodes_by_gain_and_each_is_read_as_it_was_played(workdir, records):
    played = PlayedEpisodes(workdir)
    assert list(played.rows) == ["anchor", "EAGLE"]
    assert [(one.entity_index, one.user_index, one.gain) for one in played.rows["EAGLE"]] == [
        (1, 11, 0.75),
        (0, 10, 0.25),
        (2, 12, -0.5),
    ]
    assert [played.record("EAGLE", place) for place in range(3)] == [records["EAGLE"][n] for n in (1, 0, 2)]
    assert played.record("anchor", 1) == records["anchor"][1]


@pytest.mark.parametrize(
    ("row", "place", "said"), [("DPO", 0, "row=DPO: the evaluation has anchor, EAGLE"), ("EAGLE", 3, "0 to 2")]
)
def test_what_there_is_not_is_named(workdir, row, place, said):
    with pytest.raises(UserError, match=said):
        PlayedEpisodes(workdir).record(row, place)


def test_a_damaged_or_missing_evaluation_is_one_sentence(workdir, tmp_path):
    file = workdir / "evaluation" / "records.jsonl"
    file.write_bytes(file.read_bytes().replace(b"aria", b"Aria", 1))
    with pytest.raises(UserError, match=r"records.jsonl"):
        _ = PlayedEpisodes(workdir).rows
    with pytest.raises(UserError, match="its run is not finished|cannot be read"):
        _ = PlayedEpisodes(tmp_path / "nothing").rows
