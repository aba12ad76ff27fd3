"""The soak of limits: several gateways on one Valkey, and a tenant that asks for ten times what it may have.

Each limit of the tenant holds for one scenario, and its callers ask for all scenarios in turn, so that each limit is
asked for ten times what it gives at once with the others. What was admitted is counted by the model server, and when,
by the Valkey server's own clock. Afterwards no rate may have given more than its burst and what was refilled between
the first and the last admission (calls: between any two), no budget may be overspent by one token or nano-USD, the
ledger must be what the model server counted, and every call of the other tenants must have been answered.

That a limit gave all that it may is judged by the command only; ``run`` leaves that to its caller, so that a short run
can be a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import redis
import uvloop

from bench import process
from bench.machine import upstream
from bench.soak_bounds import CALLS_PER_S, TURNS, LimitsPlan, LimitsReport, Outcome
from bench.soak_callers import Calls, Seen, call
from bench.soak_gateway import QuietGateway
from bench.soak_monitor import END_MARK, Monitor
from bench.soak_upstream import GREEDY, MOST, PRICE, STEADY, TYPICAL
from gateway.redis.names import usage as usage_key
from tests.support.client import RawClient
from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.valkey import Valkey

TENANT = "busy"
OTHERS = ("quiet", "calm")
STEADY_SCENARIO = "steady"
_SETTLED_S_MAX = 10.0
_WORDS = "so much depends upon a red wheel barrow glazed with rain water beside the white chickens " * 5


def run(plan: LimitsPlan, say: Callable[[str], None]) -> LimitsReport:
    """The whole soak with its own upstream, Valkey and gateways. Raises Malfunction where it cannot be run at all."""
    keys = {name: new_key() for name in (TENANT, *OTHERS)}
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(upstream(os.sched_getaffinity(0), "bench.soak_upstream"))
        valkey = stack.enter_context(Valkey())
        documents = _registry(plan, port, keys)
        env = {"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_REDIS_DEADLINE_S": "1"}
        gateways = [stack.enter_context(QuietGateway(documents, env=env)) for _ in range(plan.gateways)]
        say(f"{len(gateways)} gateways, {plan.callers} callers of one tenant, {plan.seconds:g} s")
        return uvloop.run(_Soak(plan, gateways, valkey, port, keys).run())


def _registry(plan: LimitsPlan, port: int, keys: Mapping[str, str]) -> list[Document]:
    url = f"http://127.0.0.1:{port}/v1"
    names = [*dict.fromkeys(TURNS), STEADY_SCENARIO]
    limits: list[Document] = [
        {"unit": each.unit, "per": each.per, "amount": each.amount, "burst": each.burst, "scenario": each.scenario}
        for each in plan.rates()
    ]
    tokens, nano_usd = plan.budgets().values()
    limits.append({"unit": "tokens", "per": "day", "amount": tokens, "scenario": "tokens-day"})
    limits.append({"unit": "cost", "per": "day", "amount": f"{nano_usd / 1e9:.9f}", "scenario": "cost-day"})
    # Without an answer of the Valkey a call is refused rather than let in, so that each bound holds whatever happens.
    limits = [each | {"name": each["scenario"], "onRedisLoss": "closed"} for each in limits]
    ample = [{"unit": unit, "per": "minute", "amount": 10_000_000} for unit in ("requests", "tokens")]
    return [
        *(backend(name, url, model=_model(name), price=PRICE, maxOutputTokens=MOST) for name in names),
        *(scenario(name, name) for name in names),
        tenant(TENANT, limits=limits),
        *(tenant(name, limits=ample) for name in OTHERS),
        *(api_key(name, key, name) for name, key in keys.items()),
    ]


def _model(name: str) -> str:
    behaviour = STEADY if name == STEADY_SCENARIO else GREEDY if name.endswith("-day") else TYPICAL
    return f"{behaviour}/{name}"


class _Soak:
    """One run against one fleet."""

    def __init__(
        self, plan: LimitsPlan, gateways: Sequence[QuietGateway], valkey: Valkey, port: int, keys: Mapping[str, str]
    ) -> None:
        self._plan, self._gateways, self._valkey = plan, gateways, valkey
        self._upstream_port, self._keys = port, keys
        self._report = LimitsReport()

    async def run(self) -> LimitsReport:
        """All of it, in order."""
        loop, report, begun = asyncio.get_running_loop(), self._report, time.monotonic()
        scenarios = [*dict.fromkeys(TURNS)]
        _, monitor = await loop.create_connection(lambda: Monitor(TENANT, scenarios), "127.0.0.1", self._valkey.port)
        try:
            await self._call()
            self._valkey.command("ECHO", END_MARK)
            await monitor.caught_up()
        finally:
            await monitor.close()
        self._compare(monitor)
        self._look_at_others()
        report.seconds = time.monotonic() - begun
        return report

    async def _call(self) -> None:
        """The others alone, then everybody, until all is settled."""
        report, plan = self._report, self._plan
        with self._calling(self._calls_of_others(), report.alone) as waiting:
            await asyncio.sleep(plan.alone_s)
        await _ended(waiting)
        calls, others_calls = [*self._calls_of_busy()], self._calls_of_others()
        with self._calling(calls, report.busy) as busy, self._calling(others_calls, report.others) as others:
            await asyncio.sleep(plan.seconds)
        await _ended(busy + others)
        await self._settled()

    # -- the load

    def _calls_of_busy(self) -> Iterator[Calls]:
        for number in range(self._plan.callers):
            gateway = self._gateways[number % len(self._gateways)]
            turns = random.sample(TURNS, len(TURNS))
            yield Calls(gateway.port, turns, 1 / CALLS_PER_S, partial(_request, self._keys[TENANT]))

    def _calls_of_others(self) -> list[Calls]:
        return [
            Calls(gateway.port, [STEADY_SCENARIO], 0.1, partial(_request, self._keys[name]))
            for name in OTHERS
            for gateway, _ in zip(itertools.cycle(self._gateways), range(self._plan.others), strict=False)
        ]

    @contextlib.contextmanager
    def _calling(self, calls: Sequence[Calls], seen: Seen) -> Iterator[list[asyncio.Task[None]]]:
        tasks = [asyncio.create_task(call(each, seen)) for each in calls]
        try:
            yield tasks
        finally:
            seen.stopping = True

    # -- what came of it

    async def _settled(self) -> None:
        """Wait until the ledger has as many calls as were admitted; what is missing then is a problem."""
        deadline = time.monotonic() + _SETTLED_S_MAX
        while self._ledger() != self._counted():
            if time.monotonic() > deadline:
                self._problem(f"the ledger has {self._ledger()}, the model server made {self._counted()}")
                return
            await asyncio.sleep(0.1)

    def _ledger(self) -> dict[str, dict[str, int]]:
        """By scenario what the tenant used, according to its ledger."""
        found: dict[str, Counter[str]] = {}
        with redis.Redis(port=self._valkey.port) as client:
            server: Any = client
            for day in server.scan_iter(usage_key(TENANT, "*")):
                for name, value in server.hgetall(day).items():
                    _, of, _, what = name.decode().split("|")
                    found.setdefault(of, Counter())[what] += int(value)
        wanted = ("requests", "input", "output", "cost")
        return {of: {what: counts[what] for what in wanted} for of, counts in sorted(found.items())}

    def _counted(self) -> dict[str, dict[str, int]]:
        """The same according to the model server."""
        found: dict[str, Counter[str]] = {}
        for model, _, what, value in self._upstream_counts():
            if model != _model(STEADY_SCENARIO):
                found.setdefault(model.partition("/")[2], Counter())[what] += value
        return {of: dict(counts) for of, counts in sorted(found.items())}

    def _upstream_counts(self) -> list[tuple[str, str, str, int]]:
        with RawClient("127.0.0.1", self._upstream_port) as client:
            counts: list[tuple[str, str, str, int]] = json.loads(client.request("/counts").body)
            return counts

    def _compare(self, monitor: Monitor) -> None:
        """What each limit gave with what it may give."""
        report, counted = self._report, self._counted()
        report.voided = monitor.voided
        if monitor.is_lost:
            self._problem("the Valkey server was lost, or did not let us follow it")
        for rate in self._plan.rates():
            admitted = monitor.admissions(rate.scenario)
            counts = counted.get(rate.scenario) or dict.fromkeys(("requests", "input", "output"), 0)
            elapsed_ms = admitted[-1] - admitted[0] if admitted else 0
            given = counts["requests"] if rate.unit == "requests" else counts["input"] + counts["output"]
            asked = report.busy.of(rate.scenario)
            allowed = rate.allowed(elapsed_ms)
            report.outcomes.append(
                Outcome(rate.scenario, rate.unit, asked, counts["requests"], given, allowed, elapsed_ms / 1000)
            )
            if rate.is_passed(given, elapsed_ms):
                self._problem(f"{rate.scenario}: {given} {rate.unit} were made, {allowed:.1f} are allowed")
            if rate.unit == "requests" and rate.is_exceeded(admitted):
                self._problem(f"{rate.scenario}: more calls than allowed were admitted in some span of time")
            if len(admitted) != counts["requests"]:
                self._problem(f"{rate.scenario}: {len(admitted)} calls admitted, {counts['requests']} made")
        self._compare_budgets()
        refused = report.busy.of_status(429)
        scrapes = [each.metrics() for each in self._gateways]
        rejected = sum(each.value("llm_gateway_limit_rejections_total", tenant=TENANT) for each in scrapes)
        if rejected != refused:
            self._problem(f"{refused} calls were refused, the metric has {rejected}")
        if lost := sum(each.value("llm_gateway_leases_lost_total") for each in scrapes):
            self._problem(f"{lost} leases were lost")

    def _compare_budgets(self) -> None:
        """Each UTC day has a budget of its own, should the run have seen two."""
        counts = self._upstream_counts()
        for name, amount in self._plan.budgets().items():
            units = ("cost",) if name == "cost-day" else ("input", "output")
            by_day: Counter[str] = Counter()
            for model, day, what, value in counts:
                by_day[day] += value if model == _model(name) and what in units else 0
            for day, spent in by_day.items():
                if spent > amount:
                    self._problem(f"{name}: {spent} of {amount} were spent on {day}")
            made = sum(value for model, _, what, value in counts if model == _model(name) and what == "requests")
            unit = "nano-USD" if name == "cost-day" else "tokens"
            allowed = amount * len(by_day)
            asked = self._report.busy.of(name)
            self._report.outcomes.append(Outcome(name, unit, asked, made, by_day.total(), allowed))

    def _look_at_others(self) -> None:
        report = self._report
        for seen, who in ((report.busy, TENANT), (report.alone, "others before"), (report.others, "others")):
            if seen.error_count:
                self._problem(f"{who}: {seen.error_count} calls without an answer, first: {seen.errors[:3]}")
        for seen in (report.alone, report.others):
            bad = {status: n for (_, status), n in seen.answers.items() if status != 200}
            if bad or seen.degraded:
                self._problem(f"others were answered with {bad}, {seen.degraded} answers without their limits")
        strange = {status for _, status in report.busy.answers} - {200, 429, 503}
        if strange:
            self._problem(f"the busy tenant was answered with {sorted(strange)}")

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)


def _request(key: str, port: int, of: str) -> bytes:
    """A call of some length, with or without a limit of its own, some of them streams."""
    text = _WORDS[: 10 if of == STEADY_SCENARIO else random.randint(20, len(_WORDS))]
    document: dict[str, object] = {"model": of, "messages": [{"role": "user", "content": text}]}
    if of.endswith("-day"):
        bound = random.choice([{"max_tokens": 150}, {"max_completion_tokens": 500}, {"n": 3}, {}])
        document |= {name: random.randint(1, most) for name, most in bound.items()}
    if of != STEADY_SCENARIO and random.random() < 0.3:
        document["stream"] = True
    body = json.dumps(document).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    _, pending = await asyncio.wait(tasks, timeout=30)
    if pending:
        raise process.Malfunction(f"{len(pending)} callers do not end")
    for each in tasks:
        each.result()
