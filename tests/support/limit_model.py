"""What the levels of a tenant should be: a model of the limit scripts that knows no Redis.

Buckets are fractions and every window that ever was is kept, so that there are none of the scripts' roundings and
shortcuts to share.
"""

from __future__ import annotations

import datetime
from fractions import Fraction
from typing import Any

from gateway.limits.wire import BoundLimit
from gateway.model import Frozen, Usage
from gateway.redis.ledger_format import UsageCounts
from tests.support.limit_server import CHEAP

PERIODS_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000}
DAY_MS = 86_400_000
SKEW_MS = 60_000


class Bucket:
    """A token bucket in fractions."""

    def __init__(self, bound: BoundLimit, now: int) -> None:
        self.rate = Fraction(bound.limit.amount, PERIODS_MS[bound.limit.per or ""])
        self.bound, self.used, self.at = bound, Fraction(0), now

    def moved(self, now: int) -> Bucket:
        """As of ``now``; a clock that went back refills nothing, one that went back far begins anew."""
        since = now if self.at - now > SKEW_MS else self.at
        copy = Bucket(self.bound, max(now, since))
        copy.used = max(Fraction(0), self.used - self.rate * (copy.at - since))
        return copy

    def wait(self, missing: Fraction, now: int) -> int:
        """Milliseconds until so much is refilled."""
        return -((-missing) // self.rate) + max(0, self.at - now)


class Window:
    """What was used of a budget's window. A reset makes another one of the same period."""

    def __init__(self) -> None:
        self.used = 0


class Lease(Frozen, frozen=True):
    """An admitted call: what it took, from which windows, under which epoch."""

    limits: tuple[BoundLimit, ...]
    takes: tuple[int | None, ...]
    windows: tuple[Any, ...]
    epoch: int
    admitted_ms: int


class Model:
    """What the levels should be."""

    def __init__(self) -> None:
        self.epoch = 0
        self.forget()

    def forget(self) -> None:
        """All data are lost."""
        self.forget_levels()
        self.slots: dict[str, dict[str, int]] = {}
        self.leases: dict[str, Lease | str] = {}
        self.ledger = UsageCounts()

    def forget_levels(self) -> None:
        """The hash of levels is lost, records and slots are not."""
        self.epoch += 1
        self.buckets: dict[str, Bucket] = {}
        self.budgets: dict[tuple[str, int], Window] = {}

    def bucket(self, bound: BoundLimit, now: int) -> Bucket:
        """The bucket of a limit, refilled; looking at it changes nothing."""
        found = self.buckets.get(bound.id)
        return Bucket(bound, now) if found is None else found.moved(now)

    def take(self, bound: BoundLimit, difference: int, now: int) -> None:
        """Add to what is used of a bucket."""
        if difference != 0:
            bucket = self.bucket(bound, now)
            bucket.used = max(Fraction(0), bucket.used + difference)
            self.buckets[bound.id] = bucket

    def window(self, bound: BoundLimit, now: int) -> Window:
        """The window of a budget that ``now`` lies in."""
        return self.budgets.setdefault((bound.id, period(bound, now)), Window())

    def used(self, bound: BoundLimit, now: int) -> int:
        """What the server should say."""
        if bound.limit.unit == "concurrency":
            return sum(expiry > now for expiry in self.slots.get(bound.id, {}).values())
        if bound.limit.per in PERIODS_MS:
            return -((-self.bucket(bound, now).used) // 1)
        return self.window(bound, now).used

    def purge(self, bound: BoundLimit, now: int) -> None:
        """Remove expired slots."""
        self.slots[bound.id] = {lease: expiry for lease, expiry in self.slots.get(bound.id, {}).items() if expiry > now}


def period(bound: BoundLimit, now: int) -> int:
    """The number of a window, days and months apart."""
    days = now // DAY_MS
    return days if bound.limit.per == "day" else month_of(days)


def month_of(days: int) -> int:
    """Months from 0000-01, by the calendar of the standard library."""
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=days)
    return date.year * 12 + date.month - 1


def month_end_ms(now: int) -> int:
    """When the month of ``now`` ends."""
    day = now // DAY_MS
    month = month_of(day)
    while month_of(day) == month:
        day += 1
    return day * DAY_MS


class Asked(Frozen, frozen=True):
    """A call's size."""

    input_upper: int
    output: int
    choices: int


def cost(input_tokens: int, output_tokens: int) -> int:
    """At the prices of ``CHEAP``."""
    total = input_tokens * CHEAP.input_nano_usd + output_tokens * CHEAP.output_nano_usd
    return -(-total // 1_000_000)


def amount(bound: BoundLimit, input_tokens: int, output_tokens: int) -> int:
    """What so many tokens take of a limit."""
    return {
        "requests": 1,
        "tokens": input_tokens + output_tokens,
        "inputTokens": input_tokens,
        "outputTokens": output_tokens,
        "cost": cost(input_tokens, output_tokens),
        "concurrency": 1,
    }[bound.limit.unit]


def room(bound: BoundLimit, left: int, asked: Asked) -> int:
    """The most output of a choice that a budget has room for, by trying; -1: not even for none."""
    best = -1
    for output in range(asked.output + 1):
        if amount(bound, asked.input_upper, output * asked.choices) <= left:
            best = output
    return best


def is_budget(bound: BoundLimit) -> bool:
    """Whether it has windows."""
    return bound.limit.per in ("day", "month")


def counts_output(bound: BoundLimit) -> bool:
    """Whether output weighs on a limit."""
    return bound.limit.unit not in ("requests", "inputTokens")


def tokens_of(usage: Usage | None) -> tuple[int, int]:
    """Input and output; none of a call that failed."""
    return (usage.input_tokens, usage.output_tokens) if usage is not None else (0, 0)
