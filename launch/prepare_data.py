"""Brings the films of experiments/configs/eagle_films.py: MovieLens' ratings, and plots of Wikipedia in texts.csv.

    python launch/prepare_data.py FOLDER [--movielens=ml-latest-small|ml-25m|ml-32m]

FOLDER is then what EAGLE_DATA names. Wants Python 3.11 or later and nothing else. What was fetched stays in
FOLDER/downloads and is not fetched again; a download that broke off, or was killed, goes on from what is there.
Nothing that is in FOLDER is overwritten: a file that differs from what would be written is named, and that is all.
"""

import argparse
import csv
import errno
import gzip
import io
import os
import re
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from downloads import AGAIN, BLOCK, Archive, bring, checksum, fail
from film_plots import (
    AMBIGUOUS,
    ANOTHER_YEAR,
    MOST_CHARACTERS,
    NOT_FOUND,
    SAME_YEAR,
    Article,
    clean_plot,
    first_sentences,
    match_films,
)

# ml-latest-small and ml-25m: the SHA-256 that tensorflow_datasets pins; ml-32m: the MD5 that GroupLens publishes in
# ml-32m.zip.md5. The first is renewed now and then, the other two are not.
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MOVIELENS = {
    "ml-latest-small": Archive(
        f"{_GROUPLENS}/ml-latest-small.zip", "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436"
    ),
    "ml-25m": Archive(
        f"{_GROUPLENS}/ml-25m.zip", "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa"
    ),
    "ml-32m": Archive(f"{_GROUPLENS}/ml-32m.zip", "md5:d472be332d4daa821edc399621853b57"),
}
# No checksum of it was published. What can be checked is: gzip's own CRC to the end, both members, the number of rows.
CORPUS = Archive("https://www.cs.cmu.edu/~ark/personas/data/MovieSummaries.tar.gz", "")
ARTICLES_MEMBER, PLOTS_MEMBER = "MovieSummaries/movie.metadata.tsv", "MovieSummaries/plot_summaries.txt"
KNOWN_ROWS = {ARTICLES_MEMBER: 81_741, PLOTS_MEMBER: 42_303}
_MEMBERS = ("movies.csv", "ratings.csv", "tags.csv", "links.csv", "README.txt")
_COLUMNS = ("movieId", "title", "overview", "overview_match", "wikipedia_id")
_MOST_BYTES = 2 << 30  # of a member; the largest, ml-32m's ratings, has 0.9 GB
_LICENCE = """\
The files in this folder come from two sources, and their terms differ.

movies.csv, ratings.csv, tags.csv, links.csv, README.txt: {movielens} of GroupLens, University of Minnesota
    ({movielens_url}), unchanged. Terms: README.txt. For research; not for
    commercial use without permission; to be cited as F. Maxwell Harper and Joseph A. Konstan, The MovieLens
    Datasets: History and Context, ACM TiiS 5(4), 2015. Titles and ids in texts.csv are theirs.

texts.csv, column overview: plots from articles of the English Wikipedia of November 2012, by their authors, as
    collected in the CMU Movie Summary Corpus (David Bamman, Brendan O'Connor, Noah A. Smith: Learning Latent
    Personas of Film Characters, ACL 2013; {corpus_url}).
    Licence: Creative Commons Attribution-ShareAlike 3.0, https://creativecommons.org/licenses/by-sa/3.0/
    What is made of them is to be shared under the same licence, with the authors named: the article of a film, with
    its history, is https://en.wikipedia.org/?curid=<its wikipedia_id>.
    Changed: what was left of markup was taken out, and the plot ends after the last whole sentence within {most}
    characters. Joined to films by title and year; overview_match says how.

{sums}
"""


def unpack(path: Path, name: str, folder: Path) -> None:
    """The members of MovieLens' zip that are named above, and no other, beside each other in `folder`."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in _MEMBERS:
                info = archive.getinfo(f"{name}/{member}")
                if info.file_size > _MOST_BYTES:
                    fail(f"{path}: {info.filename} has {info.file_size:,} bytes, at most {_MOST_BYTES:,} are expected")
                target = folder / member
                if not target.exists():
                    with archive.open(info) as source:
                        write(target, source)
                elif target.stat().st_size != info.file_size or _crc(target) != info.CRC:
                    fail(f"{target}: differs from {info.filename} in {path}: move it away to have this one")
    except KeyError as error:
        fail(f"{path}: has no {name}/... as expected ({error.args[0]}): remove it and run this again")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        path.unlink()
        fail(f"{path}: is no intact zip ({error}); it was removed; the same command fetches it again")


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def write(path: Path, source: BinaryIO) -> None:
    """All of it or nothing: renamed when it is complete."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        shutil.copyfileobj(source, file, BLOCK)
    partial.replace(path)


