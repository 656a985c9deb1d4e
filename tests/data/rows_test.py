"""The same rows out of every kind of file, and what is wrong with files and rows."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from eagle_jax.base.errors import UserError
from eagle_jax.data.rows import read_row_file, text_value

ROWS = [{"a": " leading, and trailing ", "b": 'quote " and\nline'}, {"a": "é \u2028 \x0b ☃", "b": ""}]


def absent(names):
    return [name for name in ("a", "b") if name not in names]


def read(path):
    bad_rows = []
    rows = list(read_row_file(path, absent, "with the fields a, b", bad_rows))
    return rows, [(row.line, row.reason.partition(":")[0]) for row in bad_rows]


def json_lines(rows=ROWS, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def csv_text(end="\n", delimiter=","):
    quoted = [[value.replace('"', '""') for value in row.values()] for row in ROWS]
    return (f"a{delimiter}b{end}" + "".join(f'"{a}"{delimiter}"{b}"{end}' for a, b in quoted)).encode()


def write_packed(path, content):
    if path.suffix == ".zst":
        with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
            file.write(content)
    else:
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_text_files_plain_and_packed_with_mark_and_both_line_ends(tmp_path, kind, packed, end, mark):
    tables = {"csv": csv_text(end), "tsv": csv_text(end, "\t")}
    write_packed(tmp_path / f"rows.{kind}{packed}", mark + tables.get(kind, json_lines(end=end)))
    rows, bad_rows = read(tmp_path / f"rows.{kind}{packed}")
    assert [dict(row.values) for row in rows] == ROWS and bad_rows == []
    # Tables: a header, and a quoted line break in the first row.
    assert [row.line for row in rows] == ([2, 4] if kind in tables else [1, 2])


def test_parquet_is_read_in_batches(tmp_path):
    many = [row | {"n": n} for n in range(1500) for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(many), tmp_path / "rows.parquet")
    rows, bad_rows = read(tmp_path / "rows.parquet")
    assert [dict(row.values) for row in rows] == many and bad_rows == []
    assert [row.line for row in rows] == list(range(1, 3001))


def test_lines_that_are_no_object_are_counted_where_they_stand(tmp_path):
    good = b'{"a": "x", "b": "y"}'
    lines = [good, b"", b"not json", b"[1]", b'{"a": "x"}', good[:-1], b"  \r", b"[" * 99999, good]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))  # no line end after the last one
    rows, bad_rows = read(path)
    assert [row.line for row in rows] == [1, 9]
    no_object = "no JSON object"
    assert bad_rows == [(3, no_object), (4, no_object), (5, "no field b"), (6, no_object)] + [(8, no_object)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"3", "no text: a is 3"),
        (b"null", "no text: a is None"),
        (b'"\\ud83d"', "characters that are not Unicode: a"),  # half of an emoji
        (b'"\xff"', "characters that are not Unicode: a"),
    ],
)
def test_values_that_are_no_text(tmp_path, value, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": ' + value + b', "b": "\\ud83d\\ude00"}\n')
    (row,), _ = read(path)
    assert text_value(row.values, "b") == "😀"
    with pytest.raises(ValueError, match=reason):
        text_value(row.values, "a")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("rows.jsonl.gz", json_lines(), "rows.jsonl.gz: cannot be read .*[Nn]ot a gzipped file"),
        ("rows.jsonl.gz", gzip.compress(json_lines(), mtime=0)[:-9], "rows.jsonl.gz: cannot be read .*end"),
        ("rows.csv.gz", gzip.compress(csv_text(), mtime=0)[:-9], "rows.csv.gz: cannot be read .*end"),
        ("rows.csv.zst", csv_text(), "rows.csv.zst: cannot be read .*ZSTD"),
        ("rows.jsonl", None, "rows.jsonl: cannot be read .No such file.*fields a, b"),
        ("rows.parquet", None, "rows.parquet: cannot be read .*No such file.*fields a, b"),
        ("rows.parquet", b"PAR1 not", "rows.parquet: cannot be read .*expected a Parquet file"),
        ("rows.csv", b"a,c\n1,2\n", "rows.csv: line 1: no column b; .*it has: a, c"),
        ("rows.csv", b"a,b,a\n1,2,3\n", "rows.csv: line 1: column repeated: a in a, b, a"),
        ("rows.csv", b"", "rows.csv: empty; expected a header line with the fields a, b"),
        ("rows.txt", b"", "rows.txt: unknown kind of file; expected .jsonl, .json, .csv or .tsv"),
        ("rows.parquet.gz", b"", "rows.parquet.gz: unknown kind of file"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_what_was_expected(tmp_path, name, content, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=match):
        read(tmp_path / name)


@pytest.mark.parametrize("place", [10, -8], ids=["data", "checksum"])
def test_a_damaged_gz_is_no_short_file(tmp_path, place):
    content = bytearray(gzip.compress(json_lines(ROWS * 50), mtime=0))
    content[place] ^= 0xFF
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="rows.jsonl.gz: cannot be read"):
        read(path)


def test_a_parquet_table_without_a_column_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": ["x"], "c": ["y"]}), path)
    with pytest.raises(UserError, match=r"rows\.parquet: no column b; it has: a, c"):
        read(path)
