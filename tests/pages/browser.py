"""Headless Chromium by its debugging pipe: no driver and no port; everything waits for an answer."""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import subprocess

WIDTH = 390  # of a telephone's screen
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# The least contrast of a text with what is behind it, by WCAG 2.
CONTRAST = """(() => {
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== "rgba(0, 0, 0, 0)") return c;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("main *")].filter(e =>
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return Math.min(...texts.map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
})()"""


def executable():
    """Where Chromium lies, by EAGLE_CHROMIUM or by its usual names; None: nowhere."""
    return os.environ.get("EAGLE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


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
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

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
    """Nothing is wider, texts can be told from their ground in the light and in the dark, and one heading leads."""
    assert page.run("document.documentElement.scrollWidth") <= WIDTH
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert page.run(CONTRAST) >= 4.5, scheme
    assert page.run("document.querySelectorAll('h1').length") == 1
