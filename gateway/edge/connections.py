"""The client connections of one server: their bounds, and the one sweep that enforces what needs a clock.

Invariant: a connection costs no timer of its own. ``Connections.sweep`` looks at every connection about once a second
(more often where a timeout is short), so a timeout is late by at most one sweep, and a connection that cannot be looked
at does not keep the others from it. Nothing here parses HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from uvicorn.server import ServerState

from gateway.clock import monotonic
from gateway.edge.known import KnownHead
from gateway.errors import GatewayError
from gateway.model import Frozen

_log = logging.getLogger("gateway.connection")

CONNECTION_EXTENSION = "llm_gateway.connection"
"""Where a request's ``scope["extensions"]`` carries its ``ClientConnection``."""

OVERFLOW_MAX = 1000
"""Connections above ``max_connections`` that are still told why; further ones are cut without a word."""

# What a refused client still sends is read and dropped, so that it can read its answer: a close would be a reset.
LINGER_S: Final = 2.0  # after the last byte
LINGER_MAX_S: Final = 30.0  # in all
QUIET_S: Final = 2.0  # idle for so long, an old connection is closed; a busier one is told with its next response
NEVER: Final = float("inf")

WARN_S: Final = 5.0
"""Between two log lines about connections that are turned away."""


class ConnectionLimits(Frozen, frozen=True):
    """Bounds on what one client connection may use; seconds and bytes, all > 0 but ``keep_alive_s``."""

    max_header_bytes: int = 32768  # request line and header fields of one request
    max_header_count: int = 100
    max_connections: int = 20000  # of this server
    header_timeout_s: float = 10.0  # from the first byte of a head to its end
    keep_alive_s: float = 75.0  # idle between requests, also before the first; 0 closes after each
    write_timeout_s: float = 60.0  # without the client taking a byte of what waits for it
    max_age_s: float = 600.0  # +-10 %, then closed between requests

    def sweep_interval_s(self) -> float:
        """A tenth of the shortest timeout, within 0.02 and 1 s."""
        keep_alive_s = self.keep_alive_s or self.header_timeout_s
        shortest = min(self.header_timeout_s, keep_alive_s, self.write_timeout_s, self.max_age_s)
        return min(1.0, max(0.02, shortest / 10))

    def age_ends(self, now: float) -> float:
        """When a connection that is made ``now`` is old (monotonic seconds); at once where none is kept alive."""
        if not self.keep_alive_s:
            return 0.0
        return now + self.max_age_s * random.uniform(0.9, 1.1)  # noqa: S311  # no secret


class ClientConnection(Protocol):
    """What an application may know of its client's connection, for one request."""

    @property
    def request_started(self) -> float:
        """Monotonic time of the first byte of the request's head."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs the application for this request."""

    @property
    def body_received(self) -> bool:
        """True once the whole request body has arrived, so that ``receive`` will not wait for it."""

    def take_body(self) -> bytes:
        """The whole body, where ``body_received`` is true: what ``receive`` would give, without waiting for it."""

    @property
    def known(self) -> KnownHead | None:
        """Where this connection has sent the very same head before: what was derived from it may be kept there."""

    def respond(self, status: int, fields: bytes, body: bytes) -> bool:
        """Send a whole response at once; False, and nothing is done, where only ``send`` can.

        ``status`` allows a body; ``fields`` are whole header lines, as ``header_lines`` makes them, without framing.
        """

    def push(self, body: bytes) -> bool:
        """Send a piece of the body, not the last, once its head was sent; False, and nothing is done, where the client
        is to be waited for or gone.
        """

    @property
    def write_paused(self) -> bool:
        """True while the client reads more slowly than it is written to; ``send`` waits meanwhile."""

    @property
    def fault(self) -> GatewayError | None:
        """What was wrong with the request's body, set before the disconnect that it leads to.

        The client was told, unless the response had begun. None where the client itself is gone.
        """

    @property
    def stalled(self) -> bool:
        """True where we cut the connection because the client took nothing; set before that disconnect."""

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Have ``callback`` called once, at the moment the client is gone before its response is complete.

        At once where it is gone already. Replaces an earlier callback; None takes it back. A half-closed client is
        gone.
        """


class OpenConnection(Protocol):
    """What a server asks of its connections."""

    def sweep(self, now: float) -> None:
        """Act on every timeout that has passed at ``now`` (monotonic seconds)."""

    def abort(self) -> None:
        """Close at once."""


class Connections(ServerState):
    """What the connections of one server share.

    It is uvicorn's ``ServerState`` with our bounds, so that uvicorn's server hands it to every protocol it makes.
    ``refused`` is called with the error code of every refusal that no application hears of.
    """

    def __init__(self, limits: ConnectionLimits, refused: Callable[[str], None]) -> None:
        self.refused = refused
        self.head_lines = b""
        super().__init__()
        self.limits = limits
        self.draining = False  # every response says "connection: close"
        self._ending_since = NEVER
        self.quiet_s = 0.0  # how long a connection is still open for the request of a client that was not told
        self.now = monotonic()  # as of the last sweep
        self._warn_at = 0.0

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Header fields of every response; uvicorn assigns them once a second, for the date."""
        return self._default_headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._default_headers = headers
        self.head_lines = b"".join(b"%b: %b\r\n" % header for header in headers)

    @property
    def full(self) -> bool:
        """More connections than allowed are open."""
        return len(self.connections) > self.limits.max_connections

    @property
    def overflowing(self) -> bool:
        """So many more that refusing them politely would itself be a load."""
        return len(self.connections) > self.limits.max_connections + OVERFLOW_MAX

    def end(self, since: float, quiet_s: float) -> None:
        """Close connections between requests from now on, those that may be used once more ``quiet_s`` later.

        That is from ``since`` (monotonic seconds), or from a response that could not say close, since its head was sent
        before: its client may be sending the next request at this moment, and would have to take a close for a failure.
        """
        self.draining = True
        self._ending_since, self.quiet_s = since, quiet_s
        for connection in tuple(self.connections):
            connection.shutdown()

    def is_unused(self, idle_since: float, age_ends: float, now: float) -> bool:
        """Whether a connection that waits for a request since ``idle_since`` is not to be waited for any more."""
        limits, idle_s = self.limits, now - idle_since
        return (
            idle_s >= (limits.keep_alive_s or limits.header_timeout_s)
            or (now >= age_ends and limits.keep_alive_s > 0 and idle_s >= QUIET_S)
            or now - max(idle_since, self._ending_since) >= self.quiet_s
        )

    def warn_full(self) -> None:
        """Say in the log, though not for each of them, that connections are turned away."""
        now = monotonic()
        if now >= self._warn_at:
            self._warn_at = now + WARN_S
            _log.warning("more than %d connections are open: new ones are turned away", self.limits.max_connections)

    def sweep(self, now: float) -> None:
        """Let every connection act on its timeouts."""
        self.now = now
        for connection in tuple(self._ours()):
            try:
                connection.sweep(now)
            except Exception:  # noqa: BLE001  # a fault with one connection must not end the timeouts of the others
                _log.exception("the timeouts of a connection failed: it is cut")
                connection.abort()

    def _ours(self) -> Iterable[OpenConnection]:
        return self.connections  # type: ignore[return-value]  # uvicorn lists its own protocols

    def cut(self) -> None:
        """Close every connection at once, whatever it is doing."""
        for connection in tuple(self._ours()):
            connection.abort()
