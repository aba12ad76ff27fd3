"""The measurements: what is run, for how long, and in which order.

The candidates run side by side on one core, idle but for the one that is measured, and take turns within each round,
so that a slow minute of a shared machine hits them all. CPU time is what the candidate's own process tree used, so
the load generator and the upstream, which share another core, only have to keep up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import uvloop

from bench import dialects, limits, process, wire, wrk
from bench.candidates import KEY, Candidate, Running
from bench.client import Caller, Counts, Load, Window, connect, drive
from bench.machine import Cores, upstream

GATEWAY = "gateway"
CONNECTIONS = 32
PACED_STREAMS = 100
PROMPT_BYTES = 1_000_000
PROMPT_CONNECTIONS = 4
IDLE_STREAMS = 1000
_SETTLE_S = 1.0


@dataclass(frozen=True)
class Plan:
    """How long it takes: ``rounds`` and ``starts`` are counts, the rest seconds per candidate and round."""

    rounds: int = 5
    starts: int = 5
    requests_s: float = 3.0
    prompt_s: float = 2.0
    burst_s: float = 2.5
    paced_s: float = 3.0


QUICK = Plan(rounds=1, starts=1, requests_s=2.0, prompt_s=1.0, burst_s=1.0, paced_s=1.5)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    unit: str


ROWS = (
    Row("request", "CPU per request", "us"),
    Row("burst", "CPU per 100-chunk stream, at once", "us"),
    Row("paced", "CPU per chunk, chunks 10 ms apart", "us"),
    Row("prompt", "CPU per request with a 1 MB prompt", "ms"),
    Row("memory", "memory (PSS) after the load", "MB"),
    Row("stream", "memory per open idle stream, of 1,000", "kB"),
    Row("start", "start to ready", "s"),
    Row("admitted", "CPU per request, limits on", "us"),
    Row("refused", "CPU per refused request", "us"),
    Row("ledger", "CPU per request, with a Redis and no limits", "us"),
    Row("hit", "CPU per request answered by the cache", "us"),
    Row("to-messages", "CPU more per request, chat before Anthropic", "us"),
    Row("to-messages-chunk", "CPU more per chunk, chat before Anthropic", "us"),
    Row("from-messages", "CPU more per request, Messages before chat", "us"),
    Row("from-messages-chunk", "CPU more per chunk, Messages before chat", "us"),
    Row("from-responses", "CPU more per request, Responses before chat", "us"),
    Row("from-responses-chunk", "CPU more per chunk, Responses before chat", "us"),
    Row("limited-memory", "memory (PSS) after the load, limits on", "MB"),
    Row("limited-start", "start to ready, limits on", "s"),
)


@dataclass
class Results:
    """Every value measured, by row and candidate in the order of the rounds; rates in units of work per second."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    rates: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: str, name: str, value: float) -> None:
        """Note one value."""
        self.values[row, name].append(value)

    def add_window(self, row: str, name: str, window: Window, units: int, unit_ns: float) -> None:
        """Note the CPU time per unit of work in a window, in multiples of ``unit_ns``."""
        if not units:
            raise process.Malfunction(f"{name}: {row}: nothing was answered")
        self.add(row, name, window.cpu_ns / units / unit_ns)
        self.rates[row, name].append(units / window.seconds)


def measure_all(candidates: list[Candidate], plan: Plan, say: Callable[[str], None]) -> Results:
    """Everything, for every candidate."""
    results, cores = Results(), Cores.here()
    with upstream({cores.upstream}) as port, process.pinned({cores.load}):
        _measure_alone(port, plan, cores, say)
        with limits.valkey({cores.upstream}) as redis_url:
            measuring = Measuring(port, plan, cores, results, redis_url if _has_gateway(candidates) else None, say)
            _measure_rounds(candidates, measuring)
            if _has_gateway(candidates):
                _measure_dialects(measuring)
            _measure_starts(candidates, measuring)
    return results


@dataclass(frozen=True)
class Measuring:
    """What every measurement needs; without a ``redis_url`` limits are not measured."""

    port: int
    plan: Plan
    cores: Cores
    results: Results
    redis_url: str | None
    say: Callable[[str], None]


def _has_gateway(candidates: list[Candidate]) -> bool:
    return any(each.name == GATEWAY for each in candidates)


def _measure_rounds(candidates: list[Candidate], run: Measuring) -> None:
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(each.running(run.port, run.cores.proxy)) for each in candidates]
        with _limited(run) as limited:
            for number in range(run.plan.rounds):
                for each in running:
                    run.say(f"round {number + 1} of {run.plan.rounds}: {each.name}")
                    _measure_round(each, run)
                if limited is not None:
                    run.say(f"round {number + 1} of {run.plan.rounds}: {limited.name}")
                    _measure_limited(limited, run)
        for each in running:  # with one gateway only: two share pages, and each would look smaller
            run.results.add("memory", each.name, each.pss_bytes() / 1e6)


def _measure_dialects(run: Measuring) -> None:
    with dialects.translating().running(run.port, run.cores.proxy) as each, process.pinned({run.cores.load}):
        for number in range(run.plan.rounds):
            run.say(f"round {number + 1} of {run.plan.rounds}: {each.name}")
            dialects.measure(each, run.plan.burst_s / 2, lambda row, us: run.results.add(row, GATEWAY, us))


@contextlib.contextmanager
def _limited(run: Measuring) -> Iterator[Running | None]:
    """The gateway with limits on, one of its tenants used up; what was measured with it is checked at the end."""
    if run.redis_url is None:
        yield None
        return
    with limits.limited(run.redis_url).running(run.port, run.cores.proxy) as limited:
        limits.use_up(limited)
        yield limited
        limits.check(limited, run.redis_url)


