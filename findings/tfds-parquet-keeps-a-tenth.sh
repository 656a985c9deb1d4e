#!/usr/bin/env bash
# tensorflow-datasets 4.9.10 preparing a data set as Parquet (pyarrow 26.0.1, no TensorFlow): of 20,000 examples
# that a builder yields, a tenth is in the files, while dataset_info.json says 20,000. Preparing ends well. Of 100
# examples all are there; as array_record, the same builder keeps all.
#
# Guess: what was prepared is what the builder yielded, or preparing fails.
# Met while reading prepared folders without TensorFlow: counts of ratings did not fit what the info promised.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 pyarrow==26.0.1 \
  importlib_resources==7.1.0 array_record==0.8.6 numpy==2.4.6
cat >"$work/show.py" <<'PY'
import json
import pathlib
import sys

import numpy as np
import pyarrow.parquet as parquet
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader


class Plays(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    count = 0

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"user": np.int64}))

    def _split_generators(self, dl_manager):
        return {"train": ((number, {"user": number}) for number in range(self.count))}

    def _generate_examples(self):
        raise NotImplementedError


def prepared(count, file_format):
    Plays.count = count
    folder = pathlib.Path(sys.argv[1], f"{file_format}_{count}")
    builder = Plays(data_dir=folder, file_format=file_format)
    builder.download_and_prepare()
    (info,) = folder.rglob("dataset_info.json")
    told = sum(int(n) for n in json.loads(info.read_text())["splits"][0]["shardLengths"])
    if file_format == "parquet":
        there = sum(parquet.ParquetFile(file).metadata.num_rows for file in folder.rglob("*.parquet*"))
    else:
        there = sum(ArrayRecordReader(str(file)).num_records() for file in folder.rglob("*.array_record*"))
    return told, there


found = {(format_, count): prepared(count, format_) for format_ in ("parquet", "array_record") for count in (100, 20_000)}
for (format_, count), (told, there) in found.items():
    print(f"{format_}: {count} yielded, {told} promised by dataset_info.json, {there} in the files")
assert found["parquet", 100] == (100, 100)
assert found["array_record", 20_000] == (20_000, 20_000)
told, there = found["parquet", 20_000]
assert told == 20_000 and there < 10_000, "the Parquet writer keeps its rows now"
PY
"$work/env/bin/python" "$work/show.py" "$work/data" 2>"$work/said" || { tail -20 "$work/said"; exit 1; }
