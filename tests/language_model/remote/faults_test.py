"""The client of remote models against a server that fails in every way, on loopback."""

import email.utils
import time

import pytest

from eagle_jax.base.seeds import derive_seed
from eagle_jax.language_model.remote.client import RemoteError
from tests.language_model.remote.scripted_client import SAMPLING, ask, echo, make, prompts, texts
from tests.language_model.remote.scripted_faults import RETRIED, spoiled
from tests.language_model.remote.scripted_server import HANGS, Reply, ScriptedServer, answer


def first_fails(reply):
    """A script in which every row's first request meets `reply`."""
    return lambda asked, times: reply if times == 0 else echo(asked, times)


@pytest.mark.parametrize("kind", RETRIED)
def test_a_fault_is_counted_and_the_row_asked_again(tmp_path, kind):
    made, generator, server = ask(first_fails(RETRIED[kind]), tmp_path, "a", "b")
    assert texts(made) == [f"a/{derive_seed(1, 0)}", f"b/{derive_seed(1, 1)}"]
    assert server.prompts() == ["a", "a", "b", "b"]
    usage = generator.usage()
    assert usage["failed"] == {kind.split("/")[0]: 2}
    assert (usage["num_requests"], usage["num_answered"]) == (4, 2)


def test_a_slow_answer_is_a_timeout(tmp_path):
    made, generator, _ = ask(first_fails(HANGS), tmp_path, "a", timeout_seconds=0.3)
    assert texts(made) == [f"a/{derive_seed(1, 0)}"]
    assert generator.usage()["failed"] == {"timeout": 1}
    assert generator.usage()["num_uncounted"] == 1  # the server may have worked for nothing


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": -3, "completion_tokens": 5},
        {"prompt_tokens": "12"},
        7,
        {"prompt_tokens": 2**63, "completion_tokens": 5},  # beyond SQLite's integers
        {"prompt_tokens": 2**62, "completion_tokens": 2**62},  # and two such sums
    ],
)
def test_wrong_counts_of_tokens_are_no_counts(tmp_path, usage):
    made, generator, _ = ask(answer("ok") | {"usage": usage}, tmp_path, "a", "b")
    assert texts(made) == ["ok", "ok"]
    told = generator.usage()
    assert (told["prompt_tokens"], told["completion_tokens"], told["num_uncounted"]) == (0, 0, 2)


@pytest.mark.parametrize(
    "change",
    [
        *({"token_ids": told} for told in ([1, None], ["x"], 7, [0.5])),
        *({"logprobs": told} for told in (7, {"content": 7}, {"content": [{}]}, {"content": [{"logprob": None}]})),
    ],
)
def test_a_paid_text_is_kept_whatever_is_told_beside_it(tmp_path, change):
    (generation,), _, server = ask(spoiled(lambda made: made["choices"][0].update(change)), tmp_path, "a")
    assert (generation.text, generation.token_ids, generation.log_probs) == ("no", None, None)
    assert len(server.asked) == 1


def test_tokens_of_a_malformed_answer_are_paid_all_the_same(tmp_path):
    _, generator, _ = ask(first_fails(RETRIED["no_choices"]), tmp_path, "a")
    usage = generator.usage()
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 10)
    # 20 tokens at 2 and 10 tokens at 10 per million.
    assert usage["cost"] == pytest.approx((20 * 2 + 10 * 10) / 1e6)


def test_waits_double_are_spread_and_bounded(tmp_path):
    with ScriptedServer(RETRIED["http_500"]) as server:
        pauses = []
        generator = make(server, tmp_path, pauses, max_tries=6, max_wait_seconds=5.0)
        with pytest.raises(RemoteError):
            generator.generate(prompts("a"), SAMPLING, seed=1)
    assert len(server.asked) == 6
    for pause, longest in zip(pauses, (1, 2, 4, 5, 5), strict=True):
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 5


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("17", 17, 17),
        ("2.5", 2.5, 2.5),
        ("0", 0.5, 1),  # never sooner than the back-off
        ("soon", 0.5, 1),
        ("-5", 0.5, 1),
        ("date", 20, 40),
    ],
)
def test_retry_after_is_honoured(tmp_path, header, least, most):
    if header == "date":
        header = email.utils.formatdate(time.time() + 40, usegmt=True)
    reply = Reply(b"{}", status=429, headers={"retry-after": header})
    pauses = []
    ask(first_fails(reply), tmp_path, "a", pauses=pauses)
    (pause,) = pauses
    assert least <= pause <= most


def test_a_server_that_asks_to_wait_too_long_ends_the_call(tmp_path):
    reply = Reply(b"{}", status=429, headers={"retry-after": "86400"})
    with ScriptedServer(reply) as server:
        pauses = []
        with pytest.raises(RemoteError, match="asks to wait 86400 s, more than max_wait_seconds"):
            make(server, tmp_path, pauses).generate(prompts("a"), SAMPLING, seed=1)
    assert (len(server.asked), pauses) == (1, [])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"wrong key", "http_401: wrong key"),
        (400, b'{"error": {"message": "unknown field"}}', "unknown field"),
        (404, b"no such model", "http_404: no such model"),
        (429, b'{"error": {"code": "insufficient_quota", "message": "pay"}}', "http_429.*pay"),
    ],
)
def test_a_refusal_that_no_waiting_mends_is_not_repeated(tmp_path, status, body, said):
    with ScriptedServer(Reply(body, status=status)) as server:
        generator = make(server, tmp_path)
        with pytest.raises(RemoteError, match=said):
            generator.generate(prompts("a", "b", "c"), SAMPLING, seed=1)
    assert len(server.asked) == 1


def test_giving_up_names_endpoint_model_row_and_reason_and_keeps_the_rest(tmp_path):
    def script(asked, times):
        return RETRIED["http_500"] if asked.prompt == "bad" else echo(asked, times)

    with ScriptedServer(script) as server:
        with pytest.raises(RemoteError) as caught:
            make(server, tmp_path).generate(prompts("a", "b", "bad"), SAMPLING, seed=1)
        message = str(caught.value)
        for said in ("scripted at " + server.base_url, "row 2", "3 tries", "http_500", "oops"):
            assert said in message
        assert str(tmp_path / "generations.sqlite") in message
        assert server.prompts() == ["a", "b", "bad", "bad", "bad"]
        server.script = echo
        made = make(server, tmp_path).generate(prompts("a", "b", "bad"), SAMPLING, seed=1)
        assert server.prompts()[5:] == ["bad"]
    assert [text.split("/")[0] for text in texts(made)] == ["a", "b", "bad"]


def test_a_server_that_is_not_there_is_named(tmp_path):
    with ScriptedServer(echo) as server:
        pass
    with pytest.raises(RemoteError, match=f"{server.base_url}.*connection: .*refused"):
        make(server, tmp_path).generate(prompts("a"), SAMPLING, seed=1)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    made, *_ = ask(echo, tmp_path, "a")
    assert len(made) == 1
