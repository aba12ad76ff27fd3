"""Calls over HTTP: pools by origin, one silent retry, a sweep for every deadline.

Invariant: whoever holds an Exchange closes it exactly once, and closing it before the end of the response closes the
connection, so that a backend never works for a caller who left.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Iterator, Sequence

from gateway.clock import monotonic
from gateway.errors import AttemptFailed
from gateway.model import Origin, Timeouts
from gateway.upstream.connection import Connection
from gateway.upstream.decoding import Decoder
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.pool import Pool

_SWEEP_S = 0.05
_PRUNE_S = 600.0


class Exchange:
    """One answer being read: ``status``, ``headers`` (lower-case names), then the body."""

    __slots__ = ("_connection", "_decoder", "_pool", "_steps", "delimited", "headers", "status")

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Sequence[tuple[bytes, bytes]] = connection.headers
        self.delimited = connection.delimited
        self._decoder: Decoder | None = None
        self._steps: Iterator[bytes] = iter(())
        for name, value in self.headers:
            if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
                self._decoder = Decoder(value.strip().lower().decode("latin-1"))

    def read(self) -> Awaitable[bytes]:
        """The next body bytes, decoded; ``b""`` at the end. Raises AttemptFailed."""
        connection = self._connection
        if connection is None:
            return _read_nothing()
        if self._decoder is None:
            return connection.read()  # not awaited in between: this is paid for every chunk of every stream
        return self._read_decoded(connection, self._decoder)

    async def _read_decoded(self, connection: Connection, decoder: Decoder) -> bytes:
        while not (step := next(self._steps, b"")):
            data = await connection.read()
            if not data:
                if not decoder.finished:
                    raise AttemptFailed("protocol_error", "the compressed body ended early")
                return b""
            self._steps = decoder.decode(data)
        return step

    def close(self) -> None:
        """Give the connection back if the response was read to its end, else close it. May be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)


class UpstreamClient:
    """All connections to backends of this process. Made inside a running event loop; ``close()`` ends it."""

    def __init__(self, limits: UpstreamLimits) -> None:
        self._limits = limits
        self._pools: dict[Origin, Pool] = {}
        self._used_at: dict[Origin, float] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def exchange(self, origin: Origin, parts: Sequence[bytes], timeouts: Timeouts) -> Exchange:
        """Send a request and wait for the head of its answer.

        A kept connection may have died unseen: if it ends before any byte of an answer, the request is sent once
        more over a new connection (RFC 9110, 9.2.2 leaves that to who knows the request was not handled).
        Raises AttemptFailed.
        """
        pool = self._pools.get(origin) or self._add_pool(origin)
        connection = pool.take_idle()
        if connection is not None:
            try:
                return await _answer(pool, connection, parts, timeouts)
            except AttemptFailed as failure:
                if failure.outcome != "reset" or connection.received_any:
                    raise
        connection = await pool.connect(timeouts.connect_s)
        return await _answer(pool, connection, parts, timeouts)

    def _add_pool(self, origin: Origin) -> Pool:
        if self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        tls = self._tls_context() if origin.scheme == "https" else None
        pool = self._pools[origin] = Pool(origin, self._limits, tls)
        return pool

    def _tls_context(self) -> ssl.SSLContext:
        """Verification and host name check as the library's defaults have them, with our CA file if one is set."""
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._limits.ca_file)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._tls

    def _sweep(self) -> None:
        now = monotonic()
        for origin, pool in list(self._pools.items()):
            pool.sweep(now)
            if pool.busy or pool.idle_count or pool.connecting:
                self._used_at[origin] = now
            elif now - self._used_at.setdefault(origin, now) > _PRUNE_S:
                self._pools.pop(origin).close()
                del self._used_at[origin]
        self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    @property
    def open_connections(self) -> int:
        """Connections to backends, busy and idle."""
        return sum(len(pool.busy) + pool.idle_count for pool in self._pools.values())

    def close(self) -> None:
        """Close every connection at once."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


async def _read_nothing() -> bytes:
    return b""


async def _answer(pool: Pool, connection: Connection, parts: Sequence[bytes], timeouts: Timeouts) -> Exchange:
    try:
        connection.start(parts, timeouts)
        pool.watch(connection)
        await connection.head()
        return Exchange(pool, connection)
    except BaseException:  # also when cancelled: the caller left, so the backend must stop
        pool.give_back(connection)
        raise
