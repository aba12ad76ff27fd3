"""The clients of the soak: streams that check every byte they read, and connections that only stay open."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import cast

from bench import wire
from bench.chunked import Chunked

_ERRORS_KEPT = 20


@dataclass
class Tally:
    """What the clients saw. ``errors`` keeps the first 20; ``error_count`` counts all."""

    port: int
    key: str
    streams: int = 0
    bytes_checked: int = 0
    open_now: int = 0
    error_count: int = 0
    errors: list[str] = field(default_factory=list)
    stopping: bool = False
    ids: itertools.count[int] = field(default_factory=itertools.count)

    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def connect_soon(self) -> None:
        """Connect one more stream client."""
        task = asyncio.get_running_loop().create_task(connect_stream(self))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def fail(self, reason: str) -> None:
        """Note an error."""
        self.error_count += 1
        if len(self.errors) < _ERRORS_KEPT:
            self.errors.append(reason)


class StreamClient(asyncio.Protocol):
    """One client: stream after stream, each byte compared with what the upstream sent for it.

    Every fourth stream is followed by a new connection, and each that was told to be the last of its connection; the
    others by a stream on the same one.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the first stream."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._tally.open_now += 1
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Only we may end a connection."""
        self._tally.open_now -= 1
        if not self._left:
            self._tally.fail(f"{self._id}: the connection was lost at byte {self._at}: {exc}")

    def data_received(self, data: bytes) -> None:
        """Check what came."""
        try:
            if not self._headed:
                data = self._read_head(data)
            if self._headed:
                self._check(self._chunks.feed(data))
                if self._chunks.complete:
                    self._finish()
        except ValueError as error:
            self._give_up(str(error))

    def _begin(self) -> None:
        number = next(self._tally.ids)
        self._id = f"s{number}"
        with_usage = number % 2 == 1
        self._expected = wire.soak_body(self._id, with_usage=with_usage)
        self._at = 0
        self._headed, self._head = b"", b""
        self._chunks = Chunked()
        body = wire.soak_request_body(self._id, with_usage=with_usage)
        self.transport.write(wire.request(self._tally.port, body, self._tally.key))

    def _read_head(self, data: bytes) -> bytes:
        head, self._headed, rest = (self._head + data).partition(b"\r\n\r\n")
        self._head = head
        if not self._headed:
            return b""
        if not head.startswith(b"HTTP/1.1 200 ") or b"transfer-encoding: chunked" not in head.lower():
            raise ValueError(f"answered {head[:300]!r} {rest[:300]!r}")
        self._is_last = b"\r\nconnection: close" in head.lower()
        return rest

    def _check(self, content: bytes) -> None:
        if not self._expected.startswith(content, self._at):
            wanted = self._expected[self._at :][:300]
            raise ValueError(f"at byte {self._at} came {content[:300]!r} instead of {wanted!r}")
        self._at += len(content)
        self._tally.bytes_checked += len(content)

    def _finish(self) -> None:
        if self._at != len(self._expected):
            raise ValueError(f"the stream ended after {self._at} of {len(self._expected)} bytes")
        self._tally.streams += 1
        if self._tally.stopping:
            self._leave()
        elif self._tally.streams % 4 == 0 or self._is_last:
            self._leave()
            self._tally.connect_soon()
        else:
            self._begin()

    def _give_up(self, reason: str) -> None:
        self._tally.fail(f"{self._id}: {reason}")
        self._leave()

    def _leave(self) -> None:
        self._left = True
        self.transport.close()


class IdleClient(asyncio.Protocol):
    """A connection that sends nothing until it is asked for one plain request."""

    def __init__(self) -> None:
        self.lost = False
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Only stay."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, _: Exception | None) -> None:
        """The gateway, or the end of the soak, closed it."""
        self.lost = True
        self._answer(good=False)

    def ask(self, request: bytes) -> None:
        """Send the request; ``answered`` says whether a complete 200 came."""
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read the answer."""
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if found:
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(body) >= length:
                self._answer(good=head.startswith(b"HTTP/1.1 200 ") and len(body) == length > 0)

    def _answer(self, *, good: bool) -> None:
        if not self.answered.done():
            self.answered.set_result(good)


async def connect_stream(tally: Tally) -> None:
    """One more stream client; a connection that cannot be made is an error of the soak."""
    try:
        await asyncio.get_running_loop().create_connection(lambda: StreamClient(tally), "127.0.0.1", tally.port)
    except OSError as error:
        tally.fail(f"could not connect: {error}")
