"""What the soak of limits asks for and what may come of it: amounts, bounds, and the judgement. Pure.

A rate may give its burst and what is refilled meanwhile, a budget its amount in a UTC day. Times are milliseconds of
the server's clock, which is what the limits themselves go by, so that the bounds are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.soak_callers import Seen
from gateway.limits.wire import PERIODS_MS

SHARE_MIN = 0.99
"""Of what a limit may give, where ten times as much is asked for."""

ONE_CALL_MORE = 180
"""Tokens that a call may use beyond the least that could have been expected of it; see ``soak_upstream.TYPICAL``."""

CALLS_PER_S = 6
"""Of one caller."""

TURNS = ["calls-second"] * 4 + ["calls-minute"] * 2 + ["tokens-minute"] * 4 + ["tokens-day", "cost-day"]
"""The scenarios that a caller asks for in turn, each with a limit of its own."""


@dataclass(frozen=True)
class LimitsPlan:
    """How much: gateways, callers of the busy tenant, connections of each other tenant; how long, in seconds.

    ``alone_s`` is how long the others call before the busy tenant does. Amounts follow from the callers: each limit
    gives a tenth of what is asked for.
    """

    gateways: int = 4
    callers: int = 200
    others: int = 8
    seconds: float = 30.0
    alone_s: float = 4.0

    def rates(self) -> tuple[Rate, ...]:
        """The tenant's rates."""
        calls = self.callers * CALLS_PER_S / len(TURNS) / 10  # per second, of one turn
        return (
            Rate("calls-second", "requests", "second", round(calls * 4), round(calls * 8)),
            Rate("calls-minute", "requests", "minute", round(calls * 2 * 60), round(calls * 10)),
            Rate("tokens-minute", "tokens", "minute", self.callers * 1500, self.callers * 50, ONE_CALL_MORE),
        )

    def budgets(self) -> dict[str, int]:
        """The tenant's budgets of a day, in tokens or nano-USD, by scenario."""
        return {"tokens-day": self.callers * 300, "cost-day": self.callers * 500_003}


@dataclass(frozen=True)
class Rate:
    """A token bucket: ``amount`` of ``unit`` ``per`` period, and a burst."""

    scenario: str
    unit: str
    per: str
    amount: int
    burst: int
    debt: int = 0  # what the last call may use beyond its reservation: nobody came after it to wait for that

    def allowed(self, elapsed_ms: int) -> float:
        """The most that it may give in so much time."""
        return self.burst + self.amount * elapsed_ms / PERIODS_MS[self.per]

    def is_passed(self, given: int, elapsed_ms: int) -> bool:
        """Whether it gave more than that and the debt of the last call."""
        return given > self.allowed(elapsed_ms) + self.debt

    def is_exceeded(self, admitted_ms: Sequence[int]) -> bool:
        """Whether there is any span of time in which it gave more calls than it may."""
        period = PERIODS_MS[self.per]
        level, before = 0, 0
        for at in admitted_ms:
            level = max(0, level - (at - before) * self.amount) + period
            before = at
            if level > self.burst * period:
                return True
        return False


@dataclass(frozen=True)
class Outcome:
    """What one limit gave, of what it could at most; ``seconds`` from the first to the last admission of a rate."""

    scenario: str
    unit: str
    asked: int
    admitted: int
    given: int
    allowed: float
    seconds: float | None = None


@dataclass
class LimitsReport:
    """What came of it. ``problems`` is empty when no limit gave too much and nobody else was harmed."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    busy: Seen = field(default_factory=Seen)
    alone: Seen = field(default_factory=Seen)
    others: Seen = field(default_factory=Seen)
    voided: int = 0
    seconds: float = 0.0


def judge(report: LimitsReport, say: Callable[[str], None]) -> list[str]:
    """Say what came of it; all problems, limits that gave too little among them."""
    problems = list(report.problems)
    for each in report.outcomes:
        share = each.given / each.allowed if each.allowed else 0.0
        span = "" if each.seconds is None else f" in {each.seconds:.3f} s"
        say(
            f"{each.scenario}: {each.asked:,} calls asked, {each.admitted:,} admitted; "
            f"{each.given:,} of {each.allowed:,.1f} {each.unit}{span} ({share:.2%})"
        )
        if share < SHARE_MIN:
            problems.append(f"{each.scenario}: only {share:.2%} of what is allowed was given")
    degraded = report.busy.of_status(503)
    say(f"{degraded} calls answered 503, {report.voided} admissions voided, {report.seconds:.0f} s in all")
    for seen, when in ((report.alone, "alone"), (report.others, "meanwhile")):
        say(f"other tenants {when}: {_latencies(seen)}")
    return problems


def _latencies(seen: Seen) -> str:
    found = sorted(seen.latencies_s)
    if not found:
        return "no calls"
    least = [found[min(len(found) - 1, int(len(found) * part))] * 1000 for part in (0.5, 0.99)]
    times = f"{least[0]:.1f} ms (p50), {least[1]:.1f} ms (p99), {found[-1] * 1000:.1f} ms at most"
    return f"{seen.of_status(200):,} of {len(found):,} calls answered well, {times}"
