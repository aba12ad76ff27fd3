"""Limits of one process alone."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gateway.limits.local import Hold, LocalLimits, Need, Seen, Shortage
from tests.unit.limits.values import limits

NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC).timestamp()
NOTHING = Need(expected={"requests": 1}, worst={"requests": 1})


def tokens(expected: int, worst: int = 0) -> Need:
    """A call of so many tokens."""
    return Need(expected={"requests": 1, "tokens": expected}, worst={"requests": 1, "tokens": worst or expected})


class Local:
    """Local limits with a clock of the test's own."""

    def __init__(self, *given: tuple[Any, ...], replicas: int = 1) -> None:
        self.levels: dict[tuple[str, str], Seen] = {}
        self.held: dict[tuple[str, str], int] = {}
        self.limits = limits(*given)
        self.replicas = replicas
        self.now = NOON
        self._local = LocalLimits(self.levels.get, lambda key: self.held.get(key, 0))

    def take(self, need: Need = NOTHING) -> Hold | Shortage:
        """One call."""
        return self._local.take("acme", self.limits, need, self.replicas, self.now)

    def admitted(self, most: int, need: Need = NOTHING) -> int:
        """How many of ``most`` calls are admitted."""
        return sum(isinstance(self.take(need), Hold) for _ in range(most))

    def wait_s(self, need: Need = NOTHING) -> float:
        """How long a refused call is told to wait."""
        refused = self.take(need)
        assert isinstance(refused, Shortage)
        return refused.retry_after_s


@pytest.mark.parametrize(("replicas", "share"), [(1, 60), (3, 20), (60, 1)])
def test_a_rate_is_shared_out(replicas: int, share: int) -> None:
    """Each replica admits its part of the amount, at once and over time."""
    local = Local(("requests", "minute", 60), replicas=replicas)
    assert local.admitted(100) == share
    assert local.wait_s() == pytest.approx(replicas)
    local.now += replicas - 0.001
    assert local.admitted(1) == 0
    local.now += 0.002
    assert local.admitted(2) == 1


def test_the_wait_of_a_refusal_admits() -> None:
    """Not before, and then it does."""
    local = Local(("tokens", "minute", 600))
    assert local.admitted(1, tokens(590))
    wait_s = local.wait_s(tokens(100))
    local.now += wait_s + 1e-6
    assert local.admitted(1, tokens(100)) == 1


def test_what_was_not_used_is_given_back_and_what_was_is_debt() -> None:
    """The request itself stays taken."""
    local = Local(("tokens", "minute", 600), ("requests", "minute", 10))
    first = local.take(tokens(600))
    assert isinstance(first, Hold)
    assert local.wait_s(tokens(600)) > 0
    first.settle({"tokens": 0})
    second = local.take(tokens(600))
    assert isinstance(second, Hold)
    second.settle({"tokens": 1200})
    second.settle({})
    assert local.wait_s(tokens(0)) == pytest.approx(60)
    local.now += 61
    assert local.admitted(20, tokens(0)) == 10


def test_a_call_larger_than_the_bucket_passes_when_it_is_full() -> None:
    """And leaves debt."""
    local = Local(("tokens", "minute", 600))
    assert local.admitted(1, tokens(900)) == 1
    assert local.wait_s(tokens(1)) == pytest.approx(30.1)


def test_a_budget_reserves_the_worst_and_turns_at_midnight() -> None:
    """What is too much waits for the next window."""
    local = Local(("tokens", "day", 1000))
    first = local.take(tokens(10, 800))
    assert isinstance(first, Hold)
    assert local.wait_s(tokens(10, 300)) == pytest.approx(43_200)
    first.settle({"tokens": 100})
    assert local.admitted(1, tokens(10, 900)) == 1
    local.now += 43_200
    assert local.admitted(1, tokens(10, 1000)) == 1
    first.settle({"tokens": 100})


