"""The raters' pages: consent, forms, codes, who may send what, and text that stays text."""

import html
import re
import sys

import pytest

starlette = pytest.importorskip("starlette", reason="the pages need starlette: pip install 'eagle_jax[pages]'")
from starlette.testclient import TestClient  # noqa: E402

from eagle_jax.eagle.evaluation.rater_form import QUESTIONS  # noqa: E402
from eagle_jax.pages import web  # noqa: E402
from eagle_jax.pages.rating_site import RatingSite  # noqa: E402
from eagle_jax.pages.web import is_loopback  # noqa: E402
from tests.pages.made_up_run import open_store, write_run  # noqa: E402

HERE = "http://127.0.0.1:8000"
ALL = {f"q{number}": question.options[-1] for number, question in QUESTIONS.items()}


def open_site(workdir, token="", **details):
    run, store = open_store(write_run(workdir, **details))
    site = RatingSite(run=run, store=store, consent=["Consent <b>text</b>."], token=token, key="key")
    return TestClient(site.app(), base_url=HERE, headers={"Origin": HERE}, follow_redirects=False), store


@pytest.fixture
def site(tmp_path):
    return open_site(tmp_path)


def begin(client, root=""):
    done = client.post(f"{root}/begin", data={"agreed": "yes"})
    assert done.status_code == 303
    return done.headers["location"]


def sections(page):
    """What stands in each section, as a person reads it."""
    found = re.findall(r"<section.*?</section>", page, re.DOTALL)
    return [html.unescape(" ".join(re.sub("<[^>]+>", " ", section).split())) for section in found]


def test_nobody_is_asked_before_they_agree(site):
    client, store = site
    page = client.get("/")
    assert "Consent &lt;b&gt;text&lt;/b&gt;." in page.text and "<fieldset" not in page.text
    refused = client.post("/begin", data={})
    assert refused.status_code == 400 and "say that you agree" in refused.text
    assert begin(client).startswith("/form/")


def test_a_form_shows_profile_texts_and_eleven_questions(site):
    client, _ = site
    page = client.get(begin(client))
    user, *texts = sections(page.text)
    assert re.match(r"The user user \d loves deserts", user)
    assert [text[:6] for text in texts] == ["Text A", "Text B"]
    assert sorted("anchor" in text for text in texts) == [False, True]
    assert all("Reasons to like it is warm" in text for text in texts)
    legends = re.findall("<legend>(.*?)</legend>", page.text)
    assert [legend.split(".")[0] for legend in legends] == [str(number) for number in range(1, 12)]
    assert "I would choose the film of text A." in legends[5]
    for number, question in QUESTIONS.items():
        assert re.findall(rf'name="q{number}" value="(\w)" required', page.text) == list(question.options)


def test_a_form_is_blind(tmp_path):
    """The page with the texts the other way round differs in nothing but their places."""
    client, store = open_site(tmp_path)
    location = begin(client)
    page = client.get(location).text
    with store._transaction() as connection:
        connection.execute("UPDATE forms SET label = CASE label WHEN 'A' THEN 'B' ELSE 'A' END")
    turned = client.get(location).text
    assert turned != page and sorted(turned.splitlines()) == sorted(page.splitlines())


def test_a_rater_goes_through_all_forms(site):
    client, store = site
    location = begin(client)
    shown = []
    while "nothing left to rate" not in (page := client.get(location).text):
        shown.append(sections(page)[1:])
        place = re.search(r'name="place" value="(\d+)"', page)[1]
        done = client.post(location, data=ALL | {"place": place})
        assert (done.status_code, done.headers["location"]) == (303, location)
    kept = store.forms()
    assert len(kept) == len(shown) and sum(form.expected is None for form in kept) == 4
    assert all(form.answers[1] == "B" and form.answers[5] == 5 for form in kept)
    for form, (text_a, _) in zip(kept, shown, strict=True):
        assert ("new text" in text_a) == (form.label == "A")


def test_what_is_missing_is_named_and_what_was_answered_stays(site):
    client, store = site
    location = begin(client)
    some = {"place": "0", "q1": "B", "q3": "2"}
    page = client.post(location, data=some)
    assert page.status_code == 400 and "Please answer questions 2, 4, 5, 6, 7, 8, 9, 10, 11 as well." in page.text
    assert re.findall(r'name="(q\d+)" value="(\w)" required checked', page.text) == [("q1", "B"), ("q3", "2")]
    page = client.post(location, data={"place": "0"})
    assert page.status_code == 400 and "questions 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 as well" in page.text
    assert client.post(location, data=ALL | {"place": "0", "q1": "C"}).status_code == 400
    assert store.forms() == []


def test_a_form_that_is_sent_twice_counts_once(site):
    client, store = site
    location = begin(client)
    client.post(location, data=ALL | {"place": "0"})
    again = client.post(location, data=ALL | {"place": "0", "q1": "A"})
    assert again.status_code == 303
    (form,) = store.forms()
    assert form.answers[1] == "B"


