"""The key reaches the server and nothing else; settings that would tell it are refused."""

import base64
import json
import re
import sys

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.remote.client import RemoteError
from tests.language_model.remote.scripted_client import SAMPLING, ask, echo, make, prompts, settings
from tests.language_model.remote.scripted_server import Reply, ScriptedServer

KEY = "sk-Se1cret-0123456789"


def test_the_key_reaches_the_server_and_nothing_else(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_SERVER_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_LOG", "debug")

    def script(asked, times):
        told = f"you sent {asked.headers['authorization']}".encode()
        return Reply(told, status=500) if asked.prompt == "bad" else echo(asked, times)

    with caplog.at_level("DEBUG"), ScriptedServer(script) as server:
        generator = make(server, tmp_path, api_key_variable="MY_SERVER_KEY")
        generator.generate(prompts("a"), SAMPLING, seed=1)
        with pytest.raises(RemoteError) as caught:
            generator.generate(prompts("bad"), SAMPLING, seed=1)
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    assert "you sent Bearer ***" in str(caught.value)
    assert caught.value.__context__ is None
    told = [str(caught.value), repr(caught.value), caplog.text, repr(generator), generator.name]
    told += [repr(generator.settings), json.dumps(generator.usage())]
    told += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
    assert caplog.records and not [text for text in told if KEY in text or KEY[3:] in text]


@pytest.mark.parametrize(
    "echoed",
    [
        KEY,
        KEY.upper(),
        KEY[::-1],
        f"{KEY[:9]}...{KEY[-9:]}",
        KEY[:12],
        KEY.encode().hex(),
        "".join(f"%{byte:02X}" for byte in KEY.encode()),
        "".join(f"\\u{byte:04x}" for byte in KEY.encode()),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.b64encode(f"me:{KEY}!".encode()).decode(),
    ],
)
def test_no_spelling_of_the_key_comes_back_from_a_server(tmp_path, monkeypatch, echoed):
    monkeypatch.setenv("MY_SERVER_KEY", KEY)
    reply = Reply(f"İ bad <{echoed}> end".encode(), status=500)
    with ScriptedServer(reply) as server:
        generator = make(server, tmp_path, api_key_variable="MY_SERVER_KEY", max_tries=1)
        with pytest.raises(RemoteError) as caught:
            generator.generate(prompts("a"), SAMPLING, seed=1)
    told = re.search("İ bad <(.*)> end", str(caught.value))[1]
    assert "***" in told
    # What is left beside the stars is too little of it, in this spelling or any other.
    rest = told.replace("...", "").replace("***", " ").split()
    assert all(len(part) <= 12 for part in rest) and echoed not in told


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_prompt_and_key_go_to_no_other_server(tmp_path, monkeypatch, status):
    monkeypatch.setenv("MY_SERVER_KEY", KEY)
    with ScriptedServer(echo) as other:
        place = f"{other.base_url}/chat/completions"
        reply = Reply(b"", status=status, headers={"location": place})
        with ScriptedServer(reply) as server:
            generator = make(server, tmp_path, api_key_variable="MY_SERVER_KEY")
            with pytest.raises(RemoteError, match=f"after 1 tries, http_{status}: .*{place}"):
                generator.generate(prompts("a"), SAMPLING, seed=1)
    assert len(server.asked) == 1 and other.asked == []


def test_a_key_of_somebody_else_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    *_, server = ask(echo, tmp_path, "a")
    (asked,) = server.asked
    assert KEY not in json.dumps(dict(asked.headers))


@pytest.mark.parametrize("value", ["", " ", "two words", "schl\u00fcssel", "sk-\x07"])
def test_what_is_no_key_is_refused_before_anything_is_asked(tmp_path, monkeypatch, value):
    monkeypatch.setenv("MY_SERVER_KEY", value)
    with ScriptedServer(echo) as server, pytest.raises(UserError, match="MY_SERVER_K") as caught:
        make(server, tmp_path, api_key_variable="MY_SERVER_KEY")
    assert not value.strip() or value not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"api_key_variable": KEY}, "never the key"),
        ({"base_url": f"https://user:{KEY}@example.org/v1"}, "no password"),
        ({"base_url": f"https://example.org/v1?key={KEY}"}, "no query"),
        ({"base_url": "example.org/v1"}, "https://host/v1"),
        ({"request_fields": {"n": 2, "max_tokens": 9}}, "must not change max_tokens, n"),
        ({"backoff_seconds": 61.0}, "backoff_seconds"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_repeating_a_key(change, said):
    with ScriptedServer(echo) as server, pytest.raises(ValueError, match=said) as caught:
        settings(server, **change)
    assert KEY not in str(caught.value)


def test_without_openai_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)  # as if it were not installed
    said = r"pip install 'eagle_jax\[remote\]'"
    with ScriptedServer(echo) as server, pytest.raises(UserError, match=said):
        make(server, tmp_path)