def test_a_settlement_after_the_turn_leaves_the_new_window_alone() -> None:
    """It belongs to the old one."""
    local = Local(("tokens", "day", 1000))
    late = local.take(tokens(10, 1000))
    local.now += 50_000
    assert isinstance(local.take(tokens(10, 1000)), Hold)
    assert isinstance(late, Hold)
    late.settle({})
    assert local.admitted(1, tokens(10, 1)) == 0


def test_it_starts_from_what_was_last_seen() -> None:
    """A rate with what has been refilled since, a budget if its window has not turned."""
    local = Local(("requests", "minute", 60), replicas=2)
    local.levels["acme", "t:requests-minute"] = Seen(0, NOON - 10)
    assert local.admitted(60) == 5
    local = Local(("requests", "day", 60), replicas=2)
    local.levels["acme", "t:requests-day"] = Seen(20, NOON - 10)
    assert local.admitted(60) == 10
    local = Local(("requests", "day", 60), replicas=2)
    local.levels["acme", "t:requests-day"] = Seen(0, NOON - 86_400)
    assert local.admitted(60) == 30


def test_a_level_seen_later_replaces_what_was_counted_here() -> None:
    """The shared levels were asked in between, and know of the calls that have ended."""
    local = Local(("requests", "day", 10))
    for _ in range(10):
        hold = local.take()
        assert isinstance(hold, Hold)
        hold.settle({})
    assert local.admitted(20) == 0
    local.levels["acme", "t:requests-day"] = Seen(4, NOON + 5)
    local.now += 10
    assert local.admitted(20) == 4


def test_all_or_nothing() -> None:
    """A call that one limit refuses takes from none, and the refusing one is named."""
    local = Local(("requests", "minute", 5), ("requests", "day", 2))
    assert local.admitted(4) == 2
    refused = local.take()
    assert isinstance(refused, Shortage)
    assert refused.place == 1
    local.limits = local.limits[:1]
    assert local.admitted(9) == 3


def test_places_are_those_of_this_process() -> None:
    """At least one, however many replicas there are."""
    local = Local(("concurrency", None, 2), replicas=4)
    assert local.admitted(1) == 1
    local.held["acme", "t:concurrency-None"] = 1
    assert local.wait_s() > 0


def test_shadow_limits_pass() -> None:
    """Of every kind."""
    given = [("requests", "minute", 1, "shadow"), ("requests", "day", 1, "shadow"), ("concurrency", None, 1, "shadow")]
    local = Local(*given)
    local.held["acme", "t:concurrency-None"] = 9
    assert local.admitted(5) == 5


def test_a_changed_amount_keeps_what_was_used() -> None:
    """Raised or lowered, at once."""
    local = Local(("requests", "day", 10))
    assert local.admitted(6) == 6
    local.limits = limits(("requests", "day", 8))
    assert local.admitted(9) == 2
    local.limits = limits(("requests", "day", 11))
    assert local.admitted(9) == 3


def test_running_calls_stay_taken_when_the_level_is_seen_again() -> None:
    """Redis comes and goes: what it says knows nothing of the calls that were let in without it and still run."""
    local = Local(("tokens", "day", 1000))
    key = ("acme", local.limits[0].id)
    holds = []
    for turn in range(1, 6):
        local.levels[key] = Seen(1000, local.now)
        local.now += 1
        holds.append(local.take(tokens(400)))
        assert isinstance(holds[-1], Hold) == (turn <= 2)
    first = holds[0]
    assert isinstance(first, Hold)
    first.settle({"tokens": 100})
    local.now += 1
    local.levels[key] = Seen(900, local.now)  # it has been told of the first one
    local.now += 1
    assert local.admitted(5, tokens(200)) == 2


def test_what_nobody_knows_of_stays_taken() -> None:
    """A call whose reservation stays charged does not run any more: the level that is seen next knows of it."""
    local = Local(("tokens", "day", 1000))
    hold = local.take(tokens(400))
    assert isinstance(hold, Hold)
    hold.settle(None)
    hold.settle(None)
    assert local.admitted(5, tokens(700)) == 0
    local.now += 1
    local.levels["acme", local.limits[0].id] = Seen(600, local.now)
    local.now += 1
    assert local.admitted(5, tokens(300)) == 2
