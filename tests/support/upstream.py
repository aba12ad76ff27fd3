"""A scripted model server on the loopback interface: a real HTTP/1.1 server that does exactly what a test says.

It runs its own event loop in a thread. Every request is recorded, every connection is followed to its end, and a test
can wait for either with a deadline. What it answers is decided by behaviours (``tests.support.scripts`` for the
well-formed ones, ``tests.support.faults`` for the others). It never decides anything itself and serves the requests
of one connection strictly in order.

    with ScriptedUpstream() as upstream:
        upstream.enqueue(error_reply(429, headers=[("retry-after", "7")]))
        ... # the first request is refused, later ones get the default behaviour
        request = upstream.wait_for_requests(1)[0]
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trustme

from tests.support.connection import Connection
from tests.support.scripts import Behaviour, Chat, Moment, Received, Script


@dataclass(frozen=True)
class Disconnect:
    """The peer left while its request was not fully answered.

    ``at`` is ``time.monotonic()``; ``request`` is None when the request had not arrived completely; ``sent`` is the
    number of response bytes that the kernel had taken by then.
    """

    connection_id: int
    at: float
    request: Received | None
    sent: int


class ScriptedUpstream:
    """The server; a context manager that listens from entry to exit.

    ``behaviour`` answers every request that no queued behaviour takes. With ``tls`` it has a certificate for
    ``localhost`` and 127.0.0.1 from a certificate authority of its own (``ca_pem``). ``send_buffer`` bounds the
    kernel's send buffer of each connection in bytes, so that back-pressure is felt early. ``address`` is where it
    listens, at a free port unless it says which.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        tls: bool = False,
        send_buffer: int | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self._default: Behaviour = behaviour if behaviour is not None else Chat()
        self.behaviour = self._default
        self.send_buffer = send_buffer
        self._address, self._wanted_port = address
        self.requests: list[Received] = []
        self.disconnects: list[Disconnect] = []
        self.protocol_errors: list[str] = []
        self.server_names: list[str | None] = []
        self.connections_total = 0
        self.changed = threading.Condition()
        self._queue: deque[Behaviour] = deque()
        self._on_connect: deque[Script] = deque()
        self._open: dict[int, Connection] = {}
        self._disconnects_taken = 0
        self._authority = trustme.CA() if tls else None
        self._thread = threading.Thread(target=self._run, name="scripted-upstream", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._listen(self._wanted_port)
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._call(self._start_server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._shut_down)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the scripted upstream did not stop"
        self._loop.close()
        self._listener.close()

    @property
    def url(self) -> str:
        """The base URL without a path, e.g. ``http://127.0.0.1:40001``."""
        return f"{'https' if self._authority else 'http'}://{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The name to connect to: one that the certificate has."""
        return "localhost" if self._authority else self._address

    @property
    def ca_pem(self) -> bytes:
        """The certificate authority to trust, PEM."""
        assert self._authority is not None, "made without tls"
        return self._authority.cert_pem.bytes()

    # -- what it does --------------------------------------------------------------------------------------------

    def enqueue(self, *behaviours: Behaviour) -> None:
        """Let the next requests, in order of arrival, be answered by these; after them the default applies."""
        with self.changed:
            self._queue.extend(behaviours)

    def on_connect(self, *scripts: Script) -> None:
        """Let the next connections, in order, run these before they look for a request."""
        with self.changed:
            self._on_connect.extend(scripts)

    def forget(self) -> None:
        """Back to the default behaviour, with nothing queued and nothing recorded; open connections stay."""
        with self.changed:
            self._queue.clear()
            self._on_connect.clear()
            for seen in (self.requests, self.disconnects, self.protocol_errors, self.server_names):
                seen.clear()
            self._disconnects_taken = 0
            self.behaviour = self._default

    def refuse(self) -> None:
        """Refuse new connections from now on; open ones stay. The port stays ours."""
        self._call(self._stop_listening)

    def accept(self) -> None:
        """Accept again after ``refuse``."""
        self._call(self._listen_again)

    def close_connections(self, *, reset: bool = False) -> None:
        """End every open connection now, whatever it is doing."""

        async def close() -> None:
            for each in list(self._open.values()):
                each.end(reset=reset)

        self._call(close)

    # -- what it saw ---------------------------------------------------------------------------------------------

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    @property
    def busy_connections(self) -> int:
        """How many connections have a request that is not fully answered."""
        return sum(each.busy for each in list(self._open.values()))

    def bytes_sent(self) -> int:
        """Response bytes that the kernel has taken, over the open connections."""
        return sum(each.sent for each in list(self._open.values()))

    def wait_for_requests(self, count: int = 1, timeout_s: float = 5.0) -> list[Received]:
        """Wait until at least ``count`` requests have come completely; all of them."""
        self._wait(lambda: len(self.requests) >= count, timeout_s, f"{count} requests")
        return list(self.requests)

    def wait_for_disconnect(self, timeout_s: float = 5.0) -> Disconnect:
        """Wait for the next early disconnect that no call returned yet."""
        self._wait(lambda: len(self.disconnects) > self._disconnects_taken, timeout_s, "a disconnect")
        with self.changed:
            self._disconnects_taken += 1
            return self.disconnects[self._disconnects_taken - 1]

    def wait_for_idle(self, timeout_s: float = 5.0) -> None:
        """Wait until no connection has an unanswered request."""
        self._wait(lambda: not self.busy_connections, timeout_s, "idle connections")

    def wait_for_open_connections(self, count: int, timeout_s: float = 5.0) -> None:
        """Wait until exactly ``count`` connections are open."""
        self._wait(lambda: len(self._open) == count, timeout_s, f"{count} open connections")

    # -- for the connections, on the loop's thread ---------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> Script | None:
        """Register a connection; what it shall do before its first request."""
        with self.changed:
            self.connections_total += 1
            self._open[connection.id] = connection
            self.changed.notify_all()
            return self._on_connect.popleft() if self._on_connect else None

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection."""
        with self.changed:
            self._open.pop(connection.id, None)
            self.changed.notify_all()

    def disconnected(self, connection: Connection, request: Received | None) -> None:
        """Note that the peer left too early."""
        with self.changed:
            self.disconnects.append(Disconnect(connection.id, time.monotonic(), request, connection.sent))
            self.changed.notify_all()

    def received(self, request: Received) -> None:
        """Record a complete request."""
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def state_changed(self) -> None:
        """Wake whoever waits."""
        with self.changed:
            self.changed.notify_all()

    def not_http(self, reason: str) -> None:
        """Note bytes that were no request."""
        with self.changed:
            self.protocol_errors.append(reason)
            self.changed.notify_all()

    def script_at(self, moment: Moment) -> Script | None:
        """The next queued script if it is to start at ``moment``, before the request is complete."""
        with self.changed:
            first = self._queue[0] if self._queue else None
            if isinstance(first, Script) and first.at == moment:
                self._queue.popleft()
                return first
        return None

    def script_for(self, request: Received) -> Script:
        """What to do with a complete request."""
        with self.changed:
            behaviour = self._queue.popleft() if self._queue else self.behaviour
        return behaviour if isinstance(behaviour, Script) else behaviour(request)

    # -- inside --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, function: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(function), self._loop).result(10)

    def _wait(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        with self.changed:
            if not self.changed.wait_for(ready, timeout_s):
                seen = f"{len(self.requests)} requests, {len(self._open)} open, {self.protocol_errors}"
                raise AssertionError(f"the upstream did not see {what} within {timeout_s} s ({seen})")

    def _listen(self, port: int) -> None:
        # With its protocol named, asyncio turns Nagle's algorithm off on what it accepts: each Send leaves at once.
        self._listener = socket.socket(proto=socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.send_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
        self._listener.bind((self._address, port))
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)

    async def _start_server(self) -> None:
        self._server = await self._loop.create_server(
            lambda: Connection(self), sock=self._listener, ssl=self._tls_context(), backlog=4096
        )

    async def _stop_listening(self) -> None:
        self._server.close()
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", self.port))
        self._listener = held

    async def _listen_again(self) -> None:
        self._listener.close()
        self._listen(self.port)
        await self._start_server()

    async def _shut_down(self) -> None:
        for _ in range(5):  # a connection just accepted becomes ours in a later turn of the loop, if not closed before
            await asyncio.sleep(0)
        self._server.close()
        tasks = [each.task for each in self._open.values() if each.task is not None]
        for each in list(self._open.values()):
            each.end(reset=True)
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        for _ in range(3):  # connection_lost is called in a later turn of the loop
            await asyncio.sleep(0)

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._authority is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        return context


async def _awaited(function: Callable[[], object]) -> None:
    result = function()
    if asyncio.iscoroutine(result):
        await result
