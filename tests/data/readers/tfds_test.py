"""Data sets that TFDS itself prepares are the catalogues that the same rows give as JSON lines."""

import importlib.resources.abc
import json
import shutil
import sys

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.data.prompts import MOVIE
from eagle_jax.data.readers.files import OwnFiles, read_own_files
from eagle_jax.data.readers.tfds import PreparedSets, read_prepared_sets
from eagle_jax.data.sources import fingerprint
from tests.data.readers.shop import CATEGORIES, draw_shop, files_of_shop, write_rows

tfds = pytest.importorskip("tensorflow_datasets")
TEXT = "{description} Kind: {category}. [Is {about/state}. ][Tags: {tags}. ]Price: {price}. {new}"


def builder_of(called, kinds, rows):
    """A builder of TFDS, of which nothing is known here but its features and rows."""

    class Made(tfds.core.GeneratorBasedBuilder):
        name, __module__ = called, "made"  # TFDS would look for the folder of a package
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds))

        def _split_generators(self, _):
            half = len(rows) // 2
            return {"train": self._generate_examples(rows[:half]), "test": self._generate_examples(rows[half:])}

        def _generate_examples(self, rows):
            yield from ((number, row) for number, row in enumerate(rows))

    return Made


@pytest.fixture(scope="module")
def shop():
    """Products with a nested feature, a list of labels, a truth and a picture beside them; ratings."""
    products, ratings = draw_shop(num_products=30, num_users=20, ratings_per_user=6)
    for number, product in enumerate(products):
        product |= {
            "about": {"state": "old" if number % 3 else ""},
            "tags": ["a", "b"][: number % 3],
            "new": number > 5,
        }
    return products, ratings


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, shop):
    """Where TFDS has prepared `shop_items` (as Parquet, of at most 100 examples) and `shop_ratings`."""
    folder, text = tmp_path_factory.mktemp("prepared"), tfds.features.Text()
    products, ratings = shop
    kinds = {"sku": np.int64, "name": text, "category": tfds.features.ClassLabel(names=CATEGORIES), "description": text}
    kinds |= {"price": np.float32, "about": {"state": text}, "new": np.bool_}
    kinds |= {"tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b"]))}
    kinds |= {"picture": tfds.features.Tensor(shape=(2, 2), dtype=np.uint8)}
    products = [product | {"picture": np.zeros((2, 2), np.uint8)} for product in products]
    builder_of("shop_items", kinds, products)(data_dir=folder, file_format="parquet").download_and_prepare()
    kinds = {"customer": text, "sku": np.int64, "stars": np.int64, "day": text}
    builder_of("shop_ratings", kinds, ratings)(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def read(data_dir, **changes):
    files = files_of_shop("shop_items", "shop_ratings", text=TEXT, **changes)
    return read_prepared_sets(to_settings(PreparedSets, {"data_dir": str(data_dir), "files": files}, "tfds"))


def copied(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "shop_ratings" / "1.0.0"


def as_tfrecord(folder):
    """Its array_record files as TFRecord, by TensorBoard's writer."""
    from array_record.python import array_record_module

    for path in list(folder.glob("*array_record*")):
        reader = array_record_module.ArrayRecordReader(str(path))
        writer = RecordWriter(str(folder / path.name.replace("array_record", "tfrecord")))
        for record in reader.read_all():
            writer.write(record)
        writer.close()
        path.unlink()
    change_info(folder, lambda info: info | {"fileFormat": "tfrecord"})


def change_info(folder, change):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.fixture(scope="module")
def by_json(tmp_path_factory, shop):
    """The same shop from JSON lines; a picture is nothing that they have."""
    folder = tmp_path_factory.mktemp("json")
    products = [product | {"about/state": product["about"]["state"]} for product in shop[0]]
    for product in products:
        del product["about"]
    write_rows(folder / "products.jsonl", products)
    write_rows(folder / "ratings.jsonl", shop[1])
    files = files_of_shop(folder / "products.jsonl", folder / "ratings.jsonl", text=TEXT)
    return read_own_files(to_settings(OwnFiles, files, "files"))[0]


def content(catalogue):
    """Without the order, which TFDS shuffles."""
    table = catalogue.ratings
    names = [table.user_names[user] for user in table.user_index], [table.item_names[item] for item in table.item_index]
    entities = {(entity.entity_id, entity.title, entity.description) for entity in catalogue.entities}
    return entities, set(zip(*names, table.rating.tolist(), strict=True))


@pytest.mark.parametrize("ratings_format", ["array_record", "tfrecord"])
def test_what_tfds_prepared_is_what_the_same_rows_are_as_json(data_dir, by_json, tmp_path, ratings_format):
    if ratings_format == "tfrecord":
        data_dir, folder = copied(data_dir, tmp_path)
        as_tfrecord(folder)
    catalogue, report = read(data_dir)
    assert not report.bad_rows and not report.doubtful and catalogue.name == "shop_items"
    assert content(catalogue) == content(by_json)
    assert fingerprint(catalogue) == fingerprint(read(data_dir)[0])


def test_rows_of_ratings_may_tell_the_items_as_well(data_dir):
    files = {"items": "shop_ratings", "ratings": "shop_ratings", "title": "", "text": "Bought on {day}."}
    sets = {"data_dir": str(data_dir), "files": files_of_shop("", "", **files)}
    with pytest.raises(UserError, match="no feature  that is text"):
        read_prepared_sets(to_settings(PreparedSets, sets, "tfds"))
    sets["files"]["title"] = "sku"
    catalogue, report = read_prepared_sets(to_settings(PreparedSets, sets, "tfds"))
    assert not report.bad_rows and report.num_items == len({*catalogue.ratings.item_names})


def test_movielens_as_tfds_has_it(tmp_path, monkeypatch):
    films = [
        {"movie_id": b"7", "movie_title": "Heat (1995)", "movie_genres": [1, 5]},
        {"movie_id": b"9", "movie_title": "Up (2009)", "movie_genres": []},
    ]
    person = {"bucketized_user_age": 18.0, "raw_user_age": 20.0, "user_gender": True, "user_occupation_label": 3}
    person |= {"user_occupation_text": "artist", "user_zip_code": "1"}
    rated = [("u1", 0, 4.0, 10), ("u1", 1, 2.0, 11), ("u2", 0, 5.0, 12), ("u2", 0, 1.0, 13)]
    rows = {
        "100k-movies": films,
        "100k-ratings": [
            films[film] | person | {"user_id": user, "user_rating": stars, "timestamp": when}
            for user, film, stars, when in rated
        ],
    }
    # TFDS 4.9.10 imports it for builders that come with a package, and does not ask for it.
    monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)
    real = tfds.structured.Movielens
    for config, examples in rows.items():
        monkeypatch.setattr(real, "_split_generators", lambda self, _, e=examples: {"train": iter(enumerate(e))})
        real(config=config, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    sets = to_settings(PreparedSets, {"data_dir": str(tmp_path), "movielens": "100k"}, "tfds")
    catalogue, report = read_prepared_sets(sets)
    heat = {entity.title: entity for entity in catalogue.entities}["Heat (1995)"]
    names = real(config="100k-movies", data_dir=tmp_path).info.features["movie_genres"].feature.names
    assert heat.fields["movie_genres"] == f"{names[1]}, {names[5]}"
    assert catalogue.entity_format == MOVIE and f"Heat (1995). Genres: {names[1]}" in heat.description
    assert content(catalogue)[1] == {("u1", "7", 4.0), ("u1", "9", 2.0), ("u2", "7", 1.0)}
    assert [str(row).startswith("100k-ratings/0.1.1:") for row in report.bad_rows] == [True]  # what u2 said before


def test_what_is_not_prepared_is_refused_with_the_command_that_prepares_it(tmp_path):
    sets = {"data_dir": str(tmp_path), "movielens": "1m"}
    with pytest.raises(UserError, match="prepared nothing there") as refused:
        read_prepared_sets(to_settings(PreparedSets, sets, "tfds"))
    program = str(refused.value).split('python -c "')[1].removesuffix('"')
    assert "tfds.structured.Movielens; tfds.builder('movielens/1m-movies'" in program and "tensorflow" in program
    compile(program, "command", "exec")
    for wrong in ({}, sets | {"files": files_of_shop("a", "b")}):
        with pytest.raises(SettingsError, match="exactly one of movielens and files"):
            to_settings(PreparedSets, wrong, "tfds")


def test_folders_that_cannot_be_read_are_one_error(data_dir, tmp_path, monkeypatch):
    folder, ratings = copied(data_dir, tmp_path)

    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            read(folder, **changes)

    refused("no feature picture that is text, number, label", title="picture")
    refused("no feature stern that is text.*such are: .*customer", rating="stern")
    whole = (ratings / "dataset_info.json").read_text()
    change_info(ratings, lambda info: info | {"fileFormat": "riegeli"})
    refused("its format is riegeli.*file_format='array_record'")
    (ratings / "dataset_info.json").write_text(whole)
    counts = json.loads(whole)["splits"][0]["shardLengths"]
    (ratings / "dataset_info.json").write_text(whole.replace(f'"{counts[0]}"', '"7000"'))
    refused(f"{counts[0]} examples, where dataset_info.json promises 7000: prepare it again")
    (ratings / "dataset_info.json").write_text(whole)
    as_tfrecord(ratings)
    cut = next(ratings.glob("*tfrecord*"))
    cut.write_bytes(cut.read_bytes()[:-3])
    refused("cannot be read after [0-9]+ examples .it is cut.")
    (ratings / "dataset_info.json").write_text("{")
    refused("no data set that TFDS has prepared")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused("needs tensorflow_datasets: pip install tensorflow-datasets")


def test_an_example_that_is_none_costs_itself_alone(data_dir, tmp_path):
    folder, ratings = copied(data_dir, tmp_path)
    as_tfrecord(ratings)
    path = sorted(ratings.glob("*tfrecord*"))[0]
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"\n\x03c10", b"\n\x03c\xff0"))
    _, report = read(folder)
    whole, _ = read(data_dir)
    lost = raw.count(b"\n\x03c10")
    assert lost > 0 and len(report.bad_rows) == lost and report.num_ratings == len(whole.ratings) - lost
    assert {str(row).split(": ")[1] for row in report.bad_rows} == {"not UTF-8"}
