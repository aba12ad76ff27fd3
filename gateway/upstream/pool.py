"""The keep-alive connections of one origin.

Bounds: ``max_connections`` at all, ``max_idle_connections`` waiting, ``idle_s`` of waiting, ``connection_max_age_s`` of
life, so that load moves to new addresses. An idle connection whose address has left DNS is closed; a busy one is
closed when its exchange ends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from gateway.clock import monotonic
from gateway.errors import AttemptFailed, Outcome
from gateway.model import Origin, Timeouts
from gateway.upstream.connection import Connection
from gateway.upstream.dns import FixedAddresses, Resolver
from gateway.upstream.limits import UpstreamLimits

_MAX_ADDRESSES_TRIED = 4
_FRESH_S = 0.001
"""How long a connection may have been idle and be used without a look into the kernel; the look is a system call."""
_NEVER = float("inf")


class Pool:
    """Connections to one origin: taken for an exchange, given back after it.

    With ``addresses`` they go there, whatever the origin's host is.
    """

    def __init__(
        self,
        origin: Origin,
        limits: UpstreamLimits,
        tls: ssl.SSLContext | None,
        addresses: tuple[str, ...] | None = None,
    ) -> None:
        self._origin = origin
        self._limits = limits
        self._tls = tls
        self._idle: deque[Connection] = deque()
        self.connecting = 0
        self._closed = False
        self._current: frozenset[str] | None = None
        self._resolver: Resolver | FixedAddresses
        if addresses is None:
            self._resolver = Resolver(origin.host, origin.port, limits.dns_ttl_s, self._addresses_changed)
        else:
            self._resolver = FixedAddresses(addresses)
        self.busy: set[Connection] = set()
        self._look_at = _NEVER

    @property
    def open_connections(self) -> int:
        """Busy and idle ones."""
        return len(self.busy) + len(self._idle)

    @property
    def is_used(self) -> bool:
        """Whether there is any connection, or soon will be."""
        return bool(self.busy or self._idle or self.connecting)

    def take_idle(self, now: float) -> Connection | None:
        """The connection used last, busy from ``now`` on; None if there is none."""
        self._resolver.refresh()
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            if now - connection.idle_since > _FRESH_S and connection.is_readable():
                connection.abort()
                continue
            self.busy.add(connection)
            return connection
        return None

    async def connect(self, timeout_s: float) -> Connection:
        """A new connection, busy. Raises AttemptFailed (busy, connect_error, connect_timeout)."""
        if len(self.busy) + self.connecting >= self._limits.max_connections:
            raise AttemptFailed("busy", f"{self._limits.max_connections} connections to the origin are in use")
        self.connecting += 1
        try:
            connection = await self._connect(monotonic() + timeout_s, timeout_s)
        finally:
            self.connecting -= 1
        if self._closed:
            connection.abort()
            raise AttemptFailed("connect_error", "the process is ending")
        self.busy.add(connection)
        return connection

    async def _connect(self, deadline: float, timeout_s: float) -> Connection:
        try:
            async with asyncio.timeout(timeout_s):
                addresses = (await self._resolver.addresses())[:_MAX_ADDRESSES_TRIED]
        except TimeoutError:
            raise _unreachable("connect_timeout", f"name not resolved within {timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:  # the latter for what cannot be a name at all
            raise _unreachable("connect_error", f"cannot resolve {self._origin.host}: {error}") from None
        failure = _unreachable("connect_timeout", f"not connected within {timeout_s:g} s")
        for position, address in enumerate(addresses):
            share_s = (deadline - monotonic()) / (len(addresses) - position)
            if share_s <= 0:
                break
            try:
                async with asyncio.timeout(share_s):
                    return await self._open(address)
            except TimeoutError:
                failure = _unreachable("connect_timeout", f"not connected within {timeout_s:g} s")
            except (OSError, ssl.CertificateError) as error:
                failure = _unreachable("connect_error", f"cannot connect: {error}")
                failure.not_ready = not isinstance(error, ssl.SSLError)  # there is someone, and time will not mend it
        raise failure

    async def _open(self, address: str) -> Connection:
        connection = Connection(self._limits, self._idle_lost)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address,
                self._origin.port,
                ssl=self._tls,
                server_hostname=self._origin.host.strip("[]") if self._tls is not None else None,
            )
        except BaseException:  # also when cancelled: a connection nobody waits for must not stay open
            connection.abort()
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """End the connection's exchange; it is kept if it may serve another one and there is room."""
        self.busy.discard(connection)
        if not connection.finish():
            return
        idle, current = self._idle, self._current
        if (
            connection.idle_since > connection.old_at
            or (current is not None and connection.address not in current)
            or len(idle) >= self._limits.max_idle_connections
        ):
            connection.abort()
        else:
            idle.append(connection)

    def _idle_lost(self, connection: Connection) -> None:
        try:
            self._idle.remove(connection)
        except ValueError:
            return

    def _addresses_changed(self, current: frozenset[str]) -> None:
        self._current = current
        for connection in [idle for idle in self._idle if idle.address not in current]:
            self._idle.remove(connection)
            connection.abort()

    def retire(self) -> None:
        """No connection serves another exchange: idle ones are closed, busy ones when theirs ends."""
        self._addresses_changed(frozenset())

    def revive(self) -> None:
        """Connections are kept again."""
        self._current = None

    def watch(self, _connection: Connection, timeouts: Timeouts, since: float) -> None:
        """An exchange was started ``since``: its deadlines may be nearer than those known so far."""
        self._look_at = min(self._look_at, since + timeouts.soonest_s)

    def sweep(self, now: float) -> None:
        """Fail exchanges past their deadline, close connections idle for too long.

        Each connection says when it could expire at the earliest, whatever arrives until then, so the connections are
        looked at only when the first of these moments has come.
        """
        if now >= self._look_at:
            self._look_at = min((connection.expire(now) for connection in tuple(self.busy)), default=_NEVER)
        while self._idle and now - self._idle[0].idle_since > self._limits.idle_s:
            self._idle.popleft().abort()

    def close(self) -> None:
        """Close every connection, busy ones too; none is made any more."""
        self._closed = True
        self._resolver.close()
        for connection in [*self._idle, *self.busy]:
            connection.abort()
        self._idle.clear()


def _unreachable(outcome: Outcome, detail: str) -> AttemptFailed:
    failure = AttemptFailed(outcome, detail)
    failure.not_ready = True
    return failure
