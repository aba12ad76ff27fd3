"""One connection of the scripted upstream: parses requests, plays scripts, notices when the peer leaves.

All of it runs on the upstream's loop. The requests of a connection are played one after the other; a peer that leaves
ends the script that is playing.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

import httptools

from tests.support.scripts import (
    Close,
    Gate,
    Hang,
    Moment,
    Pause,
    Received,
    Reset,
    Script,
    Send,
    Step,
    StopReading,
)

_ids = itertools.count(1)
_GATE_POLL_S = 0.002


class Owner(Protocol):
    """What a connection needs of its server."""

    def connection_opened(self, connection: Connection) -> Script | None:
        """Register; the script to play before the first request."""

    def connection_closed(self, connection: Connection) -> None:
        """Forget."""

    def disconnected(self, connection: Connection, request: Received | None) -> None:
        """The peer left too early."""

    def received(self, request: Received) -> None:
        """A complete request."""

    def state_changed(self) -> None:
        """Something that a test may wait for changed."""

    def not_http(self, reason: str) -> None:
        """Bytes that are no request."""

    def script_at(self, moment: Moment) -> Script | None:
        """A script that starts before the request is complete."""

    def script_for(self, request: Received) -> Script:
        """The script for a complete request."""


class Connection(asyncio.Protocol):
    """The server side of one connection."""

    def __init__(self, owner: Owner) -> None:
        self.id = next(_ids)
        self.sent = 0
        self.busy = False
        self.task: asyncio.Task[None] | None = None
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._request: Received | None = None
        self._started = self._heads = 0
        self._complete: list[Received] = []
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended_by_us = False
        self._peer_left = False

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to serve."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=1)  # with 0, asyncio's TLS would pause for ever
        script = self._owner.connection_opened(self)
        self.task = asyncio.get_running_loop().create_task(self._serve(script))

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._owner.not_http(f"{type(error).__name__}: {error} in {data[:200]!r}")
            self.end(reset=True)
        self._news.set()

    def eof_received(self) -> bool:
        """The peer sends no more: for HTTP/1.1 it left."""
        self._left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._left()
        self.busy = False
        if self.task is not None:
            self.task.cancel()
        self._owner.connection_closed(self)

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The kernel took all."""
        self._writable.set()

    # -- httptools -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._started += 1
        self._target, self._headers, self._body = b"", [], []

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._heads += 1
        self._method = self._parser.get_method().decode()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        headers, body = tuple(self._headers), b"".join(self._body)
        target = self._target.decode("latin-1")
        request = Received(self._method, target, headers, body, self.id, time.monotonic())
        self._complete.append(request)
        self.busy = True
        self._owner.received(request)

    # -- playing -------------------------------------------------------------------------------------------------

    def end(self, *, reset: bool) -> None:
        """End the connection now with a FIN (after what is written) or a RST."""
        self._ended_by_us = True
        if reset:
            self._linger_zero()
            self._transport.abort()
        else:
            self._transport.close()

    async def _serve(self, script: Script | None) -> None:
        if script is not None:
            await self._play(script)
        for number in itertools.count():
            await self._serve_request(number)

    async def _serve_request(self, number: int) -> None:
        await self._until(lambda: self._started > number)
        script = self._owner.script_at("first_byte")
        if script is None:
            await self._until(lambda: self._heads > number)
            script = self._owner.script_at("head")
        if script is not None:
            await self._play(script)
        await self._until(lambda: len(self._complete) > number)
        self._request = self._complete[number]
        if script is None:
            await self._play(self._owner.script_for(self._request))
        self._request = None
        self.busy = len(self._complete) > number + 1
        self._owner.state_changed()

    async def _play(self, script: Script) -> None:
        for step in script.steps:
            await self._take(step)

    async def _take(self, step: Step) -> None:
        match step:
            case Send(data):
                self._transport.write(data)
                await self._writable.wait()
                if self._transport.is_closing():  # the peer left: connection_lost is about to end this task
                    await asyncio.Event().wait()
                self.sent += len(data)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Gate():
                step.arrive()
                while not step.is_open:  # noqa: ASYNC110 - opened by another thread
                    await asyncio.sleep(_GATE_POLL_S)
            case StopReading():
                self._transport.pause_reading()
            case Hang():
                await asyncio.Event().wait()
            case Close() | Reset():
                self.end(reset=isinstance(step, Reset))
                await asyncio.Event().wait()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self._news.clear()
            await self._news.wait()

    def _left(self) -> None:
        if self._peer_left or self._ended_by_us:
            return
        self._peer_left = True
        if self.busy or self._started > len(self._complete):
            self._owner.disconnected(self, self._request)

    def _linger_zero(self) -> None:
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
