"""Embeddings on disk: pieces of files and folders against the whole, and what is refused."""

import re

import numpy as np
import pytest

from eagle_jax.data.embedding_files import EmbeddingFileError, EmbeddingFiles
from eagle_jax.studies.catalogue_designs.synthetic import SyntheticEmbeddings, write_synthetic_embeddings


def draw(num_problems, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=(num_problems, 5, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pieces_of_a_file_are_those_of_the_array(tmp_path, dtype):
    rows = draw(10, dtype)
    np.save(tmp_path / "rows.npy", rows)
    files = EmbeddingFiles(tmp_path / "rows.npy")
    assert (files.num_problems, files.num_candidates, files.width) == (10, 5, 3)
    assert files.dtype == dtype
    for first, last in ((0, 10), (3, 4), (7, 10)):
        piece = files.read(first, last)
        assert piece.dtype == dtype
        np.testing.assert_array_equal(piece, rows[first:last])


def test_files_of_a_folder_follow_each_other_by_name_and_pieces_cross_them(tmp_path):
    rows = draw(9)
    for name, first, last in (("2", 4, 9), ("0", 0, 1), ("1", 1, 4)):
        np.save(tmp_path / f"{name}.npy", np.asfortranarray(rows[first:last]))
    (tmp_path / "README.txt").write_text("not an array")
    files = EmbeddingFiles(tmp_path)
    for first in range(9):
        for last in range(first + 1, 10):
            np.testing.assert_array_equal(files.read(first, last), rows[first:last])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ([], "holds no .npy file"),
        ([np.zeros((4, 3))], r"0\.npy: holds float64 \[4, 3\]; expected \[N, K, d\]"),
        ([np.zeros((0, 4, 3))], r"0\.npy: holds float64 \[0, 4, 3\]; expected .* at least 1 each"),
        ([np.zeros((2, 4, 3), np.int32)], r"holds int32 \[2, 4, 3\]; expected float16, float32 or"),
        ([np.zeros((2, 4, 3), ">f4")], r"holds >f4 \[2, 4, 3\]; expected .* byte order"),
        ([np.full((2, 4, 3), None)], r"holds object \[2, 4, 3\]; expected float16"),
        (
            [np.zeros((2, 4, 3)), np.zeros((2, 4, 3)), np.zeros((2, 5, 3))],
            r"2\.npy: holds float64 \[2, 5, 3\], but 0\.npy before it holds float64 \[2, 4, 3\]",
        ),
        ([np.zeros((2, 4, 3)), np.zeros((2, 4, 2))], r"1\.npy: .*all files need the same K, d"),
        ([np.zeros((2, 4, 3)), np.zeros((2, 4, 3), np.float32)], r"1\.npy: holds float32"),
    ],
)
def test_other_arrays_are_refused_with_file_and_shape(tmp_path, arrays, said):
    for index, array in enumerate(arrays):
        np.save(tmp_path / f"{index}.npy", array, allow_pickle=True)
    with pytest.raises(EmbeddingFileError, match=said):
        EmbeddingFiles(tmp_path)


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [
        (0, "is not a readable .npy file"),
        (50, "is not a readable .npy file"),
        (400, r"has 400 bytes where float32 \[10, 5, 3\] needs 728: it is truncated"),
    ],
)
def test_a_truncated_file_is_refused(tmp_path, num_bytes, said):
    path = tmp_path / "rows.npy"
    np.save(path, draw(10))
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(EmbeddingFileError, match=f"{re.escape(str(path))}: {said}"):
        EmbeddingFiles(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # of the header, which Python parses
def test_damaged_headers_are_refused_in_a_line_or_read_as_ever(tmp_path):
    """One to four of the header's bytes: NumPy raises tokenizer's, parser's and other errors at them."""
    path, rng, rows = tmp_path / "rows.npy", np.random.default_rng(0), draw(10)
    np.save(path, rows)
    sound = path.read_bytes()
    refused = 0
    for _ in range(600):
        damaged = bytearray(sound)
        for place in rng.integers(0, 128, rng.integers(1, 5)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            files = EmbeddingFiles(path)
        except EmbeddingFileError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
        else:
            assert files.read(0, files.num_problems).nbytes == rows.nbytes
    assert 400 < refused < 600


@pytest.mark.parametrize("shape", ["(-10, 5, 3)", "(4294967296, 4294967296, 3)", "(10, 5, 2)"])
def test_a_shape_that_the_file_does_not_hold_is_refused(tmp_path, shape):
    path = tmp_path / "rows.npy"
    np.save(path, draw(10))
    told = b"(10, 5, 3), }".ljust(len(shape) + 3)  # the header ends in spaces
    path.write_bytes(path.read_bytes().replace(told, f"{shape}, }}".encode()))
    with pytest.raises(EmbeddingFileError, match=re.escape(str(path))):
        EmbeddingFiles(path)


def test_synthetic_embeddings_are_what_their_settings_say(tmp_path):
    settings = SyntheticEmbeddings(
        seed=0,
        num_problems=1030,
        num_candidates=12,
        width=6,
        num_clusters=3,
        cluster_spread=1e-3,
        spectrum_exponent=0.5,
        mean_length=2.0,
    )
    write_synthetic_embeddings(tmp_path / "rows.npy", settings)
    rows = np.load(tmp_path / "rows.npy")
    assert (rows.shape, rows.dtype) == ((1030, 12, 6), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1.0, rtol=1e-6)
    # Three clusters of all but equal rows, about a mean that all problems share.
    num_distinct = [len(np.unique(np.round(problem, 1), axis=0)) for problem in rows[:20]]
    assert np.median(num_distinct) <= 5
    assert np.linalg.norm(rows.mean(axis=(0, 1))) > 0.7
    assert len(np.unique(rows[:, 0, 0])) > 1000

    smaller = SyntheticEmbeddings(**{**vars(settings), "num_problems": 5})
    write_synthetic_embeddings(tmp_path / "few.npy", smaller)
    np.testing.assert_array_equal(np.load(tmp_path / "few.npy"), rows[:5])