def _measure_starts(candidates: list[Candidate], run: Measuring) -> None:
    for number in range(run.plan.starts):
        for candidate in candidates:
            run.say(f"start {number + 1} of {run.plan.starts}: {candidate.name}")
            with candidate.running(run.port, run.cores.proxy) as fresh:
                run.results.add("start", fresh.name, fresh.started_in_s)
                if number == 0:
                    run.results.add("stream", fresh.name, uvloop.run(_bytes_per_stream(fresh)) / 1e3)
        with _limited(run) as limited:
            if limited is not None:
                run.results.add("limited-start", GATEWAY, limited.started_in_s)
                if number == 0:
                    _measure_limited_memory(limited, run)


def _measure_alone(port: int, plan: Plan, cores: Cores, say: Callable[[str], None]) -> None:
    """The upstream without a proxy: says how far it is from being what is measured."""
    body = wire.chat_body(wire.PLAIN)
    load = Load(port, wire.request(port, body, KEY), CONNECTIONS)
    window = wrk.measure(load, body, KEY, plan.requests_s / 2, cores.load, lambda: 0)
    say(f"the upstream alone answers {window.answers / window.seconds:.0f} requests/s")


def _measure_round(each: Running, run: Measuring) -> None:
    plan, cores, results = run.plan, run.cores, run.results
    plain, prompt = wire.chat_body(wire.PLAIN), wire.chat_body(wire.PLAIN, size=PROMPT_BYTES)
    load = Load(each.port, wire.request(each.port, plain, KEY), CONNECTIONS)
    window = wrk.measure(load, plain, KEY, plan.requests_s, cores.load, each.cpu_ns)
    results.add_window("request", each.name, window, window.answers, 1e3)
    if each.name != GATEWAY:  # what the limits of the gateway are held against
        results.add("admitted", each.name, results.values["request", each.name][-1])

    large = Load(each.port, wire.request(each.port, prompt, KEY), PROMPT_CONNECTIONS)
    window = wrk.measure(large, prompt, KEY, plan.prompt_s, cores.load, each.cpu_ns)
    results.add_window("prompt", each.name, window, window.answers, 1e6)

    window = _streams(each, wire.BURST, CONNECTIONS, (plan.burst_s / 5, plan.burst_s))
    results.add_window("burst", each.name, window, window.answers, 1e3)

    window = _streams(each, wire.PACED, PACED_STREAMS, (0.5, plan.paced_s))
    results.add_window("paced", each.name, window, window.events, 1e3)


def _measure_limited(limited: Running, run: Measuring) -> None:
    for row, key, status, model in (
        ("admitted", limits.LIMITED_KEY, 200, wire.PLAIN),
        ("refused", limits.USED_UP_KEY, 429, wire.PLAIN),
        ("ledger", KEY, 200, wire.PLAIN),
        ("hit", KEY, 200, limits.KEPT),
    ):
        body = wire.chat_body(model)
        load = Load(limited.port, wire.request(limited.port, body, key), CONNECTIONS, status=status)
        window = wrk.measure(load, body, key, run.plan.requests_s, run.cores.load, limited.cpu_ns)
        run.results.add_window(row, GATEWAY, window, window.answers, 1e3)


def _measure_limited_memory(limited: Running, run: Measuring) -> None:
    """After one round of the loads that the plain gateway has had, in a process of its own."""
    key, plan, cores = limits.LIMITED_KEY, run.plan, run.cores
    run.say(f"memory: {limited.name}")
    for size, connections in ((wire.REQUEST_BYTES, CONNECTIONS), (PROMPT_BYTES, PROMPT_CONNECTIONS)):
        body = wire.chat_body(wire.PLAIN, size=size)
        load = Load(limited.port, wire.request(limited.port, body, key), connections)
        wrk.measure(load, body, key, plan.prompt_s, cores.load, limited.cpu_ns)
    for model, streams in ((wire.BURST, CONNECTIONS), (wire.PACED, PACED_STREAMS)):
        _streams(limited, model, streams, (0.5, plan.burst_s), key)
    run.results.add("limited-memory", GATEWAY, limited.pss_bytes() / 1e6)


def _streams(each: Running, model: str, connections: int, seconds: tuple[float, float], key: str = KEY) -> Window:
    request = wire.request(each.port, wire.chat_body(model, stream=True), key)
    spread_s = 1.0 if model == wire.PACED else 0.0
    load = Load(each.port, request, connections, wire.CHUNKS_PER_STREAM + 1, spread_s)  # and [DONE]
    window, failures = uvloop.run(drive(load, *seconds, each.cpu_ns))
    if failures:
        raise process.Malfunction(f"{each.name}: {model}: streams failed: {failures}\n{_end_of(each)}")
    return window


async def _bytes_per_stream(each: Running) -> float:
    """PSS that 1,000 open streams with one chunk each add to a fresh process that has served some."""
    request = wire.request(each.port, wire.chat_body(wire.IDLE, stream=True), KEY)
    warm = await _open_streams(Load(each.port, request, 10), each)
    before = each.pss_bytes()
    held = await _open_streams(Load(each.port, request, IDLE_STREAMS), each)
    added = each.pss_bytes() - before
    for caller in (*warm, *held):
        caller.stop()
    await asyncio.sleep(_SETTLE_S / 2)
    return added / IDLE_STREAMS


async def _open_streams(load: Load, each: Running) -> list[Caller]:
    counts = Counts()
    callers = await connect(load, counts)
    for _ in range(200):
        if counts.events >= load.connections:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(_SETTLE_S)
    if counts.failures or counts.events != load.connections:
        raise process.Malfunction(f"{each.name}: {counts.events} streams open: {counts.failures}\n{_end_of(each)}")
    return callers


def _end_of(each: Running) -> str:
    return each.output.read_text(errors="replace")[-3000:]