def read_corpus(path: Path) -> tuple[list[Article], dict[str, str]]:
    """Articles with their titles and years, and plots by the article's number."""
    texts: dict[str, str] = {}
    try:
        with gzip.open(path) as whole:
            with tarfile.open(fileobj=whole, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if name in KNOWN_ROWS and member.isfile() and member.size <= _MOST_BYTES:
                        texts[name] = archive.extractfile(member).read().decode("utf-8", "replace")
            while whole.read(BLOCK):  # to the end, where gzip's CRC is
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        path.unlink()
        fail(f"{path}: is no intact .tar.gz ({error}); it was removed; the same command fetches it again")
    if missing := [name for name in KNOWN_ROWS if name not in texts]:
        fail(f"{path}: has no {' and no '.join(missing)}: remove it and run this again")
    rows = {name: [line.split("\t") for line in text.split("\n") if line] for name, text in texts.items()}
    articles = [
        Article(row[0], row[2], int(row[3][:4]) if re.match(r"\d{4}", row[3]) else None)
        for row in rows[ARTICLES_MEMBER]
        if len(row) >= 4
    ]
    told = [tuple(row) for row in rows[PLOTS_MEMBER] if len(row) == 2]
    num_bad = sum(map(len, rows.values())) - len(articles) - len(told)
    counts = [f"{len(rows[name]):,} of {known:,} known rows in {name}" for name, known in KNOWN_ROWS.items()]
    print(f"{path.name}: intact; {'; '.join(counts)}; {num_bad} unreadable rows left out", file=sys.stderr)
    return articles, dict(told)


def texts_of(films: dict[str, str], articles: list[Article], plots: dict[str, str]) -> tuple[str, Counter[str]]:
    """texts.csv, and how many films came to what end."""
    counts: Counter[str] = Counter()
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for film, match in match_films(films, articles).items():
        outcome, article = match
        plot = first_sentences(clean_plot(plots.get(article.number, ""))) if article else ""
        counts[outcome if plot or not article else "no plot"] += 1
        if plot:
            how = "title and year" if outcome == SAME_YEAR else f"title; year {article.year}"
            writer.writerow((film, films[film], plot, how, article.number))
    return table.getvalue(), counts


def read_films(path: Path) -> dict[str, str]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"movieId", "title"} <= set(rows.fieldnames or ()):
            fail(f"{path}: expected the columns movieId and title, got {rows.fieldnames}: is this MovieLens?")
        return {row["movieId"]: row["title"] or "" for row in rows}


def summary(name: str, counts: Counter[str]) -> str:
    """The table of what the join came to."""
    rows = [
        (f"films of {name}", counts.total()),
        ("joined by title and year", counts[SAME_YEAR]),
        ("joined by title, a year apart", counts[ANOTHER_YEAR]),
        ("ambiguous, left out", counts[AMBIGUOUS]),
        ("in the corpus without a plot", counts["no plot"]),
        ("not found", counts[NOT_FOUND]),
    ]
    return "\n".join(f"{label:30} {count:7,}" for label, count in rows)


def prepare(folder: Path, name: str, movielens: Archive, corpus: Archive) -> None:
    downloads, films_folder = folder / "downloads", folder / name
    texts = films_folder / "texts.csv"
    header = ",".join(_COLUMNS).encode()
    if texts.is_file() and not texts.read_bytes().startswith(header):
        fail(f"{texts}: was not made by this script: move it away to have another one")
    for made in (downloads, films_folder):
        made.mkdir(parents=True, exist_ok=True)
    zipped, tarred = downloads / f"{name}.zip", downloads / "MovieSummaries.tar.gz"
    bring(movielens, zipped)
    bring(corpus, tarred)
    unpack(zipped, name, films_folder)
    content, counts = texts_of(read_films(films_folder / "movies.csv"), *read_corpus(tarred))
    if not counts[SAME_YEAR]:
        fail(f"{tarred}: no film of {name} is in it: is it the CMU Movie Summary Corpus?")
    if texts.is_file() and texts.read_bytes() != content.encode():
        fail(f"{texts}: differs from what this writes: move it away to have it made anew")
    sums = "\n".join(f"sha256 {checksum(path, 'sha256')}  {path.name}" for path in (zipped, tarred))
    licence = _LICENCE.format(
        movielens=name, movielens_url=movielens.url, corpus_url=corpus.url, most=MOST_CHARACTERS, sums=sums
    )
    write(films_folder / "TEXTS_LICENCE.txt", io.BytesIO(licence.encode()))
    if not texts.is_file():
        write(texts, io.BytesIO(content.encode()))
    print(summary(name, counts))
    print(f"{texts} is there; what may be done with it: {films_folder / 'TEXTS_LICENCE.txt'}")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="launch/prepare_data.py", description="Films, ratings and plots.")
    parser.add_argument("folder", type=Path, help="what EAGLE_DATA names then")
    parser.add_argument("--movielens", choices=MOVIELENS, default="ml-latest-small")
    parser.add_argument("--accept_sha256", metavar="SUM", help="of MovieLens' zip, in place of the one that is known")
    parser.add_argument("--movielens_url", metavar="URL", help="of a mirror of MovieLens' zip; the checksum stays")
    parser.add_argument("--plots_url", metavar="URL", default=CORPUS.url, help="of a mirror of MovieSummaries.tar.gz")
    options = parser.parse_args(arguments)
    movielens = MOVIELENS[options.movielens]
    if options.accept_sha256:
        movielens = movielens._replace(checksum=f"sha256:{options.accept_sha256.lower()}")
    movielens = movielens._replace(url=options.movielens_url or movielens.url)
    for url in (movielens.url, options.plots_url):
        if not url.startswith(("http://", "https://")):
            fail(f"{url}: expected an address with http:// or https://")
    try:
        prepare(options.folder, options.movielens, movielens, CORPUS._replace(url=options.plots_url))
    except KeyboardInterrupt:
        print(f"\nlaunch/prepare_data.py: interrupted; {AGAIN}", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        place = error.filename or options.folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(f"{place}: the disk is full: free some of it; {AGAIN}")
        fail(
            f"{place}: {os.strerror(error.errno) if error.errno else error}: is {options.folder} a folder to write to?"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
