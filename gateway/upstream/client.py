"""Calls over HTTP: pools by origin, one silent retry, a sweep for every deadline.

Invariant: whoever holds an Exchange closes it exactly once, and closing it before the end of the response closes the
connection, so that a backend never works for a caller who left.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from gateway.clock import monotonic
from gateway.errors import AttemptFailed, SettingsInvalid
from gateway.model import Origin, Timeouts
from gateway.upstream.balancing import Endpoints, ServicePool
from gateway.upstream.connection import Connection
from gateway.upstream.decoding import Decoder
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.pool import Pool
from gateway.upstream.source import Takeable

_SWEEP_S = 0.05
_PRUNE_S = 600.0
_DIED_UNSEEN_S = 1.0
"""A request on a dead connection is refused within a round trip; a backend that took longer may have worked on it."""

_NOTHING: Iterator[bytes] = iter(())

_log = logging.getLogger("gateway.upstream")


class Exchange(Takeable):
    """One answer being read: ``status``, ``headers`` (lower-case names), then the body. Satisfies ``Source``."""

    __slots__ = ("_connection", "_decoder", "_pool", "_steps", "delimited", "headers", "status")

    def __init__(self, pool: Pool | ServicePool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Sequence[tuple[bytes, bytes]] = connection.headers
        self.delimited = connection.delimited
        self._decoder = Decoder(connection.coding.decode("latin-1")) if connection.coding else None
        self._steps: Iterator[bytes] = _NOTHING

    def take(self) -> bytes | None:
        """The body bytes that have arrived, decoded; ``b""`` at the end, None if none. Raises AttemptFailed."""
        connection = self._connection
        if connection is None:
            return b""
        if self._decoder is None:
            return connection.take()
        return self._take_decoded(connection, self._decoder)

    def arrival(self) -> Awaitable[None]:
        """See Takeable."""
        assert self._connection is not None
        return self._connection.arrival()

    def listen(self, listener: Callable[[bool], None] | None) -> bool:
        """See Source. What is compressed has to be asked for."""
        if self._connection is None or self._decoder is not None:
            return False
        self._connection.listen(listener)
        return True

    def _take_decoded(self, connection: Connection, decoder: Decoder) -> bytes | None:
        while not (step := next(self._steps, b"")):
            data = connection.take()
            if not data:
                if data is not None and not decoder.finished:
                    raise AttemptFailed("protocol_error", "the compressed body ended early")
                return data
            self._steps = decoder.decode(data)
        return step

    def whole(self) -> bytes | None:
        """The rest of the body, if all of it has arrived and is not compressed; else None."""
        connection = self._connection
        return None if connection is None or self._decoder is not None else connection.whole()

    def begun(self) -> None:
        """Say that the answer really began: the first-byte timeout is over, the idle timeout counts."""
        if self._connection is not None:
            self._connection.begun()

    def close(self) -> None:
        """Give the connection back if the response was read to its end, else close it. May be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)


