"""launch/prepare_data.py: small archives in the real formats, from a server on loopback in place of the two sources."""

import csv
import hashlib
import importlib
import io
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eagle_jax.data.prompts import MOVIE, parse_blocks
from eagle_jax.data.readers.movielens import read_movielens
from experiments.configs import eagle_films

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "prepare_data.py"
FILMS = {
    "movies.csv": (
        "movieId,title,genres\n"
        '1,"Matrix, The (1999)",Action|Sci-Fi\n'
        "2,Ghosts of Mars (2001),Horror\n"
        '3,"Dinner Game, The (Dîner de cons, Le) (1998)",Comedy\n'
        "4,Hamlet (1990),Drama\n"
        "5,Without a Plot (1980),Drama\n"
        "6,Nowhere (1997),Drama\n"
    ),
    "ratings.csv": "userId,movieId,rating,timestamp\n7,1,4.5,1\n7,2,1.0,2\n8,3,5.0,3\n8,6,2.0,4\n",
    "tags.csv": "userId,movieId,tag,timestamp\n7,1,mind bending,1\n",
    "links.csv": "movieId,imdbId,tmdbId\n1,0133093,603\n",
    "README.txt": "Terms of use.\n",
}
# As in the corpus: number, Freebase's id, title, date, revenue, runtime, languages, countries, genres.
ARTICLES = "".join(
    f'{number}\t/m/0{number}\t{title}\t{date}\t\t98.0\t{{"/m/02h40lc": "English Language"}}\t{{}}\t{{}}\n'
    for number, title, date in (
        (30007, "The Matrix", "1999-03-31"),
        (975900, "Ghosts of Mars", "2001-08-24"),
        (50, "Le Dîner de Cons", "1997"),
        (60, "Hamlet", "1990-12-19"),
        (61, "Hamlet", "1990"),
        (70, "Without a Plot", "1980"),
        (80, "Undated", ""),
    )
)
PLOTS = (
    "975900\tSet in the second half of the 22nd century , the film depicts Mars {{Plot|date=2010}} as a planet.\n"
    "30007\tA hacker learns the truth.\n"
    '50\tEvery Wednesday, Pierre brings an "idiot" to dinner.\n'
    "60\tA prince hesitates.\n"
    "61\tAnother prince hesitates.\n"
)
MADE = {*FILMS, "texts.csv", "TEXTS_LICENCE.txt"}


