"""Finding the primary through Sentinels (https://valkey.io/topics/sentinel-clients/).

Invariant: an address is believed from any Sentinel that answers; that the server there really is a primary is checked
by whoever connects to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import RedisFailure, RedisUnavailable
from gateway.redis.config import Address
from gateway.redis.link import Destination

if TYPE_CHECKING:
    from gateway.redis.command import Command, ErrorReply
    from gateway.redis.config import RedisConfig
    from gateway.redis.dial import Dialer


class SentinelDestination(Destination):
    """The primary of a service, as the first Sentinel knows that answers; that one is asked first the next time."""

    moves = True

    def __init__(self, config: RedisConfig, dialer: Dialer) -> None:
        super().__init__(config.server.addresses[0])
        self._service = config.server.service
        self._sentinels = list(config.server.addresses)
        self._dialer = dialer
        self._within_s = config.connect_timeout_s

    async def find(self) -> Address:
        """See Destination."""
        failures: list[str] = []
        for _ in range(len(self._sentinels)):
            sentinel = self._sentinels.pop(0)
            self._sentinels.append(sentinel)  # whatever becomes of it, the next one has its turn first
            try:
                address = await self._ask(sentinel)
            except (OSError, ValueError, RedisFailure) as failure:
                failures.append(f"{sentinel}: {str(failure) or 'no answer in time'}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return address
        raise RedisUnavailable(f"no Sentinel names the primary of {self._service!r}: {'; '.join(failures)}")

    async def _ask(self, sentinel: Address) -> Address:
        connection = await self._dialer.open_sentinel(sentinel, _Listener())
        try:
            answer = await connection.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service, within_s=self._within_s)
        finally:
            connection.abort("asked")
        if isinstance(answer, list) and len(answer) == 2:
            host, port = answer
            return Address(host.decode(), int(port))
        raise RedisUnavailable(f"{sentinel} does not know the service {self._service!r}")

    def __str__(self) -> str:
        return f"{self._service} (Sentinel)"


class _Listener:
    """Owns a connection that asks one question."""

    def connection_lost(self) -> None:
        """See Owner."""

    def writable(self) -> None:
        """See Owner."""

    def answered(self, seconds: float) -> None:
        """See Owner."""

    def expired(self, count: int) -> None:
        """See Owner."""

    def refused(self, command: Command, error: ErrorReply) -> None:
        """See Owner."""
        command.fail(error.failure())
