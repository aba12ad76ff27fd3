"""The soak of a rolling restart: every replica is replaced under load, and no client may notice.

Two gateways behind a load balancer, on one Valkey, with streams that never pause and callers at a steady rate over
connections that they keep. A new one is started and gets ready, then an old one ends, until none of the first is left,
as a Deployment with ``maxUnavailable: 0`` does it. The first ends as the chart has it: its endpoint goes, preStop
sleeps meanwhile, then SIGTERM. The second ends with SIGTERM at once and a propagation delay of its own. No client tries
anything again, but each does what HTTP asks: it leaves a connection when told to, or when it sees it closed.

Afterwards no call may have failed and no stream be broken, each old process must have ended with 0 while streams were
open on it, and the ledger must have counted each call once.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
import uvloop

from bench import process
from bench.candidates import KEY, registry
from bench.machine import upstream
from bench.soak_caller import Caller
from bench.soak_client import Tally, connect_stream
from bench.soak_gateway import QuietGateway
from gateway.redis.names import usage as usage_key
from tests.support.balancer import Balancer, Pod
from tests.support.valkey import Valkey

_STREAM_S_MAX = 30.0  # the longest takes 8 s; more is a hang
_END_S_MAX = 60.0
_READY_S_MAX = 30.0
_SETTLED_S_MAX = 10.0
_LIMITS = [
    {"unit": "requests", "per": "day", "amount": 10_000_000},
    {"unit": "tokens", "per": "day", "amount": 10_000_000_000},
    {"unit": "concurrency", "amount": 10_000},
]


@dataclass(frozen=True)
class RestartPlan:
    """How much: streams at once, calls a second over how many connections; how long in seconds.

    ``lag_s`` is how long an endpoint takes to every node, ``pre_stop_s`` how long preStop sleeps, ``steady_s`` how long
    the load runs before, between and after.
    """

    streams: int = 300
    calls_per_s: float = 200.0
    connections: int = 50
    lag_s: float = 2.0
    pre_stop_s: float = 10.0
    delay_s: float = 5.0
    steady_s: float = 5.0


@dataclass
class RestartReport:
    """What came of it. ``problems`` is empty when no client noticed anything."""

    tally: Tally
    caller: Caller
    problems: list[str] = field(default_factory=list)
    drained_s: list[float] = field(default_factory=list)
    open_at_signal: list[int] = field(default_factory=list)
    counted: int = 0
    seconds: float = 0.0


def run(plan: RestartPlan, say: Callable[[str], None]) -> RestartReport:
    """The whole soak, with its own upstream, Valkey and gateways. Raises Malfunction where it cannot be run at all."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(upstream(os.sched_getaffinity(0)))
        valkey = stack.enter_context(Valkey())
        return uvloop.run(_Soak(plan, port, valkey, stack, say).run())


