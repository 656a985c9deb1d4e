"""One shop from every kind of file is one catalogue; whatever is wrong with the files is said or counted."""

import random

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.data.prompts import PRODUCT, parse_blocks
from eagle_jax.data.readers.files import OwnFiles, read_own_files
from eagle_jax.data.sources import fingerprint
from tests.data.readers.shop import draw_shop, files_of_shop, write_rows


def read(items, ratings, **changes):
    return read_own_files(to_settings(OwnFiles, files_of_shop(items, ratings, **changes), "config.catalogue.files"))


@pytest.fixture(scope="module")
def shop():
    return draw_shop(num_products=40, num_users=60, ratings_per_user=8)


@pytest.fixture
def files(tmp_path, shop):
    """Paths of the shop's files, some rows changed."""

    def write(products=lambda rows: rows, ratings=lambda rows: rows, kind="csv"):
        paths = tmp_path / f"products.{kind}", tmp_path / f"ratings.{kind}"
        for path, rows, change in zip(paths, shop, (products, ratings), strict=True):
            write_rows(path, change([dict(row) for row in rows]))
        return paths

    return write


def test_every_kind_of_file_gives_the_same_catalogue(files, shop):
    products, ratings = shop
    prints = set()
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        catalogue, report = read(*files(kind=kind))
        assert not report.bad_rows and not report.doubtful and not report.remarks
        prints.add(fingerprint(catalogue))
    assert len(prints) == 1
    assert catalogue.entity_format == PRODUCT and not catalogue.is_implicit
    for product, entity in zip(products, catalogue.entities, strict=True):
        assert (entity.entity_id, entity.title) == (str(product["sku"]), product["name"])
        assert entity.fields["category"] == product["category"]
        description = " ".join(product["description"].split())
        assert parse_blocks(entity.description, PRODUCT.blocks, may_be_empty=True) == {
            "DESCRIPTION": f"{description} Kind: {product['category']}. Price: {product['price']}.",
            "REASONS_TO_LIKE": "",
            "REASONS_TO_DISLIKE": "",
        }
    table = catalogue.ratings
    found = zip(table.user_index, table.item_index, table.rating, strict=True)
    assert [(table.user_names[u], int(table.item_names[i]), r) for u, i, r in found] == [
        (row["customer"], row["sku"], row["stars"]) for row in ratings
    ]


def test_texts_may_come_from_a_second_file(files, shop, tmp_path):
    texts = [{"sku": row["sku"], "told": f"told {row['sku']}"} for row in shop[0][:-1]]
    write_rows(tmp_path / "texts.jsonl", [*texts, {"sku": "other", "told": "x"}])
    catalogue, report = read(*files(), texts_file=str(tmp_path / "texts.jsonl"), text="{told}")
    assert report.num_items_without_text == 1 and len(catalogue.entities) == 39
    assert f"told {shop[0][3]['sku']} #END" in catalogue.entities[3].description
    write_rows(tmp_path / "texts.jsonl", [{"sku": "other", "told": "x"}])
    with pytest.raises(UserError, match=r"texts.jsonl: no item has told there: are its ids those of the items\?"):
        read(*files(), texts_file=str(tmp_path / "texts.jsonl"), text="{told}")


def test_own_blocks(files):
    own = {"noun": "tool", "blocks": ("USE", "PRO", "CONTRA"), "action_categories": ("form", "price")}
    catalogue, report = read(*files(), own_format=own)
    assert catalogue.entities[0].description.startswith("#BEGIN_USE A ")
    assert catalogue.entity_format.noun == "tool" and "40 tools, 0 left out" in report.summary(0)


def test_what_users_did_is_implicit_feedback(files):
    def visits(rows):
        return [{"customer": row["customer"], "sku": row["sku"], "times": 3} for row in rows for _ in range(2)]

    paths = files(ratings=visits)
    catalogue, report = read(*paths, feedback="implicit", rating="times", scale="", timestamp="")
    assert catalogue.is_implicit and not report.bad_rows
    np.testing.assert_allclose(catalogue.ratings.rating, np.log2(1 + 6))
    clicks, _ = read(*paths, feedback="implicit", rating="", scale="", timestamp="")
    np.testing.assert_allclose(clicks.ratings.rating, np.log2(1 + 2))


def changed(**changes):
    return lambda rows: [rows[0], {**rows[1], **changes}, *rows[2:]]


@pytest.mark.parametrize(
    ("products", "reason"),
    [
        (changed(sku=""), "sku: the id is empty"),
        (lambda rows: [*rows[:2], rows[0], *rows[2:]], "sku: id repeated: 1000000000000000000"),
        (
            changed(description="it #END_DESCRIPTION it"),
            "marker_in_text: #END_DESCRIPTION inside the text of DESCRIPTION",
        ),
    ],
)
def test_bad_items_are_counted_with_their_lines(files, products, reason):
    _, report = read(*files(products=products, kind="jsonl"), text="{description}")
    faults = [row for row in report.bad_rows if row.file == "products.jsonl"]
    assert [(row.line, row.reason) for row in faults] == [(3 if "repeated" in reason else 2, reason)]


