"""Examples of a data set that TFDS has prepared (https://www.tensorflow.org/datasets), without TensorFlow.

TFDS' own `as_data_source` takes milliseconds to decode an example, refuses TFRecord, and believes a file that lacks
examples. Here a record is parsed as the `tf.train.Example` that it is in every format, and all of them are counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow import parquet

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import TEXT_SHOWN, Appendable, bad_row
from eagle_jax.data.readers.blocks import ColumnBlock, WantedColumns
from eagle_jax.data.readers.json_columns import json_cell
from eagle_jax.data.rows import Absent, FileRow

_BLOCK_ROWS = 1 << 14
INSTALL = "pip install tensorflow-datasets"


def is_prepared(path: Path) -> bool:
    """Whether a folder is one that TFDS writes, `<name>/<config>/<version>`."""
    return (path / "dataset_info.json").is_file()


def prepared_rows(path: Path, absent: Absent, expected: str, bad_rows: Appendable) -> Iterator[FileRow]:
    """The examples of all splits, as `read_row_file` gives the rows of a file; `line` counts them from 1.

    Features in others are called `outer/inner`, labels by their names, lists of labels, texts or numbers are lists.
    Raises UserError for a folder that cannot be read, has other formats than array_record, Parquet and TFRecord, or
    not as many examples as its dataset_info.json says.
    """
    data = _Prepared.opened(path, expected)
    data.refuse(absent(data.cells))
    for number, values in data.rows(list(data.cells), lambda value, name: value, bad_rows):
        yield FileRow(number, values, "")


def prepared_columns(path: Path, wanted: WantedColumns, expected: str, bad_rows: Appendable) -> Iterator[ColumnBlock]:
    """The same by blocks of columns, as `read_columns` gives those of a file; raises what `prepared_rows` does."""
    data = _Prepared.opened(path, expected)
    names = list(dict.fromkeys([*wanted.text, *wanted.numbers]))
    data.refuse([name for name in names if name not in data.cells])
    lines: list[int] = []
    rows: list[dict[str, str]] = []

    def block() -> ColumnBlock:
        shown = [",".join(row.values()) for row in rows]
        return wanted.block_of_cells(lines, lambda name: [row[name] for row in rows], shown)

    for number, row in data.rows(names, json_cell, bad_rows):
        rows.append(row)
        lines.append(number)
        if len(rows) == _BLOCK_ROWS:
            yield block()
            lines, rows = [], []
    if rows:
        yield block()


class _Prepared(NamedTuple):
    """A prepared folder: its splits, and how the value of each feature is read."""

    path: Path
    file_format: str
    splits: Mapping[str, Any]  # of TFDS: files and how many examples each has
    cells: Mapping[str, Callable[[Any], Any]]  # of a list of stored values, for features that are no pictures and so on
    parse: Callable[[bytes], Any]

    @classmethod
    def opened(cls, path: Path, expected: str) -> _Prepared:
        try:
            import tensorflow_datasets as tfds
            from tensorflow_datasets.proto import tf_example_pb2
        except ModuleNotFoundError as error:
            raise UserError(f"{path}: reading what TFDS prepared needs {error.name}: {INSTALL}") from error
        try:
            info = tfds.builder_from_directory(path).info
            features = _flattened(info.features, "")
            splits, file_format = dict(info.splits), info.file_format.value
        except Exception as error:  # TFDS raises whatever the parts do that read its JSON
            raise UserError(
                f"{path}: no data set that TFDS has prepared ({str(error).splitlines()[0]:.200}); "
                f"expected one {expected}; prepare it again"
            ) from error
        cells = {name: _cell_of(feature, tfds.features) for name, feature in features.items()}
        cells = {name: cell for name, cell in cells.items() if cell}
        return cls(path, file_format, splits, cells, tf_example_pb2.Example.FromString)

    def refuse(self, missing: Sequence[str]) -> None:
        if missing:
            raise UserError(
                f"{self.path}: no feature {', '.join(missing)} that is text, number, label or a list of one of these; "
                f"such are: {', '.join(self.cells)}"
            )

    def records(self) -> Iterator[bytes]:
        """Those of all splits and files; UserError where a file has another number of them than it should."""
        read = _FORMATS.get(self.file_format)
        if read is None:
            raise UserError(
                f"{self.path}: its format is {self.file_format}, which only TensorFlow reads; prepare it again with "
                "tfds.builder(..., file_format='array_record')"
            )
        for split in self.splits.values():
            for file, promised in zip(split.filepaths, split.shard_lengths, strict=True):
                there = 0
                try:
                    for record in read(Path(file)):
                        there += 1
                        yield record
                except (OSError, ValueError, RuntimeError) as error:
                    raise UserError(f"{file}: cannot be read after {there} examples ({error})") from error
                if there != promised:
                    raise UserError(
                        f"{file}: {there} examples, where dataset_info.json promises {promised}: prepare it again "
                        "with file_format='array_record' (TFDS 4.9.10 loses examples as it writes Parquet)"
                    )

    def rows(
        self, names: Sequence[str], told: Callable[[Any, str], Any], bad_rows: Appendable
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and told(value, name) of each feature, of the records that are examples and can be told."""
        for number, record in enumerate(self.records(), 1):
            try:
                values = {name: told(value, name) for name, value in self.values(record, names).items()}
            except ValueError as error:
                bad_rows.append(bad_row(self.path, number, str(error), repr(record)[:TEXT_SHOWN]))
                continue
            yield number, values

    def values(self, record: bytes, names: Sequence[str]) -> dict[str, Any]:
        """Of a record's features, None for one that it lacks; ValueError where it is no example."""
        try:
            stored = self.parse(record).features.feature
        except Exception as error:  # protobuf's DecodeError is of its implementation
            raise ValueError(f"no tf.train.Example: {error}") from error
        found = {}
        for name in names:
            kind = stored[name].WhichOneof("kind") if name in stored else None
            found[name] = self.cells[name](getattr(stored[name], kind).value) if kind else None
        return found


