"""The command on a finished run, and its page in a browser."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="the pages need uvicorn: pip install 'eagle_jax[pages]'")

from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.pages.explore_site import ExploreSite
from eagle_jax.pages.explored_run import explored_run
from tests.pages import browser
from tests.pages.played_run import EAGLE_ROW, REFERENCE_ROW, played
from tests.pages.served_site import served, waits_for
from tests.programs import ROOT, environment_of


def send(address, path, **fields):
    origin = "/".join(address.split("/")[:3])
    data = urllib.parse.urlencode(fields).encode() if fields else None
    with urllib.request.urlopen(urllib.request.Request(address + path, data, {"Origin": origin})) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def command(finished, compilation_cache):
    """What the command says on a run with real models, and the address that it tells."""
    flags = f"--workdir={finished.workdir}", "--port=0", "--host=0.0.0.0"
    with subprocess.Popen(
        [sys.executable, "-m", "eagle_jax", "explore", *flags],
        cwd=ROOT,
        env=environment_of(cache=compilation_cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = [process.stdout.readline() for _ in range(2)]
            (address,) = re.findall(r"http://\S+", said[1])
            yield said[0], address.replace("0.0.0.0", "127.0.0.1")
        finally:
            process.kill()


def test_the_command_answers_on_a_finished_run_with_a_token_beyond_loopback(finished, command):
    """The reference policy is another one than the agent, and both act on the run's items."""
    kept = {path: path.stat().st_mtime_ns for path in finished.workdir.rglob("*")}
    said, address = command
    assert said.startswith(f"agent_g_optimal_0 of {finished.workdir}: 300 items, "), said
    assert re.fullmatch(r"http://127.0.0.1:\d+/[\w-]{16}/", address)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        send("/".join(address.split("/")[:3]) + "/", "found/items")
    begun = send(address, "begin", item="f3", user="u1")
    name = begun["name"]
    typed = send(address, "step", name=name, before=0, by="you", instruction="set it in the desert.")
    assert typed["environment_calls"] == 1 and typed["terms"][0]["values"].keys() == {"train", "held_out"}
    episode = send(address, "episode", name=name, by="reference")
    assert 0 < episode["environment_calls"] <= 2
    told = send(address, f"export/{name}.json")
    assert told["agent"] == "agent_g_optimal_0" and len(told["texts"]) == 2 and len(told["episodes"]) == 1
    assert {path: path.stat().st_mtime_ns for path in finished.workdir.rglob("*")} == kept


@browser.needed
def test_the_documentation_shows_the_page(command, tmp_path):
    with browser.opened(tmp_path / "profile") as page:
        page.open(command[1])
        waits_for(page, "document.body.dataset.ready === 'yes'")
        page.run("document.querySelector('#begin button').click()")
        waits_for(page, "!document.querySelector('#exploration').hidden")
        page.run("document.querySelector('#instruction').value = 'set it in the desert.'")
        page.run("document.querySelector('#instruct button').click()")
        waits_for(page, "document.querySelectorAll('#texts section').length === 2")
        page.run("document.querySelector('#one-step').click()")
        waits_for(page, "document.querySelectorAll('#texts section').length === 3")
        page.run("for (const id of ['show-users', 'zoom-all']) document.getElementById(id).click()")
        page.run("document.querySelector('#status').textContent = ''")  # it would lie over what is below it
        browser.check_picture(page, "explore", "#map", "#about", "#instruct", "#texts section")


# Where in the window something is drawn on the map.
DOT = """(() => {
  const map = document.querySelector('#map'), box = map.getBoundingClientRect();
  const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);
  const place = data.findIndex((value, place) => place % 4 === 3 && value === 255) >> 2;
  return [box.x + place % map.width, box.y + Math.floor(place / map.width)];
})()"""


