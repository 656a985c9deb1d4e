"""Requests and tokens of one run: refused in time, waited for where others may leave some."""

import threading

import pytest

from eagle_jax.language_model.remote.budget import BudgetExhausted, CallBudget


def in_thread(action) -> tuple[threading.Thread, list]:
    result = []

    def call():
        try:
            result.append(action())
        except BudgetExhausted as error:
            result.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, result


def test_what_does_not_fit_waits_for_what_is_in_flight_and_then_fits():
    budget, stop = CallBudget("m", None, 100), threading.Event()
    assert budget.reserve(60, stop)
    thread, result = in_thread(lambda: budget.reserve(60, stop))
    thread.join(timeout=0.05)
    assert result == []  # 60 + 60 > 100, but the first may turn out cheaper
    budget.settle(60, 40)
    thread.join()
    assert result == [True]  # 40 + 60 = 100


def test_what_does_not_fit_is_refused_when_nothing_is_in_flight():
    budget, stop = CallBudget("m", None, 100), threading.Event()
    assert budget.reserve(60, stop)
    thread, result = in_thread(lambda: budget.reserve(60, stop))
    budget.settle(60, 41)
    thread.join()
    assert "41 tokens, and 60 " in str(result[0])
    assert budget.reserve(59, stop)  # a smaller one fits still


def test_who_waits_gives_up_when_nobody_wants_it_any_more():
    budget, stop = CallBudget("m", 2, 100), threading.Event()
    assert budget.reserve(60, stop)
    thread, result = in_thread(lambda: budget.reserve(60, stop))
    stop.set()
    budget.settle(60, 10)
    thread.join()
    assert result == [False]
    assert budget.reserve(60, threading.Event())  # it had not counted as a request
    with pytest.raises(BudgetExhausted, match="2 requests; budget.max_requests"):
        budget.reserve(1, threading.Event())