class _Soak:
    """One run."""

    def __init__(
        self,
        plan: RestartPlan,
        upstream_port: int,
        valkey: Valkey,
        stack: contextlib.ExitStack,
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._valkey, self._stack, self._say = plan, valkey, stack, say
        documents = registry(upstream_port)
        next(each for each in documents if each["kind"] == "Tenant")["spec"]["limits"] = _LIMITS
        self._documents = "\n---\n".join(json.dumps(each) for each in documents)
        self._ended: list[asyncio.Task[None]] = []

    async def run(self) -> RestartReport:
        """All of it, in order."""
        plan = self._plan
        async with Balancer(plan.lag_s) as balancer:
            self._balancer = balancer
            self._report = RestartReport(
                Tally(balancer.port, KEY), Caller(balancer.port, KEY, plan.calls_per_s, plan.connections)
            )
            begun = time.monotonic()
            chart = await self._start(delay_s=0.0)
            bare = await self._start(delay_s=plan.delay_s)
            calling = asyncio.create_task(self._report.caller.run())
            for _ in range(plan.streams):
                await connect_stream(self._report.tally)
            await asyncio.sleep(plan.steady_s)
            await self._replace(*chart, pre_stop_s=plan.pre_stop_s)
            await asyncio.sleep(plan.steady_s)
            await self._replace(*bare, pre_stop_s=0.0)
            await asyncio.gather(*self._ended)
            await asyncio.sleep(plan.steady_s)
            self._report.tally.stopping = self._report.caller.stopping = True
            await asyncio.wait_for(calling, _STREAM_S_MAX)
            await self._streams_ended()
            await self._compare()
            self._report.seconds = time.monotonic() - begun
        return self._report

    async def _start(self, delay_s: float) -> tuple[QuietGateway, Pod]:
        """One more replica, seen ready by everybody."""
        env = {
            "LLM_GATEWAY_SECRET_BENCH": "bench-credential",
            "LLM_GATEWAY_REDIS_URL": self._valkey.url,
            "LLM_GATEWAY_REDIS_DEADLINE_S": "2s",
            "LLM_GATEWAY_DRAIN_S": f"{_END_S_MAX:g}s",
            "LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S": f"{delay_s:g}s",
            "LLM_GATEWAY_DRAIN_IDLE_S": "2s",
        }
        gateway = QuietGateway(self._documents, key=KEY, env=env)
        await asyncio.to_thread(gateway.__enter__)
        self._stack.push(gateway.__exit__)
        pod = self._balancer.add(gateway.port, gateway.management_port)
        if not await _within(_READY_S_MAX + self._plan.lag_s, lambda: pod.takes_new):
            raise process.Malfunction(f"a new gateway does not get ready:\n{gateway.output()}")
        return gateway, pod

    async def _replace(self, gateway: QuietGateway, pod: Pod, *, pre_stop_s: float) -> None:
        """A new one first; then the endpoint goes, preStop sleeps, and SIGTERM comes."""
        await self._start(delay_s=0.0)
        self._balancer.leave(pod)
        await asyncio.sleep(pre_stop_s)
        self._report.open_at_signal.append(pod.open_now)
        self._say(f"SIGTERM after {pre_stop_s:g} s of preStop, {pod.open_now} connections open")
        gateway.signal(signal.SIGTERM)
        self._ended.append(asyncio.create_task(self._wait_for(gateway)))

    async def _wait_for(self, gateway: QuietGateway) -> None:
        begun = time.monotonic()
        code = await asyncio.to_thread(gateway.wait_exit, _END_S_MAX + 10)
        self._report.drained_s.append(time.monotonic() - begun)
        self._say(f"ended with {code} after {self._report.drained_s[-1]:.1f} s")
        if code != 0:
            self._report.problems.append(f"an old process ended with {code}:\n{gateway.output()}")

    async def _streams_ended(self) -> None:
        tally = self._report.tally
        if not await _within(_STREAM_S_MAX, lambda: not tally.open_now):
            self._report.problems.append(f"{tally.open_now} streams did not end")

    async def _compare(self) -> None:
        """The ledger has each call and each stream once, as soon as all is settled."""
        expected = self._report.tally.streams + self._report.caller.answered
        await _within(_SETTLED_S_MAX, lambda: self._counted() >= expected)
        self._report.counted = self._counted()
        if self._report.counted != expected:
            self._report.problems.append(f"the ledger counted {self._report.counted:,} calls, the clients {expected:,}")

    def _counted(self) -> int:
        today = datetime.datetime.now(datetime.UTC).date()
        with redis.Redis.from_url(self._valkey.url, decode_responses=True) as client:
            days = [client.hgetall(usage_key("bench", str(today - datetime.timedelta(days=ago)))) for ago in (0, 1)]
        return sum(int(count) for day in days for field, count in day.items() if field.endswith("|requests"))


async def _within(timeout_s: float, ready: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


def judge(report: RestartReport, say: Callable[[str], None]) -> list[str]:
    """Say what came of it; all problems, those that clients saw among them."""
    tally, caller = report.tally, report.caller
    problems = list(report.problems)
    say(f"{tally.streams} streams, {tally.bytes_checked / 1e6:.1f} MB checked, {tally.error_count} broken")
    slowest = max(caller.latencies_s, default=0.0)
    median = statistics.median(caller.latencies_s or [0.0])
    say(
        f"{caller.answered:,} of {caller.asked:,} calls answered in {caller.seconds:.1f} s"
        f" ({caller.answered / max(caller.seconds, 0.1):.0f} a second), {caller.error_count} failed;"
        f" {median * 1000:.1f} ms (p50), {slowest * 1000:.0f} ms at most"
    )
    say(f"{caller.told} connections were told to close, {caller.seen_closed} seen closed while idle")
    say(f"open at SIGTERM: {report.open_at_signal}, drained in {[round(each, 1) for each in report.drained_s]} s")
    say(f"the ledger counted {report.counted:,} calls, {report.seconds:.0f} s in all")
    if tally.error_count:
        problems.append(f"{tally.error_count} streams were broken, first: {tally.errors[:3]}")
    if caller.error_count:
        problems.append(f"{caller.error_count} calls failed, first: {caller.errors[:3]}")
    return problems
