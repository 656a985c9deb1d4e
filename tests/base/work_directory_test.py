"""A stage's folder: round trips and refusals; `tests/stages/run_test.py` kills runs of stages."""

import json
import os

import numpy as np
import pytest

from eagle_jax.base.atomic_files import checksums
from eagle_jax.base.errors import CorruptArtifactError, StaleArtifactError
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder

SETTINGS = {"design": {"rank": 3, "tolerance": 1e-3}, "seeds": (0, 1)}


def make_stage(root, settings=SETTINGS, depends_on=()):
    return StageFolder(root / "design", settings, depends_on)


def finished_stage(root):
    stage = make_stage(root)
    stage.write_arrays("arrays.npz", {"a": np.arange(6, dtype=np.int32).reshape(2, 3)})
    stage.write_json("value.json", {"x": 0.1})
    stage.chunk(0, lambda: [1])
    stage.finish()
    return stage


def test_every_kind_of_file_comes_back_as_it_went_in(tmp_path):
    stage = make_stage(tmp_path)
    arrays = {
        "float": np.array([0.1, np.nan, -0.0], np.float32),
        "bool": np.array(True),
        "text": np.array(["ä", "bc"]),
        "empty": np.zeros((0, 4), np.int32),
    }
    rows = [{"title": "Amélie\nline \u2028 end", "n": 1}, {"n": None}]
    stage.write_arrays("a.npz", arrays)
    stage.write_json("deep/b.json", {"x": [1, 2.5, None], "y": "ß"})
    stage.write_jsonl("c.jsonl", iter(rows))
    read = stage.read_arrays("a.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert stage.read_json("deep/b.json") == {"x": [1, 2.5, None], "y": "ß"}
    assert stage.read_jsonl("c.jsonl") == rows


def test_nothing_is_created_before_the_first_write(tmp_path):
    stage = make_stage(tmp_path / "run")
    assert not stage.is_complete()
    assert not (tmp_path / "run").exists()


def test_complete_only_after_finish_and_in_another_process_too(tmp_path):
    stage = make_stage(tmp_path)
    stage.write_json("value.json", 1)
    assert not make_stage(tmp_path).is_complete()
    stage.finish()
    assert make_stage(tmp_path).is_complete()
    manifest = json.loads((stage.path / "MANIFEST.json").read_text())
    assert set(manifest["files"]) == {"SETTINGS.json", "value.json"}
    assert manifest["settings"]["seeds"] == [0, 1]
    assert manifest["digest"] == stage.digest
    assert manifest["provenance"]["packages"]["jax"]


def test_a_complete_stage_takes_no_more_writes(tmp_path):
    stage = finished_stage(tmp_path)
    with pytest.raises(RuntimeError, match="is complete"):
        stage.write_json("value.json", 2)
    assert stage.read_json("value.json") == {"x": 0.1}


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_by_name_and_nothing_changes(tmp_path, finished):
    stage = finished_stage(tmp_path) if finished else make_stage(tmp_path)
    if not finished:
        stage.chunk(0, lambda: [1])
    before = checksums(tmp_path)
    other = make_stage(tmp_path, {"design": {"rank": 4, "tolerance": 1e-3}, "extra": 1})
    for use in (other.is_complete, lambda: other.write_json("value.json", 2), other.finish):
        with pytest.raises(StaleArtifactError) as caught:
            use()
        assert "design.rank: 3 there, 4 now" in str(caught.value)
        assert "extra is only now" in str(caught.value)
        assert "seeds is only there" in str(caught.value)
        assert "tolerance" not in str(caught.value)
    with pytest.raises(StaleArtifactError):
        other.chunk(0, lambda: [2])
    assert checksums(tmp_path) == before


@settings
class Walk:
    length: int = setting("Steps.")
    width: int | None = setting("Of a step.", default=None, later=True)


def test_what_was_made_before_there_was_a_setting_is_that_of_its_default(tmp_path):
    before = StageFolder(tmp_path / "walk", {"walks": [{"length": 3}]})
    before.begin()
    before.finish()
    assert StageFolder(tmp_path / "walk", {"walks": (Walk(length=3),)}).is_complete()
    with pytest.raises(StaleArtifactError, match=r"walks"):
        StageFolder(tmp_path / "walk", {"walks": (Walk(length=3, width=2),)}).is_complete()


def test_a_change_upstream_shows_downstream(tmp_path):
    def make(rank):
        return StageFolder(tmp_path / "b", {}, [StageFolder(tmp_path / "a", {"rank": rank})])

    assert make(1).digest == make(1).digest != make(2).digest
    make(1).write_json("x.json", 1)
    with pytest.raises(StaleArtifactError, match="the stage 'a' that it reads differs"):
        make(2).is_complete()


@pytest.mark.parametrize("file", ["arrays.npz", "value.json", "parts/00000.json", "SETTINGS.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_to_any_file_of_a_complete_stage_is_refused(tmp_path, file, damage):
    path = finished_stage(tmp_path).path / file
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "truncate" else data[:-2] + b"~" + data[-1:])
    with pytest.raises(CorruptArtifactError, match=file if file != "SETTINGS.json" else "design"):
        make_stage(tmp_path).is_complete()


SHA256 = "0" * 64


@pytest.mark.parametrize(
    ("files", "said"),
    [
        *((files, "MANIFEST.json: files must be an object of files") for files in (None, [], "value.json", 3)),
        *(
            ({"value.json": entry}, "MANIFEST.json: files: 'value.json' must .* size and sha256")
            for entry in (
                None,
                7,
                [],
                {},
                {"size": 10},
                {"sha256": SHA256},
                {"size": True, "sha256": SHA256},
                {"size": "10", "sha256": SHA256},
                {"size": 10, "sha256": None},
            )
        ),
        *(
            ({name: {"size": 1, "sha256": SHA256}}, "MANIFEST.json: files: .* below the folder")
            for name in ("", ".", "../design/value.json", "/etc/hostname")
        ),
        *(({name: {"size": 1, "sha256": SHA256}}, "is missing; remove") for name in ("a\0b", "x" * 300, "parts")),
    ],
)
def test_a_manifest_that_nobody_wrote_is_refused_with_what_is_wrong(tmp_path, files, said):
    path = finished_stage(tmp_path).path / "MANIFEST.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files}))
    with pytest.raises(CorruptArtifactError, match=said):
        make_stage(tmp_path).is_complete()


@pytest.mark.parametrize("file", ["MANIFEST.json", "SETTINGS.json", "value.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "7", '{"files": {}'])
def test_json_of_another_form_is_refused_by_the_name_of_its_file(tmp_path, file, content):
    (finished_stage(tmp_path).path / file).write_text(content)
    with pytest.raises(CorruptArtifactError, match=file):
        make_stage(tmp_path).is_complete()


@pytest.mark.parametrize(
    ("change", "said"), [({"schema": "3"}, "schema"), ({"schema": 0}, "schema"), ({"depends_on": [1]}, "depends_on")]
)
def test_settings_that_nobody_wrote_are_refused(tmp_path, change, said):
    path = finished_stage(tmp_path).path / "SETTINGS.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptArtifactError, match=f"SETTINGS.json: .*{said} must be"):
        make_stage(tmp_path).is_complete()


@pytest.mark.parametrize("end", ["[" * 100_000, '{"a":' * 100_000, '{"a": 1'])
def test_json_that_cannot_be_read_is_refused_without_a_manifest_too(tmp_path, end):
    stage = make_stage(tmp_path)
    stage.chunk(0, lambda: 1)
    for file, content in (("a.json", end), ("b.jsonl", f"{{}}\n{end}\n"), ("parts/00000.json", end)):
        (stage.path / file).write_text(content)
    stage.write_arrays("c.npz", {"a": np.arange(1000)})
    arrays = (stage.path / "c.npz").read_bytes()
    (stage.path / "c.npz").write_bytes(arrays[:-4])
    for use, said in (
        (lambda: stage.read_json("a.json"), r"a\.json"),
        (lambda: stage.read_jsonl("b.jsonl"), r"b\.jsonl, line 2"),
        (lambda: stage.chunk(0, lambda: pytest.fail("not reached")), r"parts/00000\.json"),
        (lambda: stage.read_arrays("c.npz"), r"c\.npz"),
        (lambda: stage.read_json("d.json"), r"d\.json: .*missing"),
    ):
        with pytest.raises(CorruptArtifactError, match=said):
            use()


def test_objects_and_keys_are_not_pickled(tmp_path):
    stage = make_stage(tmp_path)
    with pytest.raises(TypeError, match="'bad'"):
        stage.write_arrays("a.npz", {"bad": np.array([{}])})
    with pytest.raises(TypeError, match="has no JSON form"):
        make_stage(tmp_path, {"f": print})


def test_a_folder_of_somebody_else_is_not_touched(tmp_path):
    (tmp_path / "design").mkdir()
    (tmp_path / "design" / "thesis.tex").write_text("...")
    with pytest.raises(CorruptArtifactError, match="thesis.tex"):
        make_stage(tmp_path).write_json("value.json", 1)
    assert os.listdir(tmp_path / "design") == ["thesis.tex"]


def test_chunks_are_computed_once_and_look_the_same_when_resumed(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"pair": (1, 2), 3: 0.1}

    first = make_stage(tmp_path).chunk(7, compute)
    second = make_stage(tmp_path).chunk(7, compute)
    assert first == second == {"pair": [1, 2], "3": 0.1}
    assert len(calls) == 1


def test_a_corrupt_chunk_is_refused_and_kept(tmp_path):
    stage = make_stage(tmp_path)
    stage.chunk(0, lambda: [1, 2])
    path = stage.path / "parts" / "00000.json"
    changed = path.read_text().replace("[1, 2]", "[1, 3]")
    path.write_text(changed)
    with pytest.raises(CorruptArtifactError, match="00000.json: .*checksum"):
        stage.chunk(0, lambda: [1, 2])
    assert path.read_text() == changed