def test_a_code_leads_back_to_the_same_form(site):
    client, _ = site
    location = begin(client)
    client.post(location, data=ALL | {"place": "0"})
    page = client.get(location).text
    code = location.removeprefix("/form/")
    assert f"<strong>{code}</strong>" in page
    resumed = client.post("/resume", data={"code": f" {code.replace('-', '').upper()} "})
    assert resumed.headers["location"] == location and client.get(location).text == page
    for wrong in ("0000-0000-0000", "../results/key", ""):
        refused = client.post("/resume", data={"code": wrong})
        assert refused.status_code == 400 and "Nobody has this code" in refused.text
    assert client.get("/form/0000-0000-0000").status_code == 404


def test_text_from_models_is_inert(tmp_path):
    wicked = '<script>alert(1)</script><img src=x onerror=alert(1)> "quoted" {{{{ 7*7 }}}} \u202egnihton {}{}'
    client, _ = open_site(tmp_path, new_text=wicked)
    page = client.get(begin(client))
    assert "<script" not in page.text and "<img" not in page.text and "\u202e" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text and "{{ 7*7 }}" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
    assert " on" not in " ".join(re.findall("<[^>]+>", page.text)) and "javascript:" not in page.text
    for response in (page, client.get("/nothing"), client.post("/begin", headers={"Origin": "http://evil"})):
        assert response.headers["content-security-policy"] == policy
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:9000"])
def test_what_another_site_sends_is_refused(origin, site):
    client, store = site
    assert client.post("/begin", data={"agreed": "yes"}, headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "[::"])
def test_another_name_that_leads_here_is_refused(host, site):
    assert site[0].get("/", headers={"Host": host}).status_code in (400, 421)


def test_with_a_token_in_the_address_nothing_is_there_without_it(tmp_path):
    client, _ = open_site(tmp_path, token="secret")
    assert client.get("/", headers={"Host": "10.0.0.5:8000"}).status_code == 404
    page = client.get("/secret/", headers={"Host": "10.0.0.5:8000"})
    assert page.status_code == 200
    assert set(re.findall(r'(?:href|action)="(.*?)"', page.text)) == {
        "/secret/style.css",
        "/secret/begin",
        "/secret/resume",
    }
    location = begin(client, "/secret")
    assert location.startswith("/secret/form/") and client.get(location).status_code == 200
    assert client.get("/form/" + location.split("/")[-1]).status_code == 404


def test_results_and_answers_are_for_who_has_the_key(site):
    client, _ = site
    location = begin(client)
    client.post(location, data=ALL | {"place": "0"})
    for address in ("/results/", "/answers.csv/"):
        assert client.get(address + "other").status_code == 404
    page = client.get("/results/key").text
    assert "People: 1;" in page and "Krippendorff" in page
    answers = client.get("/answers.csv/key")
    assert answers.headers["content-disposition"] == "attachment; filename=ratings.csv"
    assert len(answers.text.splitlines()) == 2
    assert location.split("/")[-1] not in answers.text  # the code is a key as well


@pytest.mark.parametrize(
    "path", ["/../evaluation/MANIFEST.json", "/%2e%2e/ratings.sqlite", "/ratings.sqlite", "/form/..%2fratings.sqlite"]
)
def test_no_file_of_the_run_is_served(path, site):
    assert site[0].get(path).status_code == 404


def test_what_cannot_be_saved_is_said_and_can_be_sent_again(site, capsys):
    client, store = site
    location = begin(client)
    # As where the disk is full: the statement is refused in the middle of the transaction.
    with store._transaction() as connection:
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON forms BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    refused = client.post(location, data=ALL | {"place": "0"})
    assert refused.status_code == 503 and "send it once more" in refused.text
    assert capsys.readouterr().err == f"eagle-jax: {store.path}: cannot be used for ratings: disk is full\n"
    with store._transaction() as connection:
        connection.execute("DROP TRIGGER full")
    assert client.post(location, data=ALL | {"place": "0"}).status_code == 303 and len(store.forms()) == 1


def test_more_than_a_form_is_not_read(site):
    client, store = site
    location = begin(client)
    assert client.post(location, data=ALL | {"place": "0", "more": "x" * 20_000}).status_code == 413
    assert client.post(location, content=b"\xff\xfe&place=0&q1=\xff").status_code == 400
    assert store.forms() == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False), ("", False)],
)
def test_what_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected


def test_what_computes_gives_way_often_while_pages_are_served(monkeypatch):
    seen = []
    monkeypatch.setattr(web.uvicorn.Server, "run", lambda server, sockets: seen.append(sys.getswitchinterval()))
    before = sys.getswitchinterval()
    web.serve(web.make_app([], "", title="x"), web.listen("127.0.0.1", 0))
    assert seen[0] < 0.001 < before == sys.getswitchinterval()