def _flattened(features: Any, prefix: str) -> dict[str, Any]:
    """Features by the names under which they are stored."""
    found = {}
    for name, feature in features.items():
        inner = hasattr(feature, "items") and not hasattr(feature, "feature")
        found |= _flattened(feature, f"{prefix}{name}/") if inner else {f"{prefix}{name}": feature}
    return found


def _cell_of(feature: Any, kinds: Any) -> Callable[[Any], Any] | None:
    """How a feature's stored values become a cell; None for pictures, tensors and the like."""
    if isinstance(feature, kinds.Sequence):
        one = None if isinstance(feature.feature, kinds.FeaturesDict) else _cell_of(feature.feature, kinds)
        return one and (lambda values: [one([value]) for value in values])
    if feature.shape != ():
        return None
    if isinstance(feature, kinds.ClassLabel):
        return lambda values: feature.int2str(values[0]) if values and values[0] >= 0 else None
    kind = np.dtype(feature.np_dtype)
    if kind.kind == "b":
        return lambda values: bool(values[0]) if values else None
    if kind == np.float32:  # 4.1, not 4.0999999046
        return lambda values: float(str(np.float32(values[0]))) if values else None
    return lambda values: _told(values[0]) if values else None


def _told(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {value!r:.40}") from error


def _array_record(path: Path) -> Iterator[bytes]:
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(str(path))
    try:
        number = reader.num_records()
        for start in range(0, number, _BLOCK_ROWS):
            yield from reader.read(start, min(start + _BLOCK_ROWS, number))
    finally:
        reader.close()


def _parquet(path: Path) -> Iterator[bytes]:
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BLOCK_ROWS):
            yield from batch.column(0).to_pylist()


def _tfrecord(path: Path) -> Iterator[bytes]:
    """Records as their length (8 bytes) and its checksum (4), themselves and their checksum (4)."""
    with path.open("rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else -1
            record = file.read(length + 4) if 0 <= length < path.stat().st_size else b""
            if len(record) != length + 4:
                raise ValueError("it is cut")
            yield record[:-4]


_FORMATS = {"array_record": _array_record, "parquet": _parquet, "tfrecord": _tfrecord}
