"""Reading ratings with every kind of bad row: what is plain goes by blocks, the rest line by line."""

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRows, summarize_bad_rows
from eagle_jax.data.readers import blocks, columns, json_columns
from eagle_jax.data.readers.rating_files import RatingColumns, read_ratings
from eagle_jax.data.readers.scales import WEIGHTS, Scale
from eagle_jax.data.rows import read_rows

ITEMS = ("10", "20", "30")


def _read(tmp_path, content, items=ITEMS, name="ratings.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    bad_rows = BadRows()
    table = read_ratings(path, known_items=items, bad_rows=bad_rows, **{"doubtful": BadRows()} | options)
    return table, bad_rows


def _triples(table):
    return [
        (table.user_names[user], table.item_names[item], float(rating))
        for user, item, rating in zip(table.user_index, table.item_index, table.rating, strict=True)
    ]


def test_good_rows(tmp_path):
    table, bad_rows = _read(tmp_path, "userId,movieId,rating,timestamp\n7,20,4.5,5\n8,10,0.5,6\n")
    assert _triples(table) == [("7", "20", 4.5), ("8", "10", 0.5)]
    assert table.item_names == ITEMS and table.user_names == ("7", "8") and not bad_rows
    assert (table.user_index.dtype, table.item_index.dtype, table.rating.dtype) == (np.int32, np.int32, np.float32)


def test_byte_order_mark_crlf_quotes_column_order_and_no_timestamp(tmp_path):
    content = '\ufeffmovieId,"rating",userId\r\n"20",4.0,7\r\n\r\n 10 , 3 ,"u, v"\r\n'
    table, bad_rows = _read(tmp_path, content)
    assert _triples(table) == [("7", "20", 4.0), ("u, v", "10", 3.0)] and not bad_rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"7,20,4.5", "expected 4 fields, found 3"),
        (b"7,20,4,5,1,9", "expected 4 fields, found 6"),
        (b"7,20,good,5", "rating is not a number: 'good'"),
        (b"7,20,,5", "rating is not a number: ''"),
        (b"7,20,4_0,5", "rating is not a number: '4_0'"),
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
    assert str(bad_rows.listed[0]).startswith(f"ratings.csv:3: {reason}: ")
    str(bad_rows.listed[0]).encode()  # printable, whatever bytes were in it


