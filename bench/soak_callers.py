"""The callers of the soak of limits: each asks over one connection, one call at a time, at a steady pace."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.chunked import Chunked

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DEGRADED = b"\r\nx-llm-gateway-degraded:"
_ERRORS_KEPT = 20
ANSWER_S_MAX = 20.0


@dataclass
class Seen:
    """What a group of callers saw: answers by scenario and status, how long each took, how many were degraded."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    degraded: int = 0
    errors: list[str] = field(default_factory=list)
    error_count: int = 0
    stopping: bool = False

    def fail(self, reason: str) -> None:
        """Note an error; the first 20 are kept."""
        self.error_count += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(reason)

    def of(self, scenario: str) -> int:
        """How many answers there were of a scenario."""
        return sum(n for (name, _), n in self.answers.items() if name == scenario)

    def of_status(self, status: int) -> int:
        """How many answers had a status."""
        return sum(n for (_, code), n in self.answers.items() if code == status)


@dataclass(frozen=True)
class Calls:
    """What a caller does: one call of the ``scenarios`` after another, every ``every_s`` seconds."""

    port: int
    scenarios: Sequence[str]
    every_s: float
    write: Callable[[int, str], bytes]  # the request to a port for a scenario


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._answered: asyncio.Future[tuple[int, bytes]] | None = None
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError(f"the connection was lost: {exc}"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and head of the answer, once it is complete. Raises OSError, ValueError."""
        self._answered, self._seen = asyncio.get_running_loop().create_future(), b""
        self.transport.write(request)
        async with asyncio.timeout(ANSWER_S_MAX):
            return await self._answered

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if self._answered is None or self._answered.done() or not found:
            return
        try:
            if _complete(head, body):
                self._answered.set_result((int(head[9:12]), head.lower()))
        except ValueError as error:
            self._answered.set_exception(error)


def _complete(head: bytes, body: bytes) -> bool:
    """Whether the answer has ended; raises ValueError where a stream is broken."""
    length = _LENGTH.search(head)
    if length:
        return len(body) >= int(length[1])
    chunks = Chunked()
    content = chunks.feed(body)
    if not chunks.complete:
        return False
    if not content.endswith(b"data: [DONE]\n\n"):
        raise ValueError(f"a stream ended with {content[-200:]!r}")
    return True


async def call(calls: Calls, seen: Seen) -> None:
    """Call until ``seen.stopping``. An answer that does not come or breaks off is an error, and ends this caller."""
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", calls.port)
        await asyncio.sleep(random.uniform(0, calls.every_s))
        due, turn = time.monotonic(), random.randrange(len(calls.scenarios))
        while not seen.stopping:
            scenario = calls.scenarios[turn % len(calls.scenarios)]
            turn += 1
            begun = time.monotonic()
            status, head = await connection.ask(calls.write(calls.port, scenario))
            seen.latencies_s.append(time.monotonic() - begun)
            seen.answers[scenario, status] += 1
            seen.degraded += _DEGRADED in head
            due = max(due + calls.every_s, time.monotonic() - calls.every_s)  # catch up one call at most
            await asyncio.sleep(due - time.monotonic())
        connection.transport.close()
    except (OSError, ValueError, TimeoutError) as error:
        seen.fail(f"{type(error).__name__}: {error}")