def test_items_without_text_or_title(files):
    def spoil(rows):
        rows[0]["name"] = None
        rows[1] |= {"description": None, "category": None, "price": None}
        rows[2]["name"] = "it #END_LIKED it"  # titles stand in blocks of prompts
        return rows

    catalogue, report = read(*files(products=spoil, kind="parquet"))
    assert (report.num_items, report.num_items_without_text, report.num_items_without_title) == (40, 1, 1)
    assert catalogue.entities[0].title == " ".join(catalogue.entities[0].description.split()[1:9])
    assert catalogue.entities[1].title == "it END_LIKED it"
    assert report.num_ratings_without_text > 0


def test_a_report_of_all_that_is_wrong(files):
    def spoil(rows):
        rows[0]["stars"] = "0_3"
        rows[1]["stars"] = 11
        rows[2]["stars"] = "NaN"
        rows[3]["sku"] = 77
        rows[4]["customer"] = " "
        rows[5]["day"] = "yesterday"
        return [*rows, rows[6] | {"stars": 2, "day": "2030-01-01"}]

    catalogue, report = read(*files(ratings=spoil))
    told = report.summary(20)
    for line in (
        "ratings.csv:2: rating is not a number: '0_3'",
        "ratings.csv:3: rating outside 1.0 to 10.0: 11.0",
        "ratings.csv:4: rating is not finite: 'NaN'",
        "ratings.csv:5: unknown sku: 77",
        "ratings.csv:6: customer is empty",
        "ratings.csv:7: day is no time: 'yesterday'",
        "ratings.csv:8: duplicate: line ",
    ):
        assert line in told
    assert len(report.bad_rows) == 6 and len(report.doubtful) == 1
    assert report.as_json()["num_bad_rows"] == 6 == len(report.as_json()["bad_rows"])


@pytest.mark.parametrize(
    ("scale", "stars", "said"),
    [
        ("1 to 10", lambda row: 1, "every rating is 1: are these interactions?"),
        ("percent", lambda row: row["stars"], "declared as percent, and all ratings are from 1 to 10"),
    ],
)
def test_a_wrong_declaration_is_contradicted(files, scale, stars, said):
    paths = files(ratings=lambda rows: [row | {"stars": stars(row)} for row in rows])
    assert said in read(*paths, scale=scale)[1].summary(0)


_FAULTS = [
    b'"',
    b"\n",
    b"\r",
    b",",
    b"\0",
    b"\xff",
    b"NaN",
    b"1e999",
    b"{",
    b"]",
    b"null",
    b"#END_DESCRIPTION",
    b"\\ud800",
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_damaged_files_are_refused_or_their_rows_are_counted(files, kind):
    """Whatever is put into a file, there is an answer in words, and what is read is whole."""
    draw = random.Random(kind)
    whole = [(path, path.read_bytes()) for path in files(kind=kind)]
    num_read = 0
    for _ in range(60):
        for path, content in whole:
            path.write_bytes(content)
        path, content = draw.choice(whole)
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 2, 8])):
            place = draw.randrange(len(damaged))
            damaged[place : place + draw.choice([0, 1, 30])] = draw.choice([*_FAULTS, content[place : place + 50]])
        path.write_bytes(damaged)
        try:
            catalogue, report = read(*(path for path, _ in whole))
        except UserError:
            continue
        num_read += 1
        table = catalogue.ratings
        assert ((table.rating >= 1) & (table.rating <= 10)).all()
        assert len(set(zip(table.user_index, table.item_index, strict=True))) == len(table)
        report.summary(3).encode()
    assert kind == "parquet" or num_read > 20


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"title": "label"}, r"products.csv: line 1: no column label; .* it has: sku, name, category"),
        ({"text": "{blurb}"}, r"products.csv: line 1: no column blurb"),
        ({"rating": "score"}, r"ratings.csv: line 1: no column score; .* it has: customer, sku, stars, day"),
        ({"timestamp": "when"}, r"ratings.csv: line 1: no column when"),
        ({"scale": "1 to 5"}, r"ratings are outside of the scale 1 to 5, from 6.0 to 10.0"),
        ({"item": "customer"}, r"no customer there is the id of an item; there are c0, c1, c2, the items are 1000"),
        ({"rating": "day"}, r"no rating left: \d+ bad rows, the first: ratings.csv:2: rating is not a number"),
    ],
)
def test_files_that_are_not_what_was_declared_are_one_error(files, changes, match):
    with pytest.raises(UserError, match=match):
        read(*files(), **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": "stars"}, "scale 'stars': expected"),
        ({"scale": ""}, "scale '': expected"),
        ({"rating": ""}, "explicit feedback needs the column"),
        ({"feedback": "implicit"}, "implicit feedback has weights and no scale"),
        ({"text": "description"}, "text 'description': expected a template"),
        ({"feedback": "both"}, "feedback"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, match):
    with pytest.raises(SettingsError, match=match):
        read("products.csv", "ratings.csv", **changes)
