"""Headless Chromium by its debugging pipe: no driver and no port; everything waits for an answer."""

import base64
import contextlib
import fcntl
import importlib.util
import io
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import PIL.Image
import PIL.PngImagePlugin
import pytest

from tests.programs import ROOT

WIDTH = 390  # of a telephone's screen
PICTURE = 900  # width of the page in the documentation's pictures
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# What axe-core finds wrong, and how many texts it could compare with their ground.
AXE = """axe.run(document).then(found => ({
  wrong: found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.impact}, ${rule.id}: ${node.target} ${node.failureSummary}`)),
  compared: found.passes.filter(rule => rule.id === "color-contrast").flatMap(rule => rule.nodes).length,
}))"""

# What a page says of itself, in its order; what is shown on it may be another machine's.
WORDS = "[...document.querySelectorAll('h1, h2, h3, legend, label, form button')].map(e => e.innerText)"
MOST_BYTES = 150_000  # of a picture in the documentation


def executable():
    """Where Chromium lies, by EAGLE_CHROMIUM or by its usual names; None: nowhere."""
    return os.environ.get("EAGLE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def axe_core():
    """Deque's checks of accessibility as a script, which a package carries for a driver that is not used here."""
    package = importlib.util.find_spec("axe_playwright_python")
    return package and Path(package.submodule_search_locations[0], "axe.min.js")


def _what_is_missing():
    if executable() is None:
        return "no Chromium: install it, or name it by EAGLE_CHROMIUM"
    return "" if axe_core() else "no axe-core: pip install 'eagle_jax[test]'"


needed = pytest.mark.skipif(bool(_what_is_missing()), reason=_what_is_missing())


class Browser:
    """One page. Scripts of the tests run in it by the debugger, whatever the page forbids itself."""

    def __init__(self, write, read):
        self._write, self._read, self._numbers, self._buffer = write, read, itertools.count(1), b""
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method, **parameters):
        return self._wait(self._send(method, parameters))

    def open(self, address):
        self._wait_for_load(self._send("Page.navigate", {"url": address}))

    def enter(self):
        """The enter key on what leads to another page: it is there when this returns."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self._wait_for_load(self._send("Input.dispatchKeyEvent", {"type": "keyDown", **key}))

    def run(self, script):
        """The value of a JavaScript expression in the page; of a promise, what it comes to."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def downloaded(self, selector, folder):
        """What a click on a link saves: it is there when this returns."""
        session, self._session = self._session, None  # downloads are the browser's
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        self._session = session
        self._send("Runtime.evaluate", {"expression": f"document.querySelector({json.dumps(selector)}).click()"})
        while (message := self._next()).get("params", {}).get("state") != "completed":
            assert message.get("params", {}).get("state") != "canceled", message
        (file,) = folder.iterdir()
        return file

    def tab(self):
        self._press(key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def tab_to(self, script):
        """Presses the tab key until it has come to the element of which the expression is true."""
        for _ in range(60):
            self.tab()
            if self.run(f"document.activeElement.{script}"):
                return
        raise AssertionError(f"the keyboard does not reach {script}")

    def space(self):
        self._press(key=" ", code="Space", windowsVirtualKeyCode=32, text=" ")

    def press(self, name):
        """A key that is called the same wherever it is."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39}
        self._press(key=name, code=name, windowsVirtualKeyCode=codes[name])

    def _press(self, **key):
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **{**key, "text": ""})

    def _send(self, method, parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return number

    def _wait(self, number):
        while (message := self._next()).get("id") != number:
            pass
        assert "error" not in message, message
        return message["result"]

    def _wait_for_load(self, number):
        done, loaded = False, False
        while not (done and loaded):
            message = self._next()
            assert "error" not in message, message
            done |= message.get("id") == number
            loaded |= message.get("method") == "Page.loadEventFired"

    def _next(self):
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "Chromium ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def opened(profile):
    """A `Browser`; what it keeps goes into the folder `profile`."""
    (to_read, write), (read, to_write) = os.pipe(), os.pipe()
    # Chromium reads from 3 and writes to 4, which may be taken here.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_read, to_write)]
    script = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    flags += ("--disable-background-networking", "--disable-component-update", "--hide-scrollbars")
    command = ["bash", "-c", script, executable(), *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in (*ends, to_read, to_write):
        os.close(end)
    try:
        yield Browser(write, read)
    finally:
        process.kill()
        process.wait()
        os.close(write)
        os.close(read)


def make_small(page):
    """The screen of a telephone."""
    page.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=844, deviceScaleFactor=1, mobile=True)


def check_on_a_small_screen(page):
    """In the light and in the dark: nothing is wider, one heading leads, axe-core finds nothing wrong."""
    assert page.run("document.documentElement.scrollWidth") <= WIDTH
    assert page.run("document.querySelectorAll('h1').length") == 1
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert found_by_axe(page) == [], scheme


def found_by_axe(page):
    """Every violation of axe-core's rules: its impact (minor to critical), its rule, where, and what mends it."""
    if not page.run("'axe' in window"):
        page.run(axe_core().read_text(encoding="utf-8") + "; true")
    found = page.run(AXE)
    assert found["compared"] > 0  # it looked
    return found["wrong"]


def check_picture(page, name, *parts):
    """docs/<name>.png, below each other the parts of this page that selectors name, is of a page that says the same.

    With EAGLE_PICTURES in the environment it is taken anew.
    """
    file = ROOT / "docs" / f"{name}.png"
    words = page.run(WORDS)
    if "EAGLE_PICTURES" in os.environ:
        page.call("Emulation.setDeviceMetricsOverride", width=PICTURE, height=900, deviceScaleFactor=1, mobile=False)
        # What is drawn on a canvas follows its new size in the next frame.
        page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => true)")
        about = PIL.PngImagePlugin.PngInfo()
        about.add_text("words", json.dumps(words))
        image = _below_each_other([_taken(page, part) for part in parts])
        image.quantize(64).save(file, optimize=True, pnginfo=about)
    renew = f"EAGLE_PICTURES=1 bash launch/run.sh pytest {os.environ['PYTEST_CURRENT_TEST'].split('::')[0]}"
    assert file.is_file(), renew
    with PIL.Image.open(file) as image:
        assert json.loads(image.text["words"]) == words, renew
    assert file.stat().st_size < MOST_BYTES
    assert f"]({file.name})" in (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def _taken(page, selector):
    """As wide as the page."""
    top, height = page.run(f"""(() => {{
      const {{ y, height }} = document.querySelector({json.dumps(selector)}).getBoundingClientRect();
      return [y + scrollY, height];
    }})()""")
    clip = {"x": 0, "y": top, "width": PICTURE, "height": height, "scale": 1}
    taken = page.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
    return PIL.Image.open(io.BytesIO(base64.b64decode(taken))).convert("RGB")


def _below_each_other(images):
    whole = PIL.Image.new("RGB", (PICTURE, sum(image.height for image in images)))
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole
