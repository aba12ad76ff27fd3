"""The soak of streams: many of them for a minute, every byte checked, and nothing left behind.

1,000 streams run at once through one gateway process with 5,000 more connections open and idle. Each stream has
numbered events of known bytes, some in two chunks, some two in one; as one ends the next begins. Afterwards no error
may have been seen, every idle connection must still be open and serve a request (a sample is asked), memory must have
been flat, and the gateway must hold no connection, request or file more than before.

Times and sizes are judged by the command only; ``run`` leaves that to its caller, so that a short run can be a test.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

from bench import process, wire
from bench.candidates import KEY, registry
from bench.machine import upstream
from bench.soak_client import IdleClient, StreamClient, Tally, connect_stream
from tests.support.gateway import GatewayProcess

GROWTH_MAX_BYTES_PER_MIN = 4_000_000
_SECRET_ENV = {"LLM_GATEWAY_SECRET_BENCH": "bench-credential"}
_SETTINGS = {
    "LLM_GATEWAY_CLIENT_KEEP_ALIVE_S": "10m",
    "LLM_GATEWAY_CLIENT_CONNECTION_MAX_AGE_S": "1h",
    "LLM_GATEWAY_UPSTREAM_IDLE_S": "1s",
    "LLM_GATEWAY_DRAIN_S": "5s",
}
_STREAM_S_MAX = 30.0  # the longest stream takes 8 s; more is a hang


@dataclass(frozen=True)
class SoakPlan:
    """How much: counts of streams at once, idle connections and how many of them are asked; how long in seconds."""

    streams: int = 1000
    idle: int = 5000
    asked: int = 200
    seconds: float = 60.0
    sample_every_s: float = 1.0


@dataclass
class SoakReport:
    """What came of it. ``problems`` is empty when nothing was lost, reordered, refused or left behind."""

    tally: Tally
    problems: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)  # (seconds since the start, bytes of its own)
    cpu_share: float = 0.0

    def growth_bytes_per_min(self) -> float | None:
        """The slope of memory over the second half of the run; None where it was too short to say."""
        late = self.memory[len(self.memory) // 2 :]
        if len(late) < 5:
            return None
        slope = statistics.linear_regression([at for at, _ in late], [size for _, size in late]).slope
        return slope * 60


def run(plan: SoakPlan, say: Callable[[str], None]) -> SoakReport:
    """The whole soak with its own upstream and gateway. Raises Malfunction where it cannot be run at all."""
    _allow_files(plan.streams + plan.idle + 200)
    with upstream(os.sched_getaffinity(0)) as port:
        documents = "\n---\n".join(json.dumps(each) for each in registry(port))
        with GatewayProcess(documents, key=KEY, env=_SETTINGS | _SECRET_ENV) as gateway:
            return uvloop.run(_Soak(gateway, port, plan, say).run())


class _Soak:
    """One run against one gateway."""

    def __init__(self, gateway: GatewayProcess, upstream_port: int, plan: SoakPlan, say: Callable[[str], None]) -> None:
        self._gateway, self._plan, self._say = gateway, plan, say
        self._upstream_port = upstream_port
        self._report = SoakReport(Tally(gateway.port, KEY))
        self._clients: list[StreamClient] = []

    async def run(self) -> SoakReport:
        """All of it, in order."""
        await self._warm_up()
        files = self._gateway.open_files()
        idle = await self._open_idle()
        await self._stream()
        await self._ask(idle)
        for each in idle:
            each.transport.close()
        await asyncio.sleep(0)
        await self._look_for_leaks(files)
        tally = self._report.tally
        if tally.error_count:
            self._problem(f"{tally.error_count} stream errors, first: {tally.errors}")
        return self._report

    async def _warm_up(self) -> None:
        """One request, so that what is opened once and kept is no leak."""
        client = await self._connect_idle()
        client.ask(self._plain_request())
        if not await asyncio.wait_for(client.answered, 10):
            raise process.Malfunction(f"the gateway does not answer:\n{self._gateway.output()}")
        client.transport.close()
        await self._eventually("the warm-up's connections to be closed", self._no_connections)

    async def _open_idle(self) -> list[IdleClient]:
        clients = [await self._connect_idle() for _ in range(self._plan.idle)]
        self._say(f"{len(clients)} idle connections open")
        return clients

    async def _stream(self) -> None:
        tally, plan = self._report.tally, self._plan
        begun, cpu = time.monotonic(), process.cpu_ns(self._gateway.process.pid)
        for _ in range(plan.streams):
            await connect_stream(tally)
        self._say(f"{plan.streams} streams begun in {time.monotonic() - begun:.1f} s")
        while (elapsed := time.monotonic() - begun) < plan.seconds and tally.error_count <= plan.streams:
            self._report.memory.append((elapsed, process.own_bytes(self._gateway.process.pid)))
            if len(self._report.memory) % 10 == 0:
                self._say(f"{elapsed:.0f} s: {tally.streams} streams done, {self._report.memory[-1][1] / 1e6:.1f} MB")
            await asyncio.sleep(plan.sample_every_s)
        self._report.cpu_share = (process.cpu_ns(self._gateway.process.pid) - cpu) / 1e9 / elapsed
        tally.stopping = True
        await self._eventually("all streams to end", lambda: not tally.open_now, _STREAM_S_MAX)

    async def _ask(self, idle: list[IdleClient]) -> None:
        if lost := sum(each.lost for each in idle):
            self._problem(f"{lost} of {len(idle)} idle connections were closed")
        step = max(1, len(idle) // max(1, self._plan.asked))
        asked = [each for each in idle[::step] if not each.lost]
        for each in asked:
            each.ask(self._plain_request())
        await asyncio.wait([each.answered for each in asked], timeout=20)
        bad = sum(not (each.answered.done() and each.answered.result()) for each in asked)
        if bad:
            self._problem(f"{bad} of {len(asked)} idle connections did not serve a request afterwards")
        self._say(f"{len(asked)} of {len(idle)} idle connections asked afterwards")

    async def _look_for_leaks(self, files: int) -> None:
        """Nothing in flight, no connection to either side, no file more than before; idle upstreams expire first."""
        await self._eventually("no connection to be left", self._no_connections, 20)
        await self._eventually("nothing to be in flight", self._nothing_in_flight)
        await self._eventually(f"{files} open files again", lambda: self._gateway.open_files() <= files)

    def _no_connections(self) -> bool:
        return not self._gateway.client_connections() and not self._gateway.connections_to(self._upstream_port)

    def _nothing_in_flight(self) -> bool:
        scrape = self._gateway.metrics()
        names = ("llm_gateway_inflight_requests", "llm_gateway_backend_inflight_requests")
        return all(scrape.value(name) == 0 for name in names)

    async def _eventually(self, what: str, ready: Callable[[], bool], timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                self._problem(f"waited {timeout_s:.0f} s in vain for {what}: {self._state()}")
                return
            await asyncio.sleep(0.1)

    def _state(self) -> str:
        gateway = self._gateway
        return (
            f"{gateway.client_connections()} client connections, {gateway.connections_to(self._upstream_port)} to the "
            f"upstream, {gateway.open_files()} files, {self._report.tally.open_now} streams"
        )

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)

    def _plain_request(self) -> bytes:
        return wire.request(self._gateway.port, wire.chat_body(wire.PLAIN), KEY)

    async def _connect_idle(self) -> IdleClient:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(IdleClient, "127.0.0.1", self._gateway.port)
        return client


def _allow_files(count: int) -> None:
    """Raise our limit of open files, which the processes we start inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise process.Malfunction(f"{count} open files are needed, the hard limit is {hard}")
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def judge(report: SoakReport, say: Callable[[str], None]) -> list[str]:
    """Say what came of it; all problems, memory that grew among them."""
    tally, growth = report.tally, report.growth_bytes_per_min()
    sizes = [size for _, size in report.memory]
    problems = list(report.problems)
    say(f"{tally.streams} streams, {tally.bytes_checked / 1e6:.1f} MB checked, {tally.error_count} errors")
    if sizes:
        most = f"memory: {sizes[0] / 1e6:.1f} MB at first, {max(sizes) / 1e6:.1f} MB at most"
        say(f"{most}; gateway used {report.cpu_share:.0%} of a core")
    if growth is not None:
        at_most = GROWTH_MAX_BYTES_PER_MIN / 1e6
        say(f"memory over the second half: {growth / 1e6:+.2f} MB/min (at most {at_most:g})")
        if growth > GROWTH_MAX_BYTES_PER_MIN:
            problems.append("memory grows")
    return problems