def zip_of(members):
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def tar_of(members):
    with tarfile.open(fileobj=(made := io.BytesIO()), mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(content or b"")
            archive.addfile(info, io.BytesIO(content) if content is not None else None)
    return made.getvalue()


MOVIELENS = {f"ml-latest-small/{name}": content for name, content in FILMS.items()}
CORPUS = {
    "MovieSummaries/plot_summaries.txt": PLOTS.encode(),
    "MovieSummaries/tvtropes.clusters.txt": b"fall_guy\t{}\n",
    "MovieSummaries/movie.metadata.tsv": ARTICLES.encode(),
}


class Server(ThreadingHTTPServer):
    """Both archives, with Range or without; `asked` has what came, `breaks_after` bytes it breaks off, once."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/small.zip": zip_of(MOVIELENS), "/plots.tar.gz": tar_of(CORPUS)}
        self.asked, self.has_ranges, self.breaks_after, self.when_broken = [], True, None, lambda: None

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, ranged = self.server, self.headers.get("Range")
        server.asked.append((self.path, ranged))
        if self.path not in server.files:
            return self.send_error(404)
        content = whole = server.files[self.path]
        start = int(ranged.removeprefix("bytes=").removesuffix("-")) if ranged and server.has_ranges else 0
        if start >= len(whole):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(whole)}")
            return self.end_headers()
        content = whole[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if server.breaks_after is not None:
            content, server.breaks_after = content[: server.breaks_after], None
            self.wfile.write(content)
            return server.when_broken()
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def program(monkeypatch):
    """A module of launch/, as the script itself sees it."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    return importlib.import_module


@pytest.fixture
def prepare(program, server, monkeypatch, capsys, tmp_path):
    """Calls the script on tmp_path/data: exit code, stdout, stderr."""
    script = program("prepare_data")
    digest = hashlib.sha256(server.files["/small.zip"]).hexdigest()
    archive = script.Archive(server.url("small.zip"), f"sha256:{digest}")
    monkeypatch.setitem(script.MOVIELENS, "ml-latest-small", archive)

    def call(*flags):
        try:
            script.main([str(tmp_path / "data"), f"--plots_url={server.url('plots.tar.gz')}", *flags])
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        return code, *capsys.readouterr()

    call.script, call.folder = script, tmp_path / "data"
    return call


def made_by(folder):
    return {path.name: path.read_bytes() for path in (folder / "ml-latest-small").iterdir()}


def test_a_whole_run_is_read_by_the_config_and_a_second_one_fetches_and_writes_nothing(prepare, server, monkeypatch):
    code, out, err = prepare()
    assert code == 0, err
    films = prepare.folder / "ml-latest-small"
    assert {path.name for path in films.iterdir()} == MADE
    assert [line.rsplit(None, 1) for line in out.splitlines()[:6]] == [
        ["films of ml-latest-small", "6"],
        ["joined by title and year", "2"],
        ["joined by title, a year apart", "1"],
        ["ambiguous, left out", "1"],
        ["in the corpus without a plot", "1"],
        ["not found", "1"],
    ]
    assert "7 of 81,741 known rows in MovieSummaries/movie.metadata.tsv" in err and "small.zip: 0.0 of 0.0 MB" in err
    licence = (films / "TEXTS_LICENCE.txt").read_text()
    for archive in server.files.values():
        assert hashlib.sha256(archive).hexdigest() in licence
    assert "Attribution-ShareAlike 3.0" in licence and server.url("plots.tar.gz") in licence

    monkeypatch.setenv("EAGLE_DATA", str(prepare.folder))
    files = eagle_films.get_config().catalogue.movielens
    catalogue, report = read_movielens(Path(files.folder), Path(files.texts_file), files.text)
    assert (report.num_items, report.num_items_without_text, len(report.bad_rows)) == (6, 3, 0)
    plots = [parse_blocks(text, MOVIE.blocks, may_be_empty=True)["PLOT"] for text in catalogue.descriptions]
    told = dict(zip((film.entity_id for film in catalogue.entities), plots, strict=True))
    assert told == {
        "1": "Genres: Action, Sci-Fi. Year: 1999. Plot: A hacker learns the truth.",
        "2": "Genres: Horror. Year: 2001. Plot: Set in the second half of the 22nd century, the film depicts Mars "
        "as a planet.",
        "3": 'Genres: Comedy. Year: 1998. Plot: Every Wednesday, Pierre brings an "idiot" to dinner.',
    }
    with open(films / "texts.csv", newline="") as file:
        rows = [(row["overview_match"], row["wikipedia_id"]) for row in csv.DictReader(file)]
    assert rows == [("title and year", "30007"), ("title and year", "975900"), ("title; year 1997", "50")]

    assert server.asked == [("/small.zip", None), ("/plots.tar.gz", None)]
    before, times = made_by(prepare.folder), {name: (films / name).stat().st_mtime_ns for name in (*FILMS, "texts.csv")}
    assert prepare()[0] == 0
    assert len(server.asked) == 2 and made_by(prepare.folder) == before
    assert times == {name: (films / name).stat().st_mtime_ns for name in times}


@pytest.mark.parametrize("has_ranges", [True, False])
def test_what_broke_off_goes_on_from_there_or_begins_anew_where_the_server_cannot(prepare, server, has_ranges):
    server.breaks_after = 300
    code, _, err = prepare()
    size = len(server.files["/small.zip"])
    partial = prepare.folder / "downloads" / "ml-latest-small.zip.partial"
    assert code == 2 and err.splitlines()[-1] == (
        f"launch/prepare_data.py: {server.url('small.zip')}: broke off at 300 of {size} bytes, which are in {partial}; "
        "the same command goes on from there"
    )
    assert partial.read_bytes() == server.files["/small.zip"][:300]
    server.has_ranges = has_ranges
    assert prepare()[0] == 0
    assert server.asked == [("/small.zip", None), ("/small.zip", "bytes=300-"), ("/plots.tar.gz", None)]
    assert partial.with_suffix("").read_bytes() == server.files["/small.zip"]
    assert not partial.exists() and {path.name for path in (prepare.folder / "ml-latest-small").iterdir()} == MADE


def test_a_killed_run_goes_on_without_a_package_installed(server, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    partial = downloads / "ml-latest-small.zip.partial"
    partial.write_bytes(server.files["/small.zip"][:100])
    digest = hashlib.sha256(server.files["/small.zip"]).hexdigest()
    command = [sys.executable, "-S", "-E", str(SCRIPT), str(tmp_path), f"--accept_sha256={digest}"]
    command += [f"--movielens_url={server.url('small.zip')}", f"--plots_url={server.url('plots.tar.gz')}"]
    started, answered = threading.Event(), threading.Event()

    def kill():
        assert started.wait(20)
        running.kill()
        answered.set()

    server.breaks_after, server.when_broken = 200, kill
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    started.set()
    assert answered.wait(20) and running.wait() == -9
    size = partial.stat().st_size
    assert 100 <= size <= 300
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert server.asked == [("/small.zip", "bytes=100-"), ("/small.zip", f"bytes={size}-"), ("/plots.tar.gz", None)]
    assert {path.name for path in (tmp_path / "ml-latest-small").iterdir()} == MADE


def test_what_was_killed_before_its_renaming_is_taken_and_what_is_too_long_is_not(prepare, server):
    downloads = prepare.folder / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "ml-latest-small.zip.partial").write_bytes(server.files["/small.zip"])
    (downloads / "MovieSummaries.tar.gz.partial").write_bytes(server.files["/plots.tar.gz"] + b"more")
    assert prepare()[0] == 0
    small, plots = (len(content) for content in server.files.values())
    assert server.asked == [
        ("/small.zip", f"bytes={small}-"),
        ("/plots.tar.gz", f"bytes={plots + 4}-"),
        ("/plots.tar.gz", None),
    ]


def test_another_checksum_is_refused_in_a_sentence_unless_it_is_accepted(prepare, server):
    expected = hashlib.sha256(server.files["/small.zip"]).hexdigest()
    server.files["/small.zip"] = zip_of(MOVIELENS | {"ml-latest-small/README.txt": "Renewed.\n"})
    got = hashlib.sha256(server.files["/small.zip"]).hexdigest()
    code, _, err = prepare()
    path = prepare.folder / "downloads" / "ml-latest-small.zip"
    assert code == 2 and err.splitlines()[-1] == (
        f"launch/prepare_data.py: {path}: expected sha256 {expected}, got {got}; it was removed; the same command "
        f"fetches it again; GroupLens renews it now and then: if it did, --accept_sha256={got} takes the new one"
    )
    assert list(path.parent.iterdir()) == []
    assert prepare(f"--accept_sha256={got}")[0] == 0
    assert (prepare.folder / "ml-latest-small" / "README.txt").read_text() == "Renewed.\n"


def test_nothing_is_written_beside_the_folder_and_no_other_member(prepare, server, tmp_path):
    evil = {
        "../evil.csv": "x",
        "ml-latest-small/../../evil.csv": "x",
        "/tmp/evil.csv": "x",
        "ml-latest-small/x.csv": "x",
    }
    server.files["/small.zip"] = zip_of(evil | MOVIELENS)
    server.files["/plots.tar.gz"] = tar_of({"../evil.txt": b"x", "MovieSummaries/../../evil.txt": b"x"} | CORPUS)
    digest = hashlib.sha256(server.files["/small.zip"]).hexdigest()
    assert prepare(f"--accept_sha256={digest}")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert {path.name for path in prepare.folder.iterdir()} == {"downloads", "ml-latest-small"}
    assert {path.name for path in (prepare.folder / "ml-latest-small").iterdir()} == MADE


def test_links_in_an_archive_sizes_and_missing_members_are_refused(prepare, server, monkeypatch):
    plots = prepare.folder / "downloads" / "MovieSummaries.tar.gz"
    server.files["/plots.tar.gz"] = tar_of(CORPUS | {"MovieSummaries/plot_summaries.txt": None})
    code, _, err = prepare()
    assert code == 2 and f"{plots}: has no MovieSummaries/plot_summaries.txt: remove it" in err.splitlines()[-1]
    shutil.rmtree(prepare.folder)
    monkeypatch.setattr(prepare.script, "_MOST_BYTES", 20)
    code, _, err = prepare()
    assert code == 2 and "movies.csv has" in err and "at most 20 are expected" in err
    assert list((prepare.folder / "ml-latest-small").iterdir()) == []


def test_a_damaged_corpus_is_found_without_a_checksum(prepare, server):
    whole = server.files["/plots.tar.gz"]
    for damaged in (whole[:-20], whole[:-6] + b"\0\0" + whole[-4:], b"<html>Not Found</html>"):
        server.files["/plots.tar.gz"] = damaged
        code, _, err = prepare()
        assert code == 2 and "is no intact .tar.gz" in err.splitlines()[-1] and "removed" in err
        assert [path.name for path in (prepare.folder / "downloads").iterdir()] == ["ml-latest-small.zip"]
    assert not (prepare.folder / "ml-latest-small" / "texts.csv").exists()
    server.files["/plots.tar.gz"] = whole
    assert prepare()[0] == 0


def test_what_is_there_and_differs_is_named_and_stays(prepare, server):
    films = prepare.folder / "ml-latest-small"
    films.mkdir(parents=True)
    (films / "texts.csv").write_text("movieId,overview\n1,Mine.\n")
    code, _, err = prepare()
    assert code == 2 and f"{films / 'texts.csv'}: was not made by this script: move it away" in err
    assert server.asked == []
    (films / "texts.csv").unlink()
    assert prepare()[0] == 0
    for name in ("texts.csv", "ratings.csv"):
        before = (films / name).read_bytes()
        (films / name).write_bytes(before + b"1,2,3,4,5\n")
        code, _, err = prepare()
        assert code == 2 and f"{films / name}: differs from" in err and "move it away" in err
        assert (films / name).read_bytes() == before + b"1,2,3,4,5\n"
        (films / name).write_bytes(before)


def test_what_network_and_disk_refuse_is_one_line_with_what_to_do(prepare, server, monkeypatch):
    def refusal(*flags):
        code, _, err = prepare(*flags)
        assert code == 2 and len(err.splitlines()) == 1
        return err

    path = prepare.folder / "downloads" / "ml-latest-small.zip"
    told = refusal(f"--movielens_url={server.url('gone.zip')}")
    assert f"HTTP 404 Not Found: try again later, or fetch it by other means to {path}" in told
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        told = refusal(f"--movielens_url=http://127.0.0.1:{closed.getsockname()[1]}/small.zip")
    assert "could not be reached" in told and "is there a network" in told
    assert "expected an address with http" in refusal("--movielens_url=file:///etc/passwd")
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: usage(10))
        assert "bytes are to be fetched and 10 are free" in refusal()
    shutil.rmtree(prepare.folder)
    prepare.folder.write_text("a file")
    assert f"is {prepare.folder} a folder to write to?" in refusal()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_said(prepare):
    downloads = prepare.folder / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "ml-latest-small.zip.partial").symlink_to("/dev/full")
    code, _, err = prepare()
    assert (code, len(err.splitlines())) == (2, 1) and "the disk is full: free some of it" in err


def test_the_table_is_well_formed(program):
    for name, archive in program("prepare_data").MOVIELENS.items():
        algorithm, digits = archive.checksum.split(":")
        assert len(bytes.fromhex(digits)) == hashlib.new(algorithm).digest_size
        assert archive.url == f"https://files.grouplens.org/datasets/movielens/{name}.zip"
