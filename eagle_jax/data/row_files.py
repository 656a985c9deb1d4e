"""Rows by name out of JSON lines, CSV and Parquet; a row that cannot be read is counted."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.base.errors import UserError
from eagle_jax.data.csv_rows import BadRow, NamedRow, bad_row, read_named_rows
from eagle_jax.data.text_files import open_text

# Names of a header or a row -> those that it lacks.
Absent = Callable[[Collection[str]], Sequence[str]]


def read_row_file(
    path: Path, absent: Absent, expected: str, bad_rows: list[BadRow]
) -> Iterator[NamedRow]:
    """Rows of .jsonl, .json (JSON lines, too), .csv, each also .gz, or .parquet, in their order.

    Blank lines of text hold no row. A line that is not UTF-8, is no JSON object or lacks a field
    goes to `bad_rows`. A row's line is that of its file, of Parquet its number from 1. Raises
    UserError for another ending, a file that cannot be read, and a table that lacks a column;
    `expected` ("with the fields ...") says in such an error what the file should have.
    """
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind == ".csv":
        return read_named_rows(path, absent, expected, bad_rows)
    if kind in (".jsonl", ".json"):
        return _read_json_lines(path, absent, expected, bad_rows)
    if path.suffix == ".parquet":
        return _read_parquet(path, absent, expected)
    raise UserError(
        f"{path}: unknown kind of file; expected .jsonl, .json or .csv (or one of them with .gz) "
        f"or .parquet, {expected}"
    )


def text_value(values: Mapping[str, Any], name: str) -> str:
    """The text of a field, as it stands; ValueError if it is none or cannot be encoded as UTF-8."""
    text = values[name]
    if not isinstance(text, str):
        raise ValueError(f"no text: {name} is {text!r:.40}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # undecodable bytes, or half of an escaped pair
        raise ValueError(f"characters that are not Unicode: {name}, {error.reason}") from error
    return text


def _read_json_lines(
    path: Path, absent: Absent, expected: str, bad_rows: list[BadRow]
) -> Iterator[NamedRow]:
    with open_text(path, f"lines of JSON objects {expected}") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                values = json.loads(text)
                if not isinstance(values, dict):
                    raise ValueError(f"no JSON object: {type(values).__name__}")
                if missing := absent(values):
                    raise ValueError(f"no field {', '.join(missing)}")
            except json.JSONDecodeError as error:
                bad_rows.append(bad_row(path, line, f"no JSON object: {error}", text))
            except RecursionError:
                bad_rows.append(bad_row(path, line, "no JSON object: nested too deep", text))
            except UserError:  # the whole file is another one; not a fault of this row
                raise
            except ValueError as error:
                bad_rows.append(bad_row(path, line, str(error), text))
            else:
                yield NamedRow(line, values, text)


def _read_parquet(path: Path, absent: Absent, expected: str) -> Iterator[NamedRow]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet needs the package pyarrow: pip install 'eagle_jax[parquet]'"
        ) from error
    num_read = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := absent(names):
                raise UserError(
                    f"{path}: no column {', '.join(missing)}; it has: {', '.join(names)}"
                )
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    num_read += 1
                    yield NamedRow(num_read, values, str(values))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read after {num_read} rows ({error}); expected a Parquet file "
            f"{expected}"
        ) from error
