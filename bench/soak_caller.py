"""Callers at a steady rate over connections that they keep, as the pool of an HTTP client does; nothing is retried."""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast

from bench import wire

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_ERRORS_KEPT = 20
ANSWER_S_MAX = 20.0


class Caller:
    """``per_s`` plain calls a second, each when its time has come, over at most ``connections`` at once.

    A connection is used again unless the answer said close or it was seen closed; the longest unused one comes first,
    so that all are used. A call whose connection is closed after it was sent has failed.
    """

    def __init__(self, port: int, key: str, per_s: float, connections: int) -> None:
        self._port, self._per_s = port, per_s
        self._request = wire.request(port, wire.chat_body(wire.PLAIN), key)
        self._free: list[_Connection | None] = [None] * connections
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = self.answered = self.told = self.seen_closed = self.error_count = 0
        self.errors: list[str] = []
        self.latencies_s: list[float] = []
        self.seconds = 0.0
        self.stopping = False

    async def run(self) -> None:
        """Call until told to stop, and wait for what is under way."""
        begun = time.monotonic()
        while not self.stopping:
            due = int((time.monotonic() - begun) * self._per_s)
            while self.asked < due and self._free:
                self.asked += 1
                task = asyncio.create_task(self._call(self._free.pop(0)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(1 / self._per_s)
        self.seconds = time.monotonic() - begun
        await asyncio.gather(*self._tasks)
        for connection in self._free:
            if connection is not None:
                connection.transport.close()

    async def _call(self, connection: _Connection | None) -> None:
        begun = time.monotonic()
        try:
            if connection is None or connection.lost:
                self.seen_closed += connection is not None
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
            head = await asyncio.wait_for(connection.ask(self._request), ANSWER_S_MAX)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"answered {head[:200]!r}")
        except (OSError, ValueError) as error:  # a timeout is an OSError
            self._fail(f"{time.monotonic() - begun:.3f} s after it was begun: {error!r}")
            if connection is not None:
                connection.transport.abort()
            self._free.append(None)
            return
        self.answered += 1
        self.latencies_s.append(time.monotonic() - begun)
        if _CLOSE.search(head):
            self.told += 1
            connection.transport.close()
            self._free.append(None)
        else:
            self._free.append(connection)

    def _fail(self, reason: str) -> None:
        self.error_count += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(reason)


class _Connection(asyncio.Protocol):
    """One call at a time; ``lost`` once the other side has closed it."""

    def __init__(self) -> None:
        self.lost = False
        self._seen = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the head of its answer, once the whole of it is there."""
        self._seen = b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and length and len(body) >= int(length[1]) and self._answer and not self._answer.done():
            self._answer.set_result(head)

    def eof_received(self) -> None:
        self.lost = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(f"closed after {len(self._seen)} bytes: {exc}"))
