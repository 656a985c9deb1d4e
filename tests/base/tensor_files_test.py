"""Tensors are read by name and by slice; whatever is wrong is named with file and tensor."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from eagle_jax.base.tensor_files import CheckpointError, TensorFiles, read_json

MATRIX = np.arange(24, dtype=np.float32).reshape(4, 6)


def write_sharded(folder, files):
    """{file: {name: tensor}} and the index that `transformers` would write."""
    for file, tensors in files.items():
        safetensors.numpy.save_file(tensors, folder / file)
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    write_index(folder, weight_map)


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_any_part_of_a_tensor_is_read_in_its_dtype(tmp_path, dtype):
    matrix = MATRIX.astype(dtype)
    safetensors.numpy.save_file({"a": matrix, "b": MATRIX[0]}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    assert sorted(files.names) == ["a", "b"]
    assert files.shape("a") == (4, 6)
    for index in (..., slice(1, 3), (slice(None), slice(2, 5)), (slice(3, 4), slice(0, 2, None))):
        part = files.read("a", index)
        assert part.dtype == dtype
        np.testing.assert_array_equal(part, matrix[index])


def test_the_index_says_where_a_tensor_is(tmp_path):
    write_sharded(tmp_path, {"one.safetensors": {"a": MATRIX}, "two.safetensors": {"b": -MATRIX}})
    files = TensorFiles(tmp_path)
    assert sorted(files.names) == ["a", "b"]
    assert files.file("b") == tmp_path / "two.safetensors"
    np.testing.assert_array_equal(files.read("b"), -MATRIX)


def test_another_stem_is_another_set_of_files(tmp_path):
    safetensors.numpy.save_file({"a": MATRIX}, tmp_path / "adapter_model.safetensors")
    np.testing.assert_array_equal(TensorFiles(tmp_path, "adapter_model").read("a"), MATRIX)
    with pytest.raises(CheckpointError, match="model.safetensors: not found"):
        TensorFiles(tmp_path)


def test_a_slice_does_not_read_the_rest(tmp_path):
    # 64 MiB on disk; what the process holds grows by the slice, not by the tensor.
    rows, width = 16384, 1024
    safetensors.numpy.save_file({"a": np.ones((rows, width), np.float32)}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    before = resident()
    part = files.read("a", slice(100, 108))
    assert part.shape == (8, width) and part.all()
    assert resident() - before < 16 << 20


def test_a_tensor_that_no_file_has_is_named_with_the_folder(tmp_path):
    safetensors.numpy.save_file({"a": MATRIX}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    for ask in (files.read, files.shape, files.file):
        with pytest.raises(CheckpointError, match=f"{tmp_path}: tensor b is missing"):
            ask("b")


def test_a_wrong_shape_is_named_with_both(tmp_path):
    safetensors.numpy.save_file({"a": MATRIX}, tmp_path / "model.safetensors")
    TensorFiles(tmp_path).check_shape("a", (4, 6))
    with pytest.raises(CheckpointError, match=r"model.safetensors: tensor a has shape \(4, 6\), .*says \(6, 4\)"):
        TensorFiles(tmp_path).check_shape("a", (6, 4))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, bool])
def test_other_dtypes_are_refused(tmp_path, dtype):
    safetensors.numpy.save_file({"a": MATRIX.astype(dtype)}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    assert files.shape("a") == (4, 6)
    with pytest.raises(CheckpointError, match="model.safetensors: tensor a is .*readable are F32"):
        files.read("a")


def test_an_index_that_does_not_match_its_files_is_refused(tmp_path):
    write_sharded(tmp_path, {"one.safetensors": {"a": MATRIX}})
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    files = TensorFiles(tmp_path)
    np.testing.assert_array_equal(files.read("a"), MATRIX)
    with pytest.raises(CheckpointError, match="one.safetensors: tensor b is missing, though"):
        files.read("b")
    with pytest.raises(CheckpointError, match="two.safetensors: not found"):
        files.read("c")


@pytest.mark.parametrize("file", ["../one.safetensors", "a/../../b", "/etc/passwd", 3, None])
def test_an_index_may_not_lead_out_of_its_folder(tmp_path, file):
    write_index(tmp_path, {"a": file})
    with pytest.raises(CheckpointError, match="index.json: tensor a is in .*outside the folder"):
        TensorFiles(tmp_path)


def test_links_as_in_the_cache_of_hugging_face_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    safetensors.numpy.save_file({"a": MATRIX}, tmp_path / "blobs" / "8f3a")
    (snapshot / "one.safetensors").symlink_to("../blobs/8f3a")
    write_index(snapshot, {"a": "one.safetensors"})
    np.testing.assert_array_equal(TensorFiles(snapshot).read("a"), MATRIX)


def test_an_index_without_a_weight_map_is_refused(tmp_path):
    for text, message in (("{}", "has no weight_map"), ("[", "not JSON"), ("[]", "found list")):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=f"index.json: .*{message}"):
            TensorFiles(tmp_path)


def test_a_git_lfs_pointer_is_recognised_also_behind_an_index(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:x\nsize 3\n"
    (tmp_path / "one.safetensors").write_text(pointer)
    write_index(tmp_path, {"a": "one.safetensors"})
    with pytest.raises(CheckpointError, match="one.safetensors: is a git LFS pointer"):
        TensorFiles(tmp_path).read("a")
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "one.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.safetensors: is a git LFS pointer"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 60, -10])
def test_a_truncated_file_is_recognised(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": MATRIX}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="model.safetensors: truncated"):
        TensorFiles(tmp_path)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="config.json: not found"):
        read_json(tmp_path / "config.json")