def test_other_columns_may_be_called_anything(tmp_path):
    table, bad_rows = _read(tmp_path, b"userId,\xff,,movieId,,rating\n7,a,b,20,c,4.5\n")
    assert _triples(table) == [("7", "20", 4.5)] and not bad_rows


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
    assert bad_rows.listed[0].text == "1,10,1.0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; expected a header line with the columns userId, movieId, rating"),
        (b"userId,rating\n1,4\n", "line 1: no column movieId"),
        ("userId,movieId,rating\n1,10,4\n".encode("utf-16"), "no column userId, movieId, rating"),
        (b"userId,movieId,rating\n", "no rating left: 0 bad rows"),
        (b"userId,movieId,rating\n1,10,x\n,20,4\n", "no rating left: 2 bad rows, the first: rat"),
        (b"userId,movieId,rating\n1,77,4\n", "no movieId there .* id of an item; there are 77, the items are 10, 20"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        _read(tmp_path, content)
    assert str(tmp_path / "ratings.csv") in str(error.value)
    str(error.value).encode()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: cannot be read \(No such file"):
        read_ratings(tmp_path / "absent.csv", known_items=ITEMS, bad_rows=BadRows(), doubtful=BadRows())


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


def test_faults_put_into_the_real_file_are_all_found(tmp_path, eagle_data):
    source = eagle_data / "ml-latest-small" / "ratings.csv"
    lines = source.read_bytes().splitlines()
    items = sorted({line.split(b",")[1].decode() for line in lines[1:]})
    faults = {100: b"1,2,3", 5000: b"\xff,1,3,4", 40000: b'4,"1,3,4', 70000: b"1,1,NaN,4", 90000: b"1,0,3,4"}
    for line, content in faults.items():
        lines[line - 1] = content
    table, bad_rows = _read(tmp_path, b"\r\n".join(lines), items)
    assert [bad.line for bad in bad_rows] == list(faults)
    assert len(table) == 100836 - len(faults)


OWN = RatingColumns("who", "what", "how", "when")


def _everything(table, bad_rows, doubtful):
    listed = [(row.line, row.reason, row.text) for row in (*bad_rows, *doubtful)]
    return _triples(table), table.user_names, bad_rows.counts, doubtful.counts, listed


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("quoting", [False, True], ids=["plain", "quoted"])
def test_blocks_and_lines_read_the_same(tmp_path, monkeypatch, seed, quoting):
    """A file with faults anywhere: by pyarrow where it can, all by lines, and in other blocks."""
    draw = random.Random(seed)
    parsed = []

    def cell(values):
        value = draw.choice(values)
        return f'"{value}"' if quoting and draw.random() < 0.5 else value

    lines = ["userId,movieId,rating,timestamp"]
    faults = [
        "",
        "  ",
        "1,10,4",
        "1,10,4,5,6",
        'x"y,10,4,5',
        '1,"10,4,5',
        '"1"x,10,4,5',
        '"u',
        'v",10,3,9',
        "\r",
        'u,"10\ru,10,4,5',
        "é,10,3,7",
    ]
    for _ in range(400):
        row = [cell("abcdefgh "), cell(["10", "20", " 30 ", "99"]), cell(["4", "3.5", "1e0", "9", "nan", "0_3"])]
        lines.append(",".join([*row, cell(["", "5", "7.5", "2020-01-02", "soon"])]))
        if draw.random() < 0.04:
            lines.append(draw.choice(faults))
    content = draw.choice(["\n", "\r\n"]).join(lines).encode()
    if seed % 3 == 0:
        content = content.replace(b"d,10", b"\xff,10")
    parse, plain_bytes = columns._Table._parse, columns._Table._plain_bytes

    def spy(*arguments):
        given = parse(*arguments)
        parsed.append(given is not None and not given.left_out)
        return given

    found = []
    scale = Scale(0.5, 9.0, "0.5 to 9")
    for size, parser, plain in ((97, spy, plain_bytes), (1 << 24, lambda *_: None, None), (2000, spy, plain_bytes)):
        monkeypatch.setattr(columns._Table, "_plain_bytes", plain or (lambda _, block: len(block)))
        monkeypatch.setattr(blocks, "_BLOCK_BYTES", size)
        monkeypatch.setattr(blocks, "_LEAST_BYTES", 60)
        monkeypatch.setattr(columns._Table, "_parse", parser)
        doubtful = BadRows()
        table, bad_rows = _read(tmp_path, content, doubtful=doubtful, scale=scale)
        found.append(_everything(table, bad_rows, doubtful))
    assert found[0] == found[1] == found[2]
    assert parsed.count(True) > 20 and parsed.count(False) > 5


@pytest.mark.parametrize("seed", range(4))
def test_blocks_and_lines_of_json_read_the_same(tmp_path, monkeypatch, seed):
    """Values of every kind that JSON has, some of them faults, and lines that are no objects or not one."""
    draw = random.Random(seed)
    lines = []
    faults = [
        "",
        "[1]",
        '{"userId": 1',
        '{"userId": "a"} {"userId": "b"}',
        '{"userId": [1], "movieId": 10, "rating": 4}',
    ]
    faults += ['{"userId": "a", "userId": "b", "movieId": 10, "rating": 4}', '{"movieId": "10",\n"rating": 3}', "null"]
    users, films = ([1, 2, 3], [10, 20, 30]) if seed % 2 else (["a", " b", "c", "é", ""], ["10", "20 ", "30", "99"])
    for number in range(400):
        row = {"userId": draw.choice(users), "movieId": draw.choice(films), "rating": draw.choice([4, 3.5, 1e0, 9])}
        row |= {"timestamp": draw.choice([5, 7, None]), "other": draw.choice([1, "x", {"y": [1, {}]}, None])}
        if draw.random() < 0.03 and number > 9:
            row[draw.choice(list(row))] = draw.choice(
                ["x", 2.5, True, float("nan"), 2**53, 2**64 + 1, 2.0**60, [], "\ud800", {"a": 1}, None, 1e-5]
            )
        lines.append(json.dumps(row, ensure_ascii=draw.random() < 0.9))
        if draw.random() < 0.02:
            lines.append(draw.choice(faults))
    content = draw.choice(["\n", "\r\n"]).join(lines).encode("utf-8", "surrogatepass")
    if seed == 2:
        content = b"\xef\xbb\xbf" + content.replace(b"}", b"}\r", 1)
    parse, parsed, found = json_columns._JsonLines.parse, [], []

    def spy(*arguments):
        given = parse(*arguments)
        parsed.append(given is not None)
        return given

    for size, parser in ((900, spy), (1 << 24, lambda *_: None), (5000, spy)):
        monkeypatch.setattr(blocks, "_BLOCK_BYTES", size)
        monkeypatch.setattr(blocks, "_LEAST_BYTES", 300)
        monkeypatch.setattr(json_columns._JsonLines, "parse", parser)
        doubtful, scale = BadRows(), Scale(0.5, 9.0, "0.5 to 9")
        table, bad_rows = _read(tmp_path, content, name="r.jsonl", doubtful=doubtful, scale=scale)
        found.append(_everything(table, bad_rows, doubtful))
    assert found[0] == found[1] == found[2]
    assert parsed.count(True) > 20 and parsed.count(False) > 5


@pytest.mark.parametrize("fault", [lambda line: line + b",0", lambda line: b"\xff" + line, lambda line: b'"' + line])
def test_a_bad_line_costs_itself_and_not_its_block(tmp_path, monkeypatch, fault):
    """One field more, other bytes, a quote that nothing closes."""
    lines = [b"u%d,%d,4,%d" % (number, 10 + 10 * (number % 3), number) for number in range(5000)]
    lines = [fault(line) if number % 97 == 5 else line for number, line in enumerate(lines)]
    exactly = []
    read = columns._Table._read_exactly
    monkeypatch.setattr(
        columns._Table, "_read_exactly", lambda self, block, *rest: exactly.append(block) or read(self, block, *rest)
    )
    table, bad_rows = _read(tmp_path, b"\n".join([b"userId,movieId,rating,timestamp", *lines, b"u,10"]))
    spoilt = [number for number in range(5000) if number % 97 == 5] + [5000]
    assert [bad.line for bad in bad_rows] == [number + 2 for number in spoilt]
    assert len(table) == 5000 - len(spoilt) + 1
    assert [block.strip() for block in exactly] == [[*lines, b"u,10"][number] for number in spoilt]


KINDS = ["ratings.csv", "ratings.tsv", "ratings.csv.gz", "ratings.tsv.zst", "ratings.jsonl", "ratings.json.gz"]
IDS = ("9007199254740993", "18446744073709551617", "007")  # above 2^53, above 2^64, no number at all


@pytest.mark.parametrize("name", [*KINDS, "ratings.jsonl.zst", "ratings.parquet"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, name):
    rows = [("ann", IDS[0], 4, 5), ("bob", IDS[1], 2.5, 6), ("ann", IDS[2], 1, None), ("ann", IDS[0], 3, 4)]
    path = tmp_path / name
    if name.endswith(".parquet"):
        named = [dict(zip(OWN[:4], row, strict=True)) for row in rows]
        parquet.write_table(pa.Table.from_pylist(named), path)
        content = path.read_bytes()
    elif ".json" in name:
        content = "".join(json.dumps(dict(zip(OWN[:4], row, strict=True))) + "\n" for row in rows).encode()
    else:
        lines = [OWN[:4], *(["" if cell is None else str(cell) for cell in row] for row in rows)]
        content = "\n".join(("\t" if ".tsv" in name else ",").join(line) for line in lines).encode()
    if name.endswith(".gz"):
        content = gzip.compress(content)
    if name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(content)
        content = path.read_bytes()
    table, bad_rows = _read(tmp_path, content, IDS, name, columns=OWN)
    assert _triples(table) == [("ann", IDS[0], 4.0), ("bob", IDS[1], 2.5), ("ann", IDS[2], 1.0)]
    assert [(row.line, row.reason.partition(":")[0]) for row in bad_rows] == [
        (5 if name.partition(".")[2][:3] in ("csv", "tsv") else 4, "duplicate")
    ]


def test_numbers_as_ids(tmp_path):
    """Integers of any size are themselves in JSON and Parquet; floating point is, as long as it is exact."""
    own, known = OWN._replace(timestamp=""), (str(2**63 + 1), "7")
    ids = [(1, 2**63 + 1), (2, 7), (2, 7.0), (2, 2.0**53), (None, 7)]
    lines = [{"who": who, "what": what, "how": 3} for who, what in ids]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    table, bad_rows = _read(tmp_path, content, known, "r.jsonl", columns=own)
    assert _triples(table) == [("1", known[0], 3.0), ("2", "7", 3.0)]
    assert [(row.line, row.reason) for row in bad_rows] == [
        (2, "duplicate: line 3 rates the same item later"),
        (4, "floating-point number above 2^53, which is not exact: what is 9007199254740992.0"),
        (5, "who is empty"),
    ]

    def parquet_of(ids):
        made = pa.table({"who": [1, 2], "what": ids, "how": [3.0, 4.0]})
        parquet.write_table(made, tmp_path / "made.parquet")
        return (tmp_path / "made.parquet").read_bytes()

    for exact in (pa.array([2**63 + 1, 7], pa.uint64()), pa.array([7.0, 7.0])):
        table, _ = _read(tmp_path, parquet_of(exact), known, "r.parquet", columns=own)
        assert len(table) == 2 and _triples(table)[1] == ("2", "7", 4.0)
    with pytest.raises(UserError, match=r"r.parquet: column what has floating-point numbers above 2\^53"):
        _read(tmp_path, parquet_of(pa.array([2.0**63, 7.0])), known, "r.parquet", columns=own)


@pytest.mark.parametrize(
    ("name", "texts", "values"),
    [
        ("1 to 10", ["1", "10", "7.5", "0.5"], [1, 10, 7.5]),
        ("-10 to 10", ["-10", "0", "11"], [-10, 0]),
        ("percent", ["0", "85%", "100 %", "101"], [0, 85, 100]),
        ("thumbs", ["up", "DOWN", "true", "0", "1.0", "0.5", "maybe"], [1, 0, 1, 0, 1]),
    ],
)
def test_scales_are_declared(tmp_path, name, texts, values):
    lines = [f"u{user},10,{text}" for user, text in enumerate(texts)]
    content = "\n".join(["userId,movieId,rating", *lines])
    table, bad_rows = _read(tmp_path, content, scale=Scale.named(name))
    assert table.rating.tolist() == values
    assert [row.line for row in bad_rows] == list(range(2 + len(values), 2 + len(texts)))


@pytest.mark.parametrize("name", ["1-10", "10 to 1", "stars", "1 to ten", "", "0 to inf"])
def test_what_is_no_scale_is_refused(name):
    with pytest.raises(UserError, match=f'scale {name!r}: expected "1 to 10"'):
        Scale.named(name)


def test_many_ratings_outside_of_the_scale_say_that_it_is_another_one(tmp_path):
    lines = [f"u{n},10,{1 + n % 10}" for n in range(50)]
    content = "\n".join(["userId,movieId,rating", *lines])
    with pytest.raises(
        UserError, match=r"25 of 50 ratings are outside of the scale 0.5 to 5, from 6.0 to 10.0: declare"
    ):
        _read(tmp_path, content)
    few = content.replace(",6\n", ",5\n").replace(",7\n", ",5\n").replace(",8\n", ",5\n").replace(",9\n", ",5\n")
    assert _read(tmp_path, few)[1].counts.total() == 5


def test_weights_of_a_pair_are_added(tmp_path):
    content = "userId,movieId,rating\nb,20,2\na,10,1\nb,20,5\na,20,0\na,30,-1\n"
    table, bad_rows = _read(tmp_path, content, scale=WEIGHTS)
    assert _triples(table) == [("b", "20", 3.0), ("a", "10", 1.0)]  # log2(1 + 7), log2(1 + 1)
    assert [row.reason for row in bad_rows] == ["weight of nothing: 0", "rating outside 0.0 to inf: -1.0"]
    clicks = RatingColumns("userId", "movieId", "")
    table, _ = _read(tmp_path, "userId,movieId\nb,20\na,10\nb,20\nb,20\n", columns=clicks, scale=WEIGHTS)
    assert _triples(table) == [("b", "20", 2.0), ("a", "10", 1.0)]


def test_a_bad_timestamp_does_not_cost_the_rating(tmp_path):
    content = (
        "userId,movieId,rating,timestamp\n1,10,4,n/a\n1,20,3,\n2,10,1,2020-01-01\n2,10,2,2019-12-31T23:59\n1,10,5,-9\n"
    )
    doubtful = BadRows()
    table, bad_rows = _read(tmp_path, content, doubtful=doubtful)
    assert _triples(table) == [("1", "20", 3.0), ("2", "10", 1.0), ("1", "10", 5.0)]
    assert [(row.line, row.reason) for row in doubtful] == [(2, "timestamp is no time: 'n/a'")]
    assert [row.line for row in bad_rows] == [2, 5]


def test_bad_rows_are_all_counted_and_the_first_of_each_kind_are_listed(tmp_path):
    lines = [f"u{n},{10 if n % 2 else 99},4" for n in range(2 * BadRows.MOST_LISTED + 10)]
    _, bad_rows = _read(tmp_path, "\n".join(["userId,movieId,rating", *lines]))
    assert len(bad_rows) == BadRows.MOST_LISTED + 5 == bad_rows.counts["ratings.csv", "unknown movieId"]
    assert [row.line for row in bad_rows] == list(range(2, 2 * BadRows.MOST_LISTED + 2, 2))
