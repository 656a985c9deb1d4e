"""The command as people meet it: a server that is killed and goes on, and a browser in front of it."""

import contextlib
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest

from eagle_jax.eagle.evaluation.rater_form import QUESTIONS
from eagle_jax.pages.rated_run import read_rated_run
from eagle_jax.pages.rating_store import RatingStore
from tests.pages import browser
from tests.pages.made_up_run import write_run

pytest.importorskip("uvicorn", reason="the pages need uvicorn: pip install 'eagle_jax[pages]'")


@contextlib.contextmanager
def served(workdir, *flags):
    """(process, address of the raters, address of the results) of a server on any free port."""
    command = [sys.executable, "-m", "eagle_jax", "rate", f"--workdir={workdir}", "--port=0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = [process.stdout.readline() for _ in range(3)]
            addresses = re.findall(r"http://\S+", "".join(said))
            assert len(addresses) == 2, said + process.stdout.readlines()
            yield process, *addresses
        finally:
            process.kill()


def send(address, **fields):
    """The page that is there in the end, and its address."""
    origin = "/".join(address.split("/")[:3])
    data = urllib.parse.urlencode(fields).encode() if fields else None
    with urllib.request.urlopen(urllib.request.Request(address, data, {"Origin": origin})) as answer:
        return answer.read().decode(), answer.url


def answered(page, **others):
    place = re.search(r'name="place" value="(\d+)"', page)[1]
    return {f"q{number}": question.options[0] for number, question in QUESTIONS.items()} | {"place": place, **others}


def test_a_server_that_is_killed_loses_nothing_and_goes_on(tmp_path):
    workdir = write_run(tmp_path)
    with served(workdir) as (process, raters, results):
        page, form = send(f"{raters}begin", agreed="yes")
        following, _ = send(form, **answered(page))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    (kept,) = kept_forms(workdir)
    assert kept.answers[1] == "A" and kept.answers[5] == 1
    with served(workdir) as (process, raters, again):
        assert again.split("/results/")[1] == results.split("/results/")[1]
        code = form.rsplit("/", 1)[1]
        page, found = send(f"{raters}resume", code=code)
        assert found == f"{raters}form/{code}" and page == following
        send(found, **answered(page))
        assert "Krippendorff" in send(again)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stdout.read().endswith("interrupted; the same command resumes\n")
    assert len(kept_forms(workdir)) == 2


def kept_forms(workdir):
    return RatingStore(workdir / "ratings.sqlite", {}, read_rated_run(workdir).checks, 3, 0).forms()


def test_beyond_loopback_the_address_has_a_token(tmp_path):
    with served(write_run(tmp_path), "--host=0.0.0.0") as (_, raters, results):
        raters = raters.replace("0.0.0.0", "127.0.0.1")
        assert re.fullmatch(r"http://127.0.0.1:\d+/[\w-]{16}/", raters)
        assert results.replace("0.0.0.0", "127.0.0.1").startswith(f"{raters}results/")
        assert "I have read this" in send(raters)[0]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            send("/".join(raters.split("/")[:3]) + "/")


@browser.needed
def test_in_a_browser_by_keyboard_on_a_small_screen_in_the_dark(tmp_path):
    wicked = "</p><script>document.title = 'taken'</script><img src=x onerror='document.title = 1'> of {} {}"
    long_word = "a" * 200
    workdir = write_run(tmp_path / "run", num_pairs=8, new_text=f"{wicked} {long_word}")
    with contextlib.ExitStack() as stack:
        process, raters, results = stack.enter_context(served(workdir))
        page = stack.enter_context(browser.opened(tmp_path / "profile"))
        browser.make_small(page)

        def check():
            browser.check_on_a_small_screen(page)
            named = "[...document.querySelectorAll('input:not([type=hidden])')].every(e => e.labels.length === 1)"
            assert page.run(named)

        page.open("data:text/html,<title>x</title><p style='color: %23bbb'>pale <img src=x> <input>")
        found = " ".join(browser.found_by_axe(page))
        assert all(rule in found for rule in ("serious, color-contrast", "critical, image-alt", "critical, label"))
        page.open(raters)
        grounds = []
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
        assert len(set(grounds)) == 2
        check()
        page.tab_to("name === 'agreed'")
        page.space()
        page.tab_to("innerText === 'Begin'")
        page.enter()
        check()
        assert (
            page.run("document.title") == "Form 1" and page.run("document.scripts.length + document.images.length") == 0
        )
        assert "<script>document.title" in page.run("document.body.innerText")
        for number in QUESTIONS:
            page.tab_to(f"name === 'q{number}'")
            page.space()
        page.tab_to("innerText === 'Send and go on'")
        page.enter()
        assert page.run("document.title") == "Form 2"
        (kept,) = kept_forms(workdir)
        form = page.run("location.href")
        page.run("document.querySelector('main form').noValidate = true")  # a browser would not send it
        page.tab_to("innerText === 'Send and go on'")
        page.enter()
        assert page.run("document.querySelectorAll('fieldset.missing').length") == 11
        check()
        # The server is killed while the form is open, and another one goes on at its address.
        process.kill()
        process.wait()
        again = stack.enter_context(served(workdir, f"--port={raters.rsplit(':', 1)[1].strip('/')}"))
        assert again[1:] == (raters, results)
        for number in QUESTIONS:
            page.tab_to(f"name === 'q{number}'")
            page.space()
        page.tab_to("innerText === 'Send and go on'")
        page.enter()
        assert page.run("document.title") == "Form 3" and len(kept_forms(workdir)) == 2
        sent, _ = send(form)
        while "checks that forms are read" not in sent:
            sent, _ = send(form, **answered(sent))
        for address in (form, results):  # a form that is a check of attention, and the tables
            page.open(address)
            check()
        assert page.run("document.querySelector('a').textContent") == "All answers as CSV"
        page.open(raters)
        page.tab_to("name === 'code'")
        page.call("Input.insertText", text="0000-0000-0000")
        page.enter()
        assert "Nobody has this code" in page.run("document.querySelector('[role=alert]').innerText")
        check()
        page.open(f"{raters}nothing")
        check()
    assert kept.answers == {number: "A" if question.ends is None else 1 for number, question in QUESTIONS.items()}


@browser.needed
def test_the_documentation_shows_a_form(finished, tmp_path):
    with served(finished.copy(tmp_path / "run")) as (_, raters, _), browser.opened(tmp_path / "profile") as page:
        _, form = send(f"{raters}begin", agreed="yes")
        page.open(form)
        parts = (
            "h1",
            "[aria-labelledby=about-1]",
            ".texts",
            *(f"fieldset:nth-of-type({number})" for number in (1, 2, 3)),
        )
        browser.check_picture(page, "rating", *parts)