class UpstreamClient:
    """All connections to backends of this process. Made inside a running event loop; ``close()`` ends it.

    ``endpoints`` knows those of Services; without it no origin may name one.

    Raises SettingsInvalid where the CA file cannot be used.
    """

    def __init__(self, limits: UpstreamLimits, endpoints: Endpoints | None = None) -> None:
        self._limits = limits
        self._endpoints = endpoints
        self._pools: dict[Origin, Pool | ServicePool] = {}
        self._used_at: dict[Origin, float] = {}
        self._tls = tls_context(limits.ca_file) if limits.ca_file is not None else None
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def exchange(
        self, origin: Origin, parts: Sequence[bytes], timeouts: Timeouts, sent: Callable[[], None] | None = None
    ) -> Exchange:
        """Send a request and wait for the head of its answer; ``sent`` is called when it goes out.

        A kept connection may have died unseen: if it ends soon and before any byte of an answer, the request is sent
        once more over a new connection (RFC 9110, 9.2.2 leaves that to who knows the request was not handled), within
        the time of the first.
        Raises AttemptFailed.
        """
        pool = self._pools.get(origin) or self._add_pool(origin)
        since = monotonic()
        connection = pool.take_idle(since)
        is_kept = connection is not None
        if connection is None:
            connection = await pool.connect(timeouts.connect_s)
            since = monotonic()
        while True:  # twice at most; in one piece, since every call pays for each further coroutine
            try:
                answered = connection.start(parts, timeouts, since)
                pool.watch(connection, timeouts, since)
                if sent is not None:
                    sent()
                await answered
                if connection.error is not None and connection.status == 0:
                    raise connection.error
                return Exchange(pool, connection)
            except BaseException as failure:  # also when cancelled: the caller left, so the backend must stop
                pool.give_back(connection)
                if not is_kept or failure is not connection.error or not _died_unseen(connection, since):
                    raise
            is_kept = False
            left_s = min(timeouts.first_byte_s, timeouts.total_s) - (monotonic() - since)
            connection = await pool.connect(min(timeouts.connect_s, left_s))

    async def stream(
        self, origin: Origin, head: bytes, pieces: AsyncIterator[bytes], timeouts: Timeouts, *, chunked: bool
    ) -> Exchange:
        """Send a request whose body comes piece by piece, and wait for the head of its answer.

        Over a connection of its own: one that was kept may have died unseen, and what was sent cannot be had again.
        An answer that comes before the request is complete ends the sending. Raises AttemptFailed, and what ``pieces``
        raises.
        """
        pool = self._pools.get(origin) or self._add_pool(origin)
        connection = await pool.connect(timeouts.connect_s)
        since = monotonic()
        try:
            answered = connection.start_open(head, timeouts, since)
            pool.watch(connection, timeouts, since)
            sending = asyncio.ensure_future(_send(connection, pieces, chunked=chunked))
            try:
                await asyncio.wait((sending, answered), return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
                    pool.watch(connection, timeouts, monotonic())
                    await answered
            finally:
                sending.cancel()
            if connection.error is not None and connection.status == 0:
                raise connection.error
            return Exchange(pool, connection)
        except BaseException:  # also when cancelled: the caller left, so the backend must stop
            pool.give_back(connection)
            raise

    def _add_pool(self, origin: Origin) -> Pool | ServicePool:
        if self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        if origin.scheme == "https" and self._tls is None:
            self._tls = tls_context(None)
        tls = self._tls if origin.scheme == "https" else None
        pool: Pool | ServicePool
        if origin.service is None:
            pool = Pool(origin, self._limits, tls)
        else:
            assert self._endpoints is not None, "whoever accepts a service discovers its endpoints"
            pool = ServicePool(origin, self._endpoints, self._limits, tls)
        self._pools[origin] = pool
        return pool

    def _sweep(self) -> None:
        now = monotonic()
        try:
            for origin, pool in list(self._pools.items()):
                try:
                    self._sweep_pool(origin, pool, now)
                except Exception:  # noqa: BLE001  # the deadlines of all other pools hang on this loop
                    _log.exception("a sweep of the connections to %s failed", origin.host)
        finally:
            self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep_pool(self, origin: Origin, pool: Pool | ServicePool, now: float) -> None:
        pool.sweep(now)
        if pool.is_used:
            self._used_at[origin] = now
        elif now - self._used_at.setdefault(origin, now) > _PRUNE_S:
            self._pools.pop(origin).close()
            del self._used_at[origin]

    @property
    def open_connections(self) -> int:
        """Connections to backends, busy and idle."""
        return sum(pool.open_connections for pool in self._pools.values())

    def close(self) -> None:
        """Close every connection at once."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


async def _send(connection: Connection, pieces: AsyncIterator[bytes], *, chunked: bool) -> None:
    """Send a body, in chunks (RFC 9112, 7.1) where its length is not known."""
    async for piece in pieces:
        await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        await connection.write(b"0\r\n\r\n")
    connection.end()


def _died_unseen(connection: Connection, since: float) -> bool:
    """Whether a kept connection that failed was dead already when the request was sent, as far as one can tell."""
    error = connection.error
    is_reset = error is not None and error.outcome == "reset" and not connection.received_any
    return is_reset and monotonic() - since < _DIED_UNSEEN_S


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verification and host name check as the library's defaults have them, with our CA file if one is set.

    Raises SettingsInvalid where that is no file of certificates in PEM form that can be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # which ssl.SSLError is
        raise SettingsInvalid(
            f"LLM_GATEWAY_UPSTREAM_CA_FILE: expected a file of certificates in PEM form, got {str(ca_file)!r}: {error}"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
