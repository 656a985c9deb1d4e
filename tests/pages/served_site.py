"""A site served by this process, for a browser that waits for what comes into the page."""

import contextlib
import threading

import pytest

from eagle_jax.pages import web

uvicorn = pytest.importorskip("uvicorn", reason="the pages need uvicorn: pip install 'eagle_jax[pages]'")


@contextlib.contextmanager
def served(app):
    """The address of a server in this process."""
    listening = web.listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield web.address_of(listening, "")
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def waits_for(page, script):
    """Has the page itself wait until the expression is true; a minute is a fault."""
    found = page.call(
        "Runtime.evaluate",
        expression=f"""new Promise((done, failed) => {{
          const look = () => {{ try {{ if ({script}) done(true); }} catch (error) {{ failed(error); }} }};
          new MutationObserver(look).observe(document, {{
            subtree: true, childList: true, characterData: true, attributes: true }});
          look();
          setTimeout(() => failed(new Error("not yet: " + document.querySelector("#status")?.textContent)), 60000);
        }})""",
        awaitPromise=True,
    )
    assert "exceptionDetails" not in found, found
