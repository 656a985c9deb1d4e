"""The three editions of Amazon's files, as small fixtures in each one's own names, and real gift cards."""

import gzip
import json
from collections import Counter

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.data.prompts import PRODUCT
from eagle_jax.data.readers.amazon import AmazonFiles, read_amazon

# user, item, rating, time in seconds: u1 reviews B1 twice, the second review is the older one.
RATINGS = [
    ("u1", "B1", 5.0, 90),
    ("u1", "B1", 2.0, 80),
    ("u2", "B1", 4.0, 70),
    ("u2", "B2", 1.0, 60),
    ("u3", "B9", 3.0, 5),
]
DESCRIPTION = ["Warm &amp; <b>bright</b>.<br/>", "<script>var x = '<p>';</script>Under 5 < 6 W. <!-- no -->"]
TOLD = "Warm & bright . Under 5 < 6 W."


def products(edition):
    """A lamp with everything, a thing without title, one without text, and the lamp again."""
    names = {
        "2014": ("asin", "categories", "feature", "brand"),
        "2018": ("asin", "category", "feature", "brand"),
        "2023": ("parent_asin", "categories", "features", "store"),
    }[edition]
    lamp = {"title": "Lamp &quot;Sun&quot;", "price": 9.5}
    lamp |= {"description": " ".join(DESCRIPTION) if edition == "2014" else DESCRIPTION}
    rows = [
        lamp | dict(zip(names, ("B1", ["Home", "Lamps"], ["dims"], "Sol"), strict=True)),
        {names[0]: "B2", "description": ["one two three four five six seven eight nine ten"], "title": None},
        {names[0]: "B3", "title": "Untold", "description": []},
        {names[0]: "B1", "title": "Another lamp"},
        {"title": "no id"},
    ]
    if edition == "2014":  # their lines are Python, not JSON
        return "".join(f"{row!r}\n" for row in rows)
    return "".join(json.dumps(row) + "\n" for row in rows)


def reviews(edition, ratings_only):
    if ratings_only:
        if edition == "2023":
            lines = ["user_id,parent_asin,rating,timestamp", *(f"{u},{i},{r},{t * 1000}" for u, i, r, t in RATINGS)]
        else:
            order = (0, 1, 2, 3) if edition == "2014" else (1, 0, 2, 3)
            lines = [",".join(str(row[place]) for place in order) for row in RATINGS]
        return "\n".join(lines)
    names = ("reviewerID", "asin", "overall", "unixReviewTime")
    rows = [dict(zip(names, row, strict=True)) for row in RATINGS]
    if edition == "2023":
        names = ("user_id", "parent_asin", "rating", "timestamp")
        rows = [dict(zip(names, (u, i, r, t * 1000), strict=True)) | {"asin": "variant"} for u, i, r, t in RATINGS]
    return "".join(json.dumps(row | {"reviewText": 'said "so"\nhere'}) + "\n" for row in rows)


def read(folder, edition, ratings_only=False, **changes):
    paths = folder / "meta.json.gz", folder / ("ratings.csv" if ratings_only else "reviews.jsonl")
    paths[0].write_bytes(gzip.compress(products(edition).encode()))
    paths[1].write_text(reviews(edition, ratings_only))
    files = {"edition": edition, "metadata": str(paths[0]), "reviews": str(paths[1])} | changes
    return read_amazon(to_settings(AmazonFiles, files, "config.catalogue.amazon"))


