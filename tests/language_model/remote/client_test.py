"""What a client of remote models asks, makes of the answer, keeps, and may spend."""

import dataclasses
import itertools
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.preferences.dialogues import plain_prompt
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation
from eagle_jax.language_model.remote.budget import BudgetExhausted
from eagle_jax.language_model.remote.settings import RemotePrices
from tests.language_model.remote.scripted_client import SAMPLING, ask, echo, make, prompts, texts
from tests.language_model.remote.scripted_server import RESETS, Reply, ScriptedServer, answer

ROOT = Path(__file__).parents[3]
_ERROR = Reply(b"oops", status=500)


@pytest.mark.parametrize(
    ("api", "path", "prompt"),
    [
        ("chat", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("completion", "/v1/completions", {"prompt": "a"}),
    ],
)
def test_a_request_says_everything_that_the_generation_depends_on(tmp_path, api, path, prompt):
    (generation,), _, server = ask(echo, tmp_path, "a", api=api)
    (asked,) = server.asked
    assert asked.path == path
    assert asked.body == {
        "model": "scripted",
        **prompt,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 8,
        "stop": ["#END"],
        "seed": derive_seed(1, 0),
    }
    assert generation.text.strip() == f"a/{derive_seed(1, 0)}"
    assert generation.stop_reason == "stop"
    assert (generation.token_ids, generation.log_probs) == (None, None)


@pytest.mark.parametrize("api", ["chat", "completion"])
def test_a_dialogue_is_asked_for_in_turns_and_its_answer_is_whole(tmp_path, api):
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    prompt = Prompt(plain_prompt(turns), ("\n",), "", answer_start=" In short,")
    with ScriptedServer(answer("because.", chat=api == "chat")) as server:
        (generation,) = make(server, tmp_path, api=api).generate([prompt], SAMPLING, seed=7)
    (asked,) = server.asked
    if api == "chat":  # nobody can begin its answer
        assert asked.body["messages"] == turns and generation.text == "because."
    else:
        assert asked.body["prompt"] == "\n\nSystem: be brief\n\nHuman: why?\n\nAssistant: In short,"
        assert generation.text == "In short,because."


def test_what_not_every_server_knows_is_asked_for_where_it_is_set(tmp_path):
    more = {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2}
    with ScriptedServer(answer("ok")) as server:
        make(server, tmp_path).generate(prompts("a"), dataclasses.replace(SAMPLING, **more), seed=7)
    (asked,) = server.asked
    assert asked.body.items() >= more.items()


def test_fields_can_be_added_renamed_and_taken_away(tmp_path):
    fields = {"reasoning_effort": "none", "seed": None, "temperature": 1.0}
    changes = {"request_fields": fields, "max_tokens_field": "max_completion_tokens"}
    with ScriptedServer(answer("ok")) as server:
        plain, changed = make(server, tmp_path), make(server, tmp_path, **changes)
        changed.generate(prompts("a"), SAMPLING, seed=7)
    (asked,) = server.asked
    assert asked.body["reasoning_effort"] == "none"
    assert asked.body["temperature"] == 1.0
    assert asked.body["max_completion_tokens"] == 8
    assert not {"seed", "max_tokens"} & asked.body.keys()
    assert plain.name != changed.name  # other texts: neither stages nor caches may mix them up
    assert plain.name == f"scripted at {server.base_url} (chat)"


@pytest.mark.parametrize(
    ("told", "reason", "text", "stop_reason"),
    [
        ("a film. #END and more", "length", "a film. ", "stop"),  # no stop strings there
        ("a film without an end", "length", "a film without an end", "length"),
        ("\n#BEGIN a film.", "stop", " a film.", "stop"),  # the marker it was given, again
        ("it ends", "eos", "it ends", "stop"),  # Together
        ("it ends", "eos_token", "it ends", "stop"),  # Text Generation Inference
        ("it ends", "stop_sequence", "it ends", "stop"),
        (None, "content_filter", "", "content_filter"),
        (None, "length", "", "length"),  # all tokens went into thinking
    ],
)
def test_an_answer_becomes_what_a_local_model_would_have_written(tmp_path, told, reason, text, stop_reason):
    made = answer(told)
    made["choices"][0]["finish_reason"] = reason
    (generation,), *_ = ask(made, tmp_path, "a")
    assert (generation.text, generation.stop_reason) == (text, stop_reason)


def test_ids_and_log_probs_are_read_where_the_server_gives_them(tmp_path):
    chat, completion = answer("ab"), answer("ab", chat=False)
    chat["choices"][0] |= {
        "logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]},
        "token_ids": [7, 9],  # vLLM's return_token_ids
    }
    completion["choices"][0]["logprobs"] = {"token_logprobs": [-0.5, -1]}
    for api, made, ids in (("chat", chat, (7, 9)), ("completion", completion, None)):
        with ScriptedServer(made) as server:
            (generation,) = make(server, tmp_path, api=api).generate(prompts("a"), SAMPLING, seed=0)
            again = make(server, tmp_path, api=api).generate(prompts("a"), SAMPLING, seed=0)
        assert generation == Generation(text="ab", token_ids=ids, log_probs=(-0.5, -1.0), stop_reason="stop")
        assert again == [generation]  # from the cache, to the bit


def test_no_more_requests_at_once_than_allowed_and_rows_come_back_in_order(tmp_path):
    together = threading.Barrier(3, timeout=20)  # three at once, or it breaks

    def script(asked, times):
        together.wait()
        return echo(asked, times)

    names = [f"row{number}" for number in range(9)]
    made, _, server = ask(script, tmp_path, *names, concurrency=3)
    assert server.max_in_flight == 3
    assert [text.split("/")[0] for text in texts(made)] == names


def test_nothing_is_asked_twice_whatever_else_is_in_the_call(tmp_path):
    with ScriptedServer(echo) as server:
        first = make(server, tmp_path).generate(prompts("a", "b"), SAMPLING, seed=1)
        generator = make(server, tmp_path)
        more = generator.generate(prompts("a", "x", "c"), SAMPLING, seed=1)
        assert server.prompts() == ["a", "b", "x", "c"]  # b at row 1 is another row than x
        assert more[0] == first[0]
        generator.generate(prompts("a"), SAMPLING, seed=2)
        hotter = dataclasses.replace(SAMPLING, temperature=0.6)
        generator.generate(prompts("a"), hotter, seed=1)
        assert server.prompts()[4:] == ["a", "a"]
    usage = generator.usage()
    assert (usage["num_requests"], usage["num_cached"]) == (6, 1)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (60, 30)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_budget_of_requests_stops_before_it_is_exceeded(tmp_path, concurrency):
    asked = prompts(*"abcdef")
    limited = {"concurrency": concurrency, "budget": {"max_requests": 4}}
    with ScriptedServer(echo) as server:
        with pytest.raises(BudgetExhausted, match="4 requests; budget.max_requests"):
            make(server, tmp_path, **limited).generate(asked, SAMPLING, seed=1)
        assert len(server.asked) == 4
        made = make(server, tmp_path, **limited).generate(asked, SAMPLING, seed=1)
        assert sorted(server.prompts()) == list("abcdef")
    assert len(made) == 6
    assert issubclass(BudgetExhausted, UserError)  # one line and exit code 2


def test_requests_that_fail_count_too(tmp_path):
    with ScriptedServer(_ERROR) as server:
        generator = make(server, tmp_path, max_tries=10, budget={"max_requests": 4})
        with pytest.raises(BudgetExhausted):
            generator.generate(prompts("a"), SAMPLING, seed=1)
    assert len(server.asked) == 4


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_budget_of_tokens_counts_the_worst_case_of_what_is_in_flight(tmp_path, concurrency):
    # A request may take 1 byte + 64 of the template + 8 new tokens = 73 and takes 10 + 5 = 15:
    # 15 * 3 + 73 = 118, so a fourth request begins after three answers and a fifth does not.
    limited = {"concurrency": concurrency, "budget": {"max_tokens": 118}}
    with ScriptedServer(echo) as server:
        with pytest.raises(BudgetExhausted, match="60 tokens, and 73 .* exceed 118"):
            make(server, tmp_path, **limited).generate(prompts(*"abcdef"), SAMPLING, seed=1)
        assert len(server.asked) == 4
    with ScriptedServer(echo) as server:
        tight = {"concurrency": concurrency, "budget": {"max_tokens": 72}}
        with pytest.raises(BudgetExhausted):
            make(server, tmp_path, **tight).generate(prompts(*"abc"), SAMPLING, seed=2)
        assert server.asked == []


def test_tokens_that_nobody_counted_are_budgeted_at_their_worst(tmp_path):
    with ScriptedServer(RESETS) as server:
        generator = make(server, tmp_path, max_tries=10, budget={"max_tokens": 73 * 2 + 72})
        with pytest.raises(BudgetExhausted, match="146 tokens"):
            generator.generate(prompts("a"), SAMPLING, seed=1)
    assert len(server.asked) == 2


def test_without_prices_the_cost_is_not_known(tmp_path):
    _, generator, _ = ask(echo, tmp_path, "a", prices=RemotePrices(prompt=1.0, completion=None))
    assert generator.usage()["cost"] is None


_KILLED = """
import sys
from pathlib import Path
from tests.language_model.remote.scripted_client import SAMPLING, make, prompts
class Server:
    base_url = sys.argv[1]
make(Server, Path(sys.argv[2]), concurrency=2).generate(prompts(*"abcdefghijkl"), SAMPLING, seed=1)
"""


def test_a_run_that_is_killed_pays_nothing_twice(tmp_path):
    order, stuck, release = itertools.count(), queue.Queue(), threading.Event()

    def script(asked, times):
        if next(order) >= 5 and not release.is_set():
            stuck.put(asked.prompt)
            release.wait()
        return echo(asked, times)

    with ScriptedServer(script) as server:
        command = [sys.executable, "-c", _KILLED, server.base_url, str(tmp_path)]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            # Both workers wait for an answer, so they have kept the five that they got.
            unanswered = [stuck.get(timeout=120) for _ in range(2)]
        finally:
            process.kill()
            process.wait()
            release.set()
        generator = make(server, tmp_path)
        made = generator.generate(prompts(*"abcdefghijkl"), SAMPLING, seed=1)
    assert [text.split("/")[0] for text in texts(made)] == list("abcdefghijkl")
    # What was in flight when it died is asked again: nobody can know whether it was paid.
    assert sorted(server.prompts()) == sorted([*"abcdefghijkl", *unanswered])
    usage = generator.usage()
    assert (usage["num_answered"], usage["num_cached"], usage["prompt_tokens"]) == (12, 5, 120)
