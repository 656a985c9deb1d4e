"""Reading ratings with every kind of bad row, and splits without leaks."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.ratings import read_ratings, restrict_items, split_ratings
from eagle_jax.data.rows import read_rows, summarize_bad_rows

ITEMS = ("10", "20", "30")


def _read(tmp_path, content, items=ITEMS):
    path = tmp_path / "ratings.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_ratings(path, known_items=items)


def _triples(table):
    return [
        (table.user_names[user], table.item_names[item], float(rating))
        for user, item, rating in zip(table.user_index, table.item_index, table.rating, strict=True)
    ]


def test_good_rows(tmp_path):
    table, bad_rows = _read(tmp_path, "userId,movieId,rating,timestamp\n7,20,4.5,5\n8,10,0.5,6\n")
    assert _triples(table) == [("7", "20", 4.5), ("8", "10", 0.5)]
    assert table.item_names == ITEMS and table.user_names == ("7", "8") and bad_rows == []
    assert (table.user_index.dtype, table.item_index.dtype, table.rating.dtype) == (np.int32, np.int32, np.float32)


def test_byte_order_mark_crlf_quotes_column_order_and_no_timestamp(tmp_path):
    content = '\ufeffmovieId,"rating",userId\r\n"20",4.0,7\r\n\r\n 10 , 3 ,"u, v"\r\n'
    table, bad_rows = _read(tmp_path, content)
    assert _triples(table) == [("7", "20", 4.0), ("u, v", "10", 3.0)] and bad_rows == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"7,20,4.5", "expected 4 fields, found 3"),
        (b"7,20,4,5,1,9", "expected 4 fields, found 6"),
        (b"7,20,good,5", "rating is not a number: 'good'"),
        (b"7,20,,5", "rating is not a number: ''"),
        (b"7,20,4.5,noon", "timestamp is not a number: 'noon'"),
        (b"7,20,nan,5", "rating is not finite: 'nan'"),
        (b"7,20,-inf,5", "rating is not finite: '-inf'"),
        (b"7,20,0.0,5", "rating outside 0.5 to 5.0: 0.0"),
        (b"7,20,5.5,5", "rating outside 0.5 to 5.0: 5.5"),
        (b"7,99,4.5,5", "unknown movieId: 99"),
        (b",20,4.5,5", "userId is empty"),
        (b"\xe9\xff,20,4.5,5", "bytes that are not UTF-8"),
        (b'7,"20,4.5,5', "bad quoting"),
        (b'7,"20"x,4.5,5', "bad quoting"),
    ],
)
def test_a_bad_row_is_listed_with_its_line_and_costs_no_other_row(tmp_path, row, reason):
    header = b"userId,movieId,rating,timestamp"
    content = b"\n".join([header, b"1,10,4,1", row, b"1,20,3,2", b"2,30,2,3"])
    table, bad_rows = _read(tmp_path, content)
    assert _triples(table) == [("1", "10", 4.0), ("1", "20", 3.0), ("2", "30", 2.0)]
    assert [(bad.file, bad.line, bad.reason) for bad in bad_rows] == [("ratings.csv", 3, reason)]
    assert str(bad_rows[0]).startswith(f"ratings.csv:3: {reason}: ")
    str(bad_rows[0]).encode()  # printable, whatever bytes were in it


def test_control_sequences_of_a_row_are_shown_and_not_sent(tmp_path):
    _, bad_rows = _read(tmp_path, b"userId,movieId,rating\n2,\x1b[31mten\x1b[0m,4\n2,20,3\n")
    summary = summarize_bad_rows(bad_rows, 3)
    assert r"ratings.csv:2: unknown movieId: \x1b[31mten\x1b[0m" in summary
    assert "\x1b" not in summary


def test_control_sequences_of_a_header_are_shown_and_not_sent(tmp_path):
    said = r"no column movieId; .*it has: userId, \\x1b\[31mmovieId\\x1b\[0m, rating"
    with pytest.raises(UserError, match=said) as caught:
        _read(tmp_path, b"userId,\x1b[31mmovieId\x1b[0m,rating\n1,10,4\n")
    assert "\x1b" not in str(caught.value)


def test_two_stray_quotes_cost_two_rows(tmp_path):
    content = 'userId,movieId,rating\n1,"10,4\n1,20,3\n2,"30,2\n2,10,5\n'
    table, bad_rows = _read(tmp_path, content)
    assert _triples(table) == [("1", "20", 3.0), ("2", "10", 5.0)]
    assert [(bad.line, bad.reason) for bad in bad_rows] == [(2, "bad quoting"), (4, "bad quoting")]


def test_of_duplicates_the_last_by_timestamp_then_line_is_kept(tmp_path):
    content = (
        "userId,movieId,rating,timestamp\n"
        "1,10,1,50\n"
        "1,10,2,90\n"  # latest
        "1,10,3,70\n"
        "2,20,4,5\n"
        "2,20,5,5\n"  # same time: the later line
        "1,20,2.5,1\n"
    )
    table, bad_rows = _read(tmp_path, content)
    assert _triples(table) == [("1", "10", 2.0), ("2", "20", 5.0), ("1", "20", 2.5)]
    assert [(bad.line, bad.reason) for bad in bad_rows] == [
        (2, "duplicate: line 3 rates the same item later"),
        (4, "duplicate: line 3 rates the same item later"),
        (5, "duplicate: line 6 rates the same item later"),
    ]
    assert bad_rows[0].text == "1,10,1.0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; expected a header line with the columns userId, movieId, rating"),
        (b"userId,rating\n1,4\n", "line 1: no column movieId"),
        ("userId,movieId,rating\n1,10,4\n".encode("utf-16"), "no column userId, movieId, rating"),
        (b"userId,movieId,rating\n", "no rating left: 0 bad rows"),
        (b"userId,movieId,rating\n1,10,x\n1,77,4\n", "no rating left: 2 bad rows, the first: rat"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        _read(tmp_path, content)
    assert str(tmp_path / "ratings.csv") in str(error.value)
    str(error.value).encode()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: cannot be read \(No such file"):
        read_ratings(tmp_path / "absent.csv", known_items=ITEMS)


def test_summary_counts_by_kind(tmp_path):
    content = "userId,movieId,rating\n1,10,4\n1,20,x\n1,20,y\n1,88,3\n"
    _, bad_rows = _read(tmp_path, content)
    assert summarize_bad_rows(bad_rows, num_shown=1).splitlines() == [
        "3 bad rows left out",
        "  2 x ratings.csv: rating is not a number",
        "  1 x ratings.csv: unknown movieId",
        "  ratings.csv:3: rating is not a number: 'x': 1,20,x",
        "  ... and 2 more",
    ]
    assert summarize_bad_rows([], num_shown=1) == "no bad rows"


def test_quoted_line_breaks_are_one_record(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text('movieId,overview\n1,"two\nlines, ""quoted"""\n2,"open\n3,plain\n')
    bad_rows = []
    rows = list(read_rows(path, ("movieId", "overview"), ("year",), bad_rows))
    assert [(row.line, row.values) for row in rows] == [
        (2, {"movieId": "1", "overview": 'two\nlines, "quoted"', "year": ""}),
        (5, {"movieId": "3", "overview": "plain", "year": ""}),
    ]
    assert [(bad.line, bad.reason) for bad in bad_rows] == [(4, "bad quoting")]