@pytest.mark.parametrize("ratings_only", [False, True], ids=["reviews", "ratings"])
@pytest.mark.parametrize("edition", ["2014", "2018", "2023"])
def test_an_edition_is_read_by_its_own_rules(tmp_path, edition, ratings_only):
    catalogue, report = read(tmp_path, edition, ratings_only)
    lamp, thing = catalogue.entities
    assert (lamp.entity_id, lamp.title) == ("B1", 'Lamp "Sun"')
    assert lamp.description.startswith(f"#BEGIN_DESCRIPTION {TOLD} #END_DESCRIPTION")
    features = {} if edition == "2014" else {"features": "dims"}
    expected = {"categories": "Home, Lamps", "brand": "Sol", "price": "9.5"} | features
    assert {name: lamp.fields[name] for name in expected} == expected
    assert thing.title == "one two three four five six seven eight"
    assert catalogue.entity_format == PRODUCT
    assert (report.num_items, report.num_items_without_text, report.num_items_without_title) == (3, 1, 1)
    table = catalogue.ratings
    found = zip(table.user_index, table.item_index, table.rating, strict=True)
    assert [(table.user_names[u], table.item_names[i], float(r)) for u, i, r in found] == [
        ("u1", "B1", 5.0),
        ("u2", "B1", 4.0),
        ("u2", "B2", 1.0),
    ]
    kinds = {(file, kind): count for (file, kind), count in report.bad_rows.counts.items()}
    item = {"2014": "asin", "2018": "asin", "2023": "parent_asin"}[edition]
    unknown = "item" if ratings_only and edition != "2023" else item
    name = "ratings.csv" if ratings_only else "reviews.jsonl"
    assert kinds == {
        ("meta.json.gz", item): 1,
        ("meta.json.gz", f"no field {item}"): 1,
        (name, f"unknown {unknown}"): 1,
        (name, "duplicate"): 1,
    }


def test_a_text_of_several_fields(tmp_path):
    catalogue, _ = read(tmp_path, "2018", text="{title} by {brand}: {description}")
    assert f'Lamp "Sun" by Sol: {TOLD} #END' in catalogue.entities[0].description
    assert [entity.entity_id for entity in catalogue.entities] == ["B1", "B2", "B3"]  # which nobody rated
    with pytest.raises(SettingsError, match="text: blurb is none of title, description, categories"):
        read(tmp_path, "2018", text="{blurb}")


def test_files_of_another_edition_are_refused(tmp_path):
    read(tmp_path, "2018")
    files = {"metadata": str(tmp_path / "meta.json.gz"), "reviews": str(tmp_path / "reviews.jsonl")}
    with pytest.raises(UserError, match="meta.json.gz: no product left: 5 bad rows, the first: .*no field parent_asin"):
        read_amazon(AmazonFiles(edition="2023", text="{description}", **files))
    read(tmp_path, "2023")
    (tmp_path / "meta.json.gz").write_bytes(gzip.compress(products("2018").encode()))
    with pytest.raises(UserError, match="reviews.jsonl: no line has the field reviewerID, overall, unixReviewTime"):
        read_amazon(AmazonFiles(edition="2018", text="{description}", **files))


def test_metadata_that_are_no_object_are_counted(tmp_path):
    deep = "[" * 100_000
    read(tmp_path, "2014")
    content = f"{deep}\n__import__('os').getcwd()\n{products('2014')}"
    (tmp_path / "meta.json").write_text(content)
    files = {"metadata": str(tmp_path / "meta.json"), "reviews": str(tmp_path / "reviews.jsonl")}
    _, report = read_amazon(AmazonFiles(edition="2014", text="{description}", **files))
    assert [row.line for row in report.bad_rows if row.file == "meta.json"] == [1, 2, 6, 7]


def test_real_gift_cards(eagle_data):
    folder = eagle_data / "amazon-gift-cards"
    paths = {"metadata": "meta_Gift_Cards.json.gz", "reviews": "Gift_Cards_5.json.gz"}
    files = {name: str(folder / file) for name, file in paths.items()}
    catalogue, report = read_amazon(AmazonFiles(edition="2018", text="{title} {description}", **files))
    with gzip.open(files["reviews"]) as file:
        rows = [json.loads(line) for line in file]
    with gzip.open(files["metadata"]) as file:
        known = {json.loads(line)["asin"] for line in file}
    last = {}
    for row in sorted(rows, key=lambda row: row["unixReviewTime"]):
        last[row["reviewerID"], row["asin"]] = row["overall"]
    last = {pair: stars for pair, stars in last.items() if pair[1] in known}
    table = catalogue.ratings
    found = zip(table.user_index, table.item_index, table.rating, strict=True)
    found = {(table.user_names[u], table.item_names[i]): float(r) for u, i, r in found}
    assert found == last and report.num_items == len(known)
    assert report.bad_rows.counts["Gift_Cards_5.json.gz", "duplicate"] + len(found) == sum(
        row["asin"] in known for row in rows
    )
    assert Counter(found.values()).most_common(1)[0][0] == 5.0
    assert not any("<br" in text or "&amp;" in text for text in catalogue.descriptions)
