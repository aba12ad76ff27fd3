"""A load client on bare sockets and one uvloop: streams, and plain requests where wrk is missing.

Each of its connections sends the same request again and again and reads the answer to its end. An answer that has
another status than expected, breaks off, or has another number of events is a failure and is counted, never ignored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from bench.chunked import Chunked

_EVENT = b"data: "
_END = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What to send: ``events_expected`` is the number of events of each stream, or None for a plain reply.

    ``spread_s`` seconds is how far the starts of the connections are apart in all; ``status`` is what every answer
    must have.
    """

    port: int
    request: bytes
    connections: int
    events_expected: int | None = None
    spread_s: float = 0.0
    status: int = 200


@dataclass
class Counts:
    """What happened so far."""

    answers: int = 0
    events: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Window:
    """What happened between the warm-up and the end, and the CPU time (ns) that the candidate used meanwhile."""

    answers: int
    events: int
    cpu_ns: int
    seconds: float


@dataclass
class _Answer:
    """The answer that is being read; ``missing`` bytes of its body, None before its head is there."""

    head: bytes = b""
    missing: int | None = None
    chunked: bool = False
    tail: bytes = b"\r\n"  # of the head, so that an empty body ends like any other
    events: int = 0
    parts: list[bytes] = field(default_factory=list)


class Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load, counts: Counts) -> None:
        self._load, self._counts = load, counts
        self._stopped = False
        self._answer = _Answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.transport.write(self._load.request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody but us may end a connection."""
        if not self._stopped:
            self._fail(f"the connection was lost: {exc}")

    def stop(self) -> None:
        """Leave, in the middle of an answer or not."""
        self._stopped = True
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Follow the answer to its end."""
        answer = self._answer
        if answer.missing is None:
            data = answer.head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                answer.head = data
                return
            self._read_head(data[:end].lower())
            data = data[end + 4 :]
        if answer.chunked:
            self._read_chunked(data)
        elif answer.missing is not None:
            answer.missing -= len(data)
            if answer.missing <= 0:
                self._next()

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"http/1.1 %d" % self._load.status):
            self._fail(f"answered {head[:300]!r}")
        self._answer.chunked = b"transfer-encoding: chunked" in head
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        self._answer.missing = int(length or 0)

    def _read_chunked(self, data: bytes) -> None:
        answer = self._answer
        answer.parts.append(data)
        data = answer.tail + data
        seen = data.count(_EVENT, max(0, len(answer.tail) - len(_EVENT) + 1))  # an event in the tail was counted
        answer.events += seen
        self._counts.events += seen
        answer.tail = data[-len(_END) :]
        if answer.tail == _END:
            if answer.events != self._load.events_expected:
                self._recount()
            self._next()

    def _recount(self) -> None:
        """A proxy may cut an event in two chunks: then count again without the chunks' frames."""
        expected, body = self._load.events_expected, Chunked().feed(b"".join(self._answer.parts))
        events = body.count(_EVENT)
        self._counts.events += events - self._answer.events
        if expected is not None and events != expected:
            self._fail(f"{events} events instead of {expected}")

    def _next(self) -> None:
        self._counts.answers += 1
        self._answer = _Answer()
        if not self._stopped:
            self.transport.write(self._load.request)

    def _fail(self, reason: str) -> None:
        if len(self._counts.failures) < 20:
            self._counts.failures.append(reason)
        self._stopped = True
        self.transport.abort()


async def drive(load: Load, warm_s: float, measure_s: float, cpu_ns: Callable[[], int]) -> tuple[Window, list[str]]:
    """Send the load for ``warm_s`` and then ``measure_s`` seconds; the window of the latter, and what failed."""
    counts = Counts()
    callers = await connect(load, counts)
    await asyncio.sleep(warm_s)
    begun, answers, events, cpu = time.monotonic(), counts.answers, counts.events, cpu_ns()
    await asyncio.sleep(measure_s)
    window = Window(counts.answers - answers, counts.events - events, cpu_ns() - cpu, time.monotonic() - begun)
    for caller in callers:
        caller.stop()
    await asyncio.sleep(0.1)  # the candidate sees them leave before the next measurement
    return window, counts.failures


async def connect(load: Load, counts: Counts) -> list[Caller]:
    """Open the connections of a load, each of which starts at once."""
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(load.connections):
        _, caller = await loop.create_connection(lambda: Caller(load, counts), "127.0.0.1", load.port)
        callers.append(caller)
        if load.spread_s:
            await asyncio.sleep(load.spread_s / load.connections)
    return callers