def _random_table(seed, num_users=40, num_items=60):
    rng = np.random.default_rng(seed)
    rated = rng.random((num_users, num_items)) < rng.random((num_users, 1)) * rng.random(num_items)
    user_index, item_index = (index.astype(np.int32) for index in np.nonzero(rated))
    return RatingTable(
        user_names=tuple(map(str, range(num_users))),
        item_names=tuple(map(str, range(num_items))),
        user_index=user_index,
        item_index=item_index,
        rating=rng.integers(1, 11, len(user_index)).astype(np.float32) / 2,
    )


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
def test_split_laws(fraction):
    table = _random_table(0)
    split = split_ratings(table, held_out_fraction=fraction, seed=1)
    train, test = set(_triples(split.train)), set(_triples(split.test))
    assert not train & test and train | test == set(_triples(table))
    assert len(train) == len(split.train) and len(test) == len(split.test)
    total = np.bincount(table.user_index, minlength=40)
    held_out = np.bincount(split.test.user_index, minlength=40)
    assert np.all(held_out <= np.floor(fraction * total + 1e-9))
    assert 0.5 * fraction * len(table) < len(test) <= fraction * len(table)
    assert set(split.test.user_index) <= set(split.train.user_index)
    assert set(table.item_index) == set(split.train.item_index)


def test_split_depends_on_the_seed_only():
    table = _random_table(2)
    first, again, other = (split_ratings(table, held_out_fraction=0.2, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.test.item_index, again.test.item_index)
    assert _triples(first.test) != _triples(other.test)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_split_refuses_a_fraction_that_is_none(fraction):
    with pytest.raises(ValueError, match=f"held_out_fraction is {fraction}"):
        split_ratings(_random_table(3), held_out_fraction=fraction, seed=0)


def test_restrict_items_keeps_the_ratings_by_name():
    table = _random_table(4)
    chosen = [7, 3, 50]
    restricted = restrict_items(table, chosen)
    assert restricted.item_names == ("7", "3", "50")
    expected = [triple for triple in _triples(table) if triple[1] in ("7", "3", "50")]
    assert sorted(_triples(restricted)) == sorted(expected) and len(expected) > 5
    assert set(restricted.user_names) == {user for user, _, _ in expected}


def test_faults_put_into_the_real_file_are_all_found(tmp_path, eagle_data):
    source = eagle_data / "ml-latest-small" / "ratings.csv"
    lines = source.read_bytes().splitlines()
    items = sorted({line.split(b",")[1].decode() for line in lines[1:]})
    faults = {100: b"1,2,3", 5000: b"\xff,1,3,4", 40000: b'4,"1,3,4', 70000: b"1,1,NaN,4", 90000: b"1,0,3,4"}
    for line, content in faults.items():
        lines[line - 1] = content
    (tmp_path / "ratings.csv").write_bytes(b"\r\n".join(lines))
    table, bad_rows = read_ratings(tmp_path / "ratings.csv", known_items=items)
    assert [bad.line for bad in bad_rows] == list(faults)
    assert len(table) == 100836 - len(faults)
