"""The model server of the bench: canned answers as fast as Python can, ``python -m bench.upstream PORT``.

It is not measured; it only has to be faster than what is. Requests are read with two searches instead of an HTTP
parser, and answers are ready-made bytes. A stream has one write to the socket per chunk, also "at once", as model
servers do. Prints ``ready`` when it listens and ends with its parent's pipe or SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import cast

import uvloop

from bench import wire

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model"\s*:\s*"([a-z]+)')
_USER = re.compile(rb'"user"\s*:\s*"([^"]+)"')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_SEARCHED = 4096

PLAIN_REPLY = wire.plain_reply()
CLAUDE_REPLY = wire.claude_reply()
CLAUDE_CHUNKS = [wire.as_chunk(event) for event in wire.claude_events()]
CHUNKS = [wire.as_chunk(wire.stream_event("chatcmpl-bench", f"token {n}")) for n in range(wire.CHUNKS_PER_STREAM)]
ENDING = wire.as_chunk(wire.DONE_EVENT) + wire.LAST_CHUNK
ENDING_WITH_USAGE = wire.as_chunk(wire.usage_event("chatcmpl-bench")) + ENDING


class Canned(asyncio.Protocol):
    """One connection; requests come one at a time, as every candidate sends them."""

    def __init__(self) -> None:
        self._pending = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the socket, to write to it without a detour."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._fd = transport.get_extra_info("socket").fileno()

    def connection_lost(self, _: Exception | None) -> None:
        """Stop the stream that is running."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        if self._pending:
            data = self._pending + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 1) if end > 0 else None
        if end < 0 or (length and len(data) < end + 4 + int(length[1])):
            self._pending = data
            return
        self._pending = b""
        model = _MODEL.search(data, end, end + _SEARCHED) or _MODEL.search(data, end)
        self._answer(model[1].decode() if model else "", data, end)

    def _answer(self, model: str, data: bytes, body_at: int) -> None:
        if model == wire.PLAIN:
            self._transport.write(PLAIN_REPLY)
        elif model == wire.CLAUDE:
            self._transport.write(CLAUDE_REPLY)
        elif model == wire.CLAUDE_BURST:
            self._burst(iter((wire.STREAM_HEAD + CLAUDE_CHUNKS[0], *CLAUDE_CHUNKS[1:], wire.LAST_CHUNK)))
        elif model in (wire.BURST, wire.PACED):
            ending = ENDING_WITH_USAGE if _USAGE.search(data, body_at) else ENDING
            writes = iter((wire.STREAM_HEAD + CHUNKS[0], *CHUNKS[1:], ending))
            self._burst(writes) if model == wire.BURST else self._pace(writes, wire.PACE_S)
        elif model == wire.IDLE:
            self._transport.write(wire.STREAM_HEAD + CHUNKS[0])
        elif model == wire.SOAK and (user := _USER.search(data, body_at)):
            self._pace(soak_writes(user[1].decode(), with_usage=bool(_USAGE.search(data, body_at))), wire.SOAK_PACE_S)
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _burst(self, writes: Iterator[bytes]) -> None:
        for data in writes:
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):  # the reader is behind: the rest goes as it can
                self._transport.write(data[sent:] + b"".join(writes))

    def _pace(self, writes: Iterator[bytes], pace_s: float) -> None:
        data = next(writes, None)
        if data is not None:
            self._transport.write(data)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(pace_s, self._pace, writes, pace_s)


def soak_writes(stream_id: str, *, with_usage: bool) -> Iterator[bytes]:
    """The writes of a soak stream: mostly one event each, some events in two chunks, some writes with two events."""
    yield wire.STREAM_HEAD
    numbers = iter(range(wire.soak_length(stream_id)))
    for number in numbers:
        event = wire.soak_event(stream_id, number)
        if number % 7 == 3:
            middle = len(event) // 2
            yield wire.as_chunk(event[:middle])
            yield wire.as_chunk(event[middle:])
        elif number % 7 == 5 and (following := next(numbers, None)) is not None:
            yield wire.as_chunk(event + wire.soak_event(stream_id, following))
        else:
            yield wire.as_chunk(event)
    if with_usage:
        yield wire.as_chunk(wire.usage_event(stream_id))
    yield ENDING


async def serve(port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Serve each connection with a ``protocol`` of its own until the parent's pipe ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", port, backlog=4096)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), _end_with_parent(ended))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await ended.wait()
    server.close()


def _end_with_parent(ended: asyncio.Event) -> Callable[[], None]:
    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            ended.set()

    return readable


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Canned))
