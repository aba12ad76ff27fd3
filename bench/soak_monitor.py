"""What the Redis server was asked, as it says itself: when each call of a tenant was admitted, by the server's clock.

The server's MONITOR writes each command with the time at which it began to run, which is the time that the script of
an admission reads, and the commands of the script after it. An admission is of the script that could write the record
of its lease, be it with others; a lease that was voided afterwards is none.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import cast

from gateway.redis.names import lease

END_MARK = "end of the soak"
"""What is echoed after all that matters."""

_CAUGHT_UP_S_MAX = 10.0


class Monitor(asyncio.Protocol):
    """Follows one tenant. ``scenarios`` are those told apart; no name of one may lie within another's."""

    def __init__(self, tenant: str, scenarios: Iterable[str]) -> None:
        prefix = re.escape(lease(tenant, ""))
        self._scenario = re.compile(b"|".join(re.escape(each.encode()) for each in scenarios))
        run = rb'\+(\d+)\.(\d{3})\d* \[\d+ [^l][^]]*\] "EVAL(?:SHA)?" .*?'
        self._called = re.compile(run + b'((?: "%b[^"]+")+)' % prefix)  # its leases are keys that follow one another
        self._lease = re.compile(rb'"%b([^"]+)"' % prefix)
        self._written = re.compile(rb'\+[\d.]+ \[\d+ lua\] "SET" "%b([^"]+)" "(.*)$' % prefix)
        self._rest = b""
        self._asked: frozenset[bytes] = frozenset()  # the leases of the last script
        self._last = ("", 0)  # its scenario, and when it began
        self._admitted: dict[bytes, tuple[str, int]] = {}
        self.voided = 0
        self._closed = self.is_lost = False
        self._ended, self._marked = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._transport.write(b"MONITOR\r\n")

    def connection_lost(self, _: Exception | None) -> None:
        """What follows is not seen."""
        self.is_lost = self.is_lost or not self._closed
        self._ended.set()

    async def caught_up(self) -> None:
        """Wait until END_MARK has been seen; ``is_lost`` where it does not come."""
        try:
            async with asyncio.timeout(_CAUGHT_UP_S_MAX):
                await self._marked.wait()
        except TimeoutError:
            self.is_lost = True

    async def close(self) -> None:
        """Stop following."""
        self._closed = True
        self._transport.close()
        await self._ended.wait()

    def data_received(self, data: bytes) -> None:
        """Read whole lines."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if b'"EVAL' in line:
                self._call(line)
            elif b' lua] "SET"' in line:
                self._write(line)
            elif line.endswith(b'"ECHO" "%b"' % END_MARK.encode()):
                self._marked.set()

    def admissions(self, scenario: str) -> list[int]:
        """When the calls of a scenario were admitted, in milliseconds, in order."""
        return [at for of, at in self._admitted.values() if of == scenario]

    def _call(self, line: bytes) -> None:
        called = self._called.match(line)
        scenario = self._scenario.search(line, called.end()) if called else None
        if called and scenario:
            self._asked = frozenset(self._lease.findall(called[3]))
            self._last = (scenario[0].decode(), int(called[1]) * 1000 + int(called[2]))

    def _write(self, line: bytes) -> None:
        written = self._written.match(line)
        if written is None:
            return
        lease_id, value = written[1], written[2]
        if b'" "NX" "PX" ' in value and lease_id in self._asked:
            self._admitted.setdefault(lease_id, self._last)
        elif value.startswith(b'v" ') and self._admitted.pop(lease_id, None):
            self.voided += 1
