"""An ASGI application of a test's own behind the gateway's server, in a thread with an event loop.

For behaviour of the server alone, which the whole gateway would hide: the application is a coroutine function of the
test, the clients are real sockets.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

import uvloop

from gateway.app.server import PortServer
from gateway.edge.connections import CONNECTION_EXTENSION, ClientConnection, ConnectionLimits
from tests.support.client import RawClient

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class ServedApp:
    """Serves ``app`` on a free port of 127.0.0.1; a context manager. ``limits`` are those of ConnectionLimits."""

    def __init__(self, app: App, **limits: Any) -> None:
        self._app, self._limits = app, ConnectionLimits(**limits)
        self.refusals: list[str] = []  # their error codes
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def client(self, **options: Any) -> RawClient:
        """A new connection."""
        return RawClient("127.0.0.1", self.port, **options)

    def call(self, function: Callable[[PortServer], object]) -> None:
        """Call ``function`` with the server on its event loop."""
        self._loop.call_soon_threadsafe(function, self.server)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.server.clients.connections)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        self.server = PortServer(self._app, self._limits, self.refusals.append)
        await self.server.open(self._listener)
        self._ready.set()
        await self._done.wait()
        await self.server.close()


async def read_all(receive: Receive) -> bytes:
    """The whole request body."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def answer(send: Send, body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """A whole response; its length is left to the server."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def hello(_scope: Any, receive: Receive, send: Send) -> None:
    """The simplest application."""
    await read_all(receive)
    await answer(send, b"hello")


class Streaming:
    """Sends one piece, then waits to be told to go on; notes when and how often its client was gone."""

    def __init__(self, *, pieces: int = 1) -> None:
        self.pieces = pieces
        self.started = threading.Event()
        self.go_on = asyncio.Event()
        self.gone: list[float] = []
        self.receives: list[str] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        connection: ClientConnection = scope["extensions"][CONNECTION_EXTENSION]
        connection.on_disconnect(lambda: self.gone.append(time.monotonic()))
        await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        self.started.set()
        self.receives.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"late"})
