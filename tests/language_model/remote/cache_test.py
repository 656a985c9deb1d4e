"""What is kept, what misses, what is refused, and sums of usage over runs."""

import dataclasses
import json
import os
import sqlite3
import threading

import pytest

from eagle_jax.language_model.generation import Generation
from eagle_jax.language_model.remote.cache import (
    ANSWERED,
    CACHED,
    CachedGenerator,
    CacheError,
    GenerationCache,
    Request,
    content_key,
)
from tests.language_model.counting_generator import SAMPLING, Counting, prompts


def test_the_cache_survives_a_new_process_and_asks_once(tmp_path):
    inner = Counting("model@1")
    cached = CachedGenerator(inner, tmp_path / "cache" / "g.sqlite")
    assert list(tmp_path.iterdir()) == []  # nothing is made before the first use
    made = cached.generate(prompts("a", "b"), SAMPLING, 3)
    again = CachedGenerator(inner, tmp_path / "cache" / "g.sqlite").generate(prompts("a", "b"), SAMPLING, 3)
    assert again == made  # texts, ids and every bit of the log-probs
    assert inner.calls == [["a", "b"]]


@pytest.mark.parametrize(
    ("texts", "sampling", "seed"),
    [
        (("a", "x"), SAMPLING, 3),
        (("b", "a"), SAMPLING, 3),  # the same prompts on other rows
        (("a", "b"), SAMPLING, 4),
        (("a", "b"), dataclasses.replace(SAMPLING, temperature=0.6), 3),
        (("a", "b"), dataclasses.replace(SAMPLING, min_p=0.1), 3),
    ],
)
def test_whatever_changes_the_text_misses_the_cache(tmp_path, texts, sampling, seed):
    inner = Counting("model@1")
    cached = CachedGenerator(inner, tmp_path / "g.sqlite")
    cached.generate(prompts("a", "b"), SAMPLING, 3)
    made = cached.generate(prompts(*texts), sampling, seed)
    assert made == Counting("model@1").generate(prompts(*texts), sampling, seed)
    assert len(inner.calls) == 2
    other = Counting("model@2")
    CachedGenerator(other, tmp_path / "g.sqlite").generate(prompts("a", "b"), SAMPLING, 3)
    assert other.calls == [["a", "b"]]


def test_the_file_and_those_beside_it_are_for_nobody_else(tmp_path):
    before = os.umask(0)
    try:
        cache = GenerationCache(tmp_path / "g.sqlite")
        cache.write({"a": made("one")})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("g.sqlite", "g.sqlite-wal", "g.sqlite-shm"), 0o600)


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "g.sqlite"
    path.write_text("these are my notes, not a database" * 100)
    with pytest.raises(CacheError, match="cannot be used as a cache"):
        GenerationCache(tmp_path).write({"a": made("one")})  # a folder
    with pytest.raises(CacheError, match="g.sqlite"):
        CachedGenerator(Counting("model@1"), path).generate(prompts("a"), SAMPLING, 3)
    assert path.read_text().startswith("these are my notes")


def test_an_older_file_is_read(tmp_path):
    # The key that version 0.2 gave this row.
    old = "c35c6789b69c7215eac9234bcbc7b5c8fe8926b1eea95a4a495a830483444714"
    assert content_key("model@1", prompts("a")[0], SAMPLING, 3, 0) == old
    begun = dataclasses.replace(prompts("a")[0], answer_start=" so")
    assert content_key("model@1", begun, SAMPLING, 3, 0) != old
    cache = GenerationCache(tmp_path / "g.sqlite")
    cache.write({"a": made("one")})
    value = {"text": "old", "token_ids": [1], "log_probs": None, "stop_reason": "stop"}
    with sqlite3.connect(tmp_path / "g.sqlite") as connection:
        row = json.dumps(value | {"num_cut_tokens": 2})
        connection.execute("UPDATE generations SET value = ?", (row,))
    assert cache.look_up(["a"]) == [dataclasses.replace(made("old"), token_ids=(1,))]


def made(text):
    return Generation(text=text, token_ids=None, log_probs=None, stop_reason="stop")


def test_usage_is_summed_over_runs_by_generator_and_outcome(tmp_path):
    first = GenerationCache(tmp_path / "g.sqlite")
    first.record("m", [Request("a", ANSWERED, 10, 3)], {"a": made("one")})
    first.record("m", [Request("b", "http_500", 0, 0), Request("b", "timeout", None, None)], {})
    first.record("other", [Request("a", ANSWERED, 1000, 1000)], {})
    again = GenerationCache(tmp_path / "g.sqlite")  # while the first one still holds the file
    again.record("m", [Request("b", ANSWERED, 20, 4)], {"b": made("two")})
    again.record("m", [Request("a", CACHED, 0, 0)], {})
    assert first.usage("m") == again.usage("m") == ({"answered": 2, "cached": 1, "http_500": 1, "timeout": 1}, 30, 7, 1)
    assert again.usage("nobody") == ({}, 0, 0, 0)
    assert again.look_up(["b", "c", "a"]) == [made("two"), None, made("one")]


def test_threads_share_a_cache_and_lose_nothing(tmp_path):
    cache = GenerationCache(tmp_path / "g.sqlite")

    def write(number):
        for row in range(20):
            key = f"{number}/{row}"
            cache.record("m", [Request(key, ANSWERED, 1, number)], {key: made(key)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [f"{number}/{row}" for number in range(8) for row in range(20)]
    assert cache.look_up(keys) == [made(key) for key in keys]
    assert cache.usage("m") == ({"answered": 160}, 160, 20 * sum(range(8)), 0)


def test_a_value_that_cannot_be_read_is_refused(tmp_path):
    cache = GenerationCache(tmp_path / "g.sqlite")
    cache.write({"a": made("one")})
    with sqlite3.connect(tmp_path / "g.sqlite") as connection:
        connection.execute("UPDATE generations SET value = '{}'")
    with pytest.raises(CacheError, match=r"g\.sqlite: cannot be used as a cache"):
        cache.look_up(["a"])
