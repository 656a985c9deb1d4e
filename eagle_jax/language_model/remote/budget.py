"""What one run may ask of a remote model: requests and tokens, never more, whoever asks."""

from __future__ import annotations

import threading

from eagle_jax.base.errors import UserError


class BudgetExhausted(UserError):
    """The next call would ask for more than was granted; it was not made."""


class CallBudget:
    """Requests are counted when they start, tokens when they are known; None: no limit.

    A request in flight counts with its worst case. One that would not fit waits while others in
    flight may turn out cheaper than their worst case, and is refused when there are none.
    """

    def __init__(self, name: str, max_requests: int | None, max_tokens: int | None):
        self._name = name
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._changed = threading.Condition()
        self._num_requests = self._num_tokens = self._num_in_flight = self._worst_in_flight = 0

    def reserve(self, worst_tokens: int, stop: threading.Event) -> bool:
        """Before a request of at most `worst_tokens` tokens; False: it is not wanted any more, as
        `stop` says. Raises `BudgetExhausted`."""
        with self._changed:
            while True:
                if stop.is_set():
                    return False
                if self._max_requests is not None and self._num_requests >= self._max_requests:
                    raise self._exhausted(f"{self._num_requests} requests", "max_requests")
                needed = self._num_tokens + self._worst_in_flight + worst_tokens
                if self._max_tokens is None or needed <= self._max_tokens:
                    break
                if not self._num_in_flight:
                    raise self._exhausted(
                        f"{self._num_tokens} tokens, and {worst_tokens} that the next request may "
                        f"take, exceed {self._max_tokens}",
                        "max_tokens",
                    )
                self._changed.wait()
            self._num_requests += 1
            self._num_in_flight += 1
            self._worst_in_flight += worst_tokens
            return True

    def settle(self, worst_tokens: int, tokens: int) -> None:
        """After a request: what it took of the `worst_tokens` that were reserved for it."""
        with self._changed:
            self._num_in_flight -= 1
            self._worst_in_flight -= worst_tokens
            self._num_tokens += tokens
            self._changed.notify_all()

    def _exhausted(self, spent: str, limit: str) -> BudgetExhausted:
        return BudgetExhausted(
            f"{self._name}: the budget of this run is spent ({spent}; budget.{limit}). What was "
            "answered is kept: the same command goes on from here with a new budget"
        )
