"""The soak of shared calls: followers of a stream see its first byte soon after the caller that began it.

Two gateway processes on one Valkey; time and again a caller begins a stream that the model server holds back, others
join it at both processes, and the stream is let go. Each must have the same bytes, and one call must have been made.
How much later the first byte came to the last of the followers is judged by the command only; ``run`` leaves that to
its caller, so that a short run can be a test.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.cached import CachedFleet, cached_fleet
from tests.support.crowd import Crowd
from tests.support.limited import body
from tests.support.scripts import Chat, Gate, Script, stream

FIRST_BYTE_MAX_S = 0.05
PIECES = tuple(f"<{number}>" for number in range(20))


@dataclass(frozen=True)
class SharingPlan:
    """How often, and how many follow each time, half of them at the other process."""

    rounds: int = 100
    followers: int = 20


@dataclass
class SharingReport:
    """By how many seconds the first byte came later than to the caller that began the call, per follower."""

    near_s: list[float] = field(default_factory=list)
    far_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def run(plan: SharingPlan, say: Callable[[str], None]) -> SharingReport:
    """Let it happen."""
    report = SharingReport()
    with cached_fleet(2) as fleet, Crowd() as crowd:
        for number in range(plan.rounds):
            _round(fleet, crowd, number, plan.followers, report)
    for name, seconds in (("the same process", report.near_s), ("the other process", report.far_s)):
        if seconds:
            middle, most = statistics.median(seconds) * 1000, max(seconds) * 1000
            say(f"first bytes at {name}: median {middle:.1f} ms, at most {most:.1f} ms after the first caller's")
    return report


def _round(fleet: CachedFleet, crowd: Crowd, number: int, followers: int, report: SharingReport) -> None:
    gate, chat = Gate(), Chat(pieces=PIECES)
    whole = stream(chat.events("m"))
    before = fleet.calls()
    fleet.upstream.enqueue(Script((whole.steps[0], gate, *whole.steps[1:])))
    fields = body(stream=True, seed=number)
    leader = crowd.call(fleet.gateways[0].port, fleet.key, fields)
    gate.wait_reached(30)
    callers = [crowd.call(fleet.gateways[each % 2].port, fleet.key, fields) for each in range(followers)]
    for each, extra in zip(fleet.gateways, (1, 0), strict=True):
        each.wait_for_metric("llm_gateway_inflight_requests", followers // 2 + extra, timeout_s=30)
    gate.open()
    first, *others = crowd.results([leader, *callers])
    for place, got in enumerate(others):
        (report.near_s, report.far_s)[place % 2].append(got.first_at - first.first_at)
        if got.body != first.body or tuple(got.texts) != PIECES:
            report.problems.append(f"round {number}: a follower got other bytes than the first caller")
    if fleet.calls() != before + 1:
        report.problems.append(f"round {number}: {fleet.calls() - before} calls of the backend")


def judge(report: SharingReport, say: Callable[[str], None]) -> list[str]:
    """What did not hold, times included."""
    late = sum(each > FIRST_BYTE_MAX_S for each in (*report.near_s, *report.far_s))
    followers, bound_ms = len(report.near_s) + len(report.far_s), f"{FIRST_BYTE_MAX_S * 1000:.0f} ms"
    say(f"{late} of {followers} followers waited longer than {bound_ms}")
    problems = list(report.problems)
    if late:
        problems.append(f"{late} first bytes came more than {bound_ms} after the first caller's")
    return problems