@browser.needed
def test_in_a_browser_by_keyboard_on_a_small_screen_in_the_dark(agent, tmp_path):
    wicked = "<img src=x onerror='document.title = 1'> add the lantern."
    run = explored_run(agent, ScriptedGenerator(lambda prompt, rng: "bring in the glacier.", "reference"), seed=0)
    with served(ExploreSite(run=run, token="").app()) as address, browser.opened(tmp_path / "profile") as page:
        browser.make_small(page)

        def check():
            browser.check_on_a_small_screen(page)
            assert page.run("[...document.querySelectorAll('input, textarea')].every(e => e.labels.length === 1)")

        def types(text):
            page.call("Input.insertText", text=text)

        page.open(address)
        waits_for(page, "document.body.dataset.ready === 'yes'")
        check()
        page.tab_to("id === 'map'")
        page.tab_to("id === 'items-words'")
        types("f9")
        page.tab_to("innerText === 'Search'")
        page.space()
        waits_for(page, "document.querySelector('#items-found button')")
        page.tab_to("innerText.startsWith('f9: ')")
        page.space()
        assert page.run("document.querySelector('#items-id').value") == "f9"
        page.tab_to("innerText === 'Begin'")
        page.space()
        waits_for(page, "!document.querySelector('#exploration').hidden")
        check()
        page.tab_to("id === 'instruction'")
        types(wicked)
        page.tab_to("innerText === 'Rewrite'")
        page.space()
        waits_for(page, "document.querySelector('#texts section ins')")
        assert page.run("document.querySelector('#texts ins').innerText") == "lantern."
        assert page.run("document.images.length") == 0 and page.run("document.title") == "Explore agent_stub_0"
        page.tab_to("innerText === 'One step of the agent'")
        page.space()
        waits_for(page, "document.querySelectorAll('#texts section').length === 3")
        page.tab_to("innerText === 'What the terms of U are'")
        page.space()
        check()
        page.tab_to("innerText === 'Compare'")
        page.space()
        waits_for(page, "document.querySelectorAll('#episodes-played section').length === 4")
        assert page.run("document.querySelectorAll('#compared tbody tr').length") == 6
        told = json.loads(page.downloaded("#json", tmp_path / "json").read_text(encoding="utf-8"))
        assert [text["action"] for text in told["texts"][:2]] == [None, wicked] and len(told["episodes"]) == 4
        assert page.downloaded("#csv", tmp_path / "csv").read_text(encoding="utf-8").startswith("row,seed,item_id,")
        page.call("Runtime.evaluate", expression="document.querySelector('#map').scrollIntoView()")
        x, y = page.run(DOT)
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        waits_for(page, "document.querySelector('#pointed strong')")
        assert re.match(r"(Item f\d+: |User u\d+)", page.run("document.querySelector('#pointed strong').innerText"))
        check()


# What the map says first where the pointer goes over it, line by line.
SWEEP = """(() => {
  const map = document.querySelector('#map'), told = document.querySelector('#pointed');
  const { x, y, width, height } = map.getBoundingClientRect();
  told.replaceChildren();
  for (let down = 5; down < height; down += 5)
    for (let right = 5; right < width; right += 5) {
      map.dispatchEvent(new PointerEvent('pointermove', { clientX: x + right, clientY: y + down }));
      if (told.querySelector('strong')) return told.querySelector('strong').innerText;
    }
  return '';
})()"""


@browser.needed
def test_episodes_of_the_evaluation_are_shown_by_keyboard_on_a_small_screen(agent, tmp_path):
    """Two rows' episodes of the same start are on the map, a step is marked by its button and by pointing at it."""
    episodes, _ = played(agent, tmp_path)
    run = explored_run(agent, agent.policy, seed=0, played=episodes)
    with served(ExploreSite(run=run, token="").app()) as address, browser.opened(tmp_path / "profile") as page:
        browser.make_small(page)
        page.open(address)
        waits_for(page, "document.body.dataset.ready === 'yes'")
        page.tab_to("innerText === 'Episodes of the run’s evaluation'")
        page.space()
        waits_for(page, "document.querySelector('#evaluated-episode option')")
        rows = page.run("[...document.querySelectorAll('#evaluated-row option')].map(e => e.innerText)")
        assert rows == ["anchor", EAGLE_ROW, REFERENCE_ROW]  # what is called <b> is text
        pairs = []
        for number in (1, 2):
            choose = f"""(() => {{ const row = document.querySelector('#evaluated-row');
              row.value = '{number}'; row.dispatchEvent(new Event('change')); return true; }})()"""
            page.run(choose)
            waits_for(page, "document.querySelectorAll('#evaluated-episode option').length === 6")
            page.tab_to("innerText === 'Show on the map'")
            page.space()
            waits_for(page, f"document.querySelectorAll('#evaluated section').length === {number}")
            pairs.append(page.run("document.querySelector('#evaluated section p').innerText.split('. Calls')[0]"))
        assert pairs[0] == pairs[1]
        browser.check_on_a_small_screen(page)
        page.tab_to("innerText === 'Mark step 2 of E2 on the map'")
        page.space()
        assert page.run("document.querySelector('#pointed strong').innerText").startswith("E2, step 2: ")
        assert "could not be read" in page.run("document.querySelector('#pointed .notice').innerText")
        page.run("document.querySelector('#evaluated section:last-child li:last-child button').click()")
        assert page.run("document.querySelector('#pointed strong').innerText").startswith("E1, step 2: ")
        assert page.run("document.querySelector('#evaluated-json').getAttribute('href')").count("evaluated=") == 2
        page.run("for (const id of ['show-items', 'show-users', 'zoom-all']) document.getElementById(id).click()")
        assert re.match(r"E[12](, step \d|: the item)", page.run(SWEEP))
        page.tab_to("innerText === 'Take E1 away'")
        page.space()
        assert page.run("document.querySelectorAll('#evaluated section').length") == 1
