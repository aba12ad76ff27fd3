"""When the breaker opens and closes."""

from __future__ import annotations

from gateway.redis.breaker import Breaker


def test_failures_in_a_row_open_it_and_answers_start_the_row_anew() -> None:
    """Only a probe closes it."""
    changes: list[str] = []
    breaker = Breaker(3, 0.05, changes.append)
    breaker.failed(1)
    breaker.failed(2)
    breaker.answered()
    breaker.failed(3)
    breaker.failed(4)
    assert not breaker.open
    assert not changes
    breaker.failed(5)
    assert breaker.open
    assert len(changes) == 1
    breaker.failed(6)
    breaker.trip("again")
    breaker.answered()
    assert breaker.open
    assert len(changes) == 1
    breaker.close()
    breaker.close()
    assert not breaker.open
    assert changes[1:] == [""]


def test_nothing_reachable_opens_it_at_once() -> None:
    """With the reason that it was given."""
    changes: list[str] = []
    breaker = Breaker(3, 0.05, changes.append)
    breaker.trip("refused")
    assert breaker.reason == "refused"
    assert changes == ["refused"]
    breaker.close()
    breaker.failed(1)
    breaker.failed(2)
    assert not breaker.open


def test_what_fails_within_one_deadline_is_one_failure() -> None:
    """A short stall that many commands meet is no more than one that few meet."""
    breaker = Breaker(3, 0.05, list[str]().append)
    for number in range(100):
        breaker.failed(1.0 + number / 1000)
    assert not breaker.open
    breaker.failed(1.1)
    assert breaker.open
