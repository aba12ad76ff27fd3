"""Addresses of backends, resolved again while the gateway runs.

A Kubernetes Service changes its addresses without telling anyone, so a name is looked up again once its answer is
older than ``ttl_s``; look-ups of one name share one query, and while a name server fails the last answer serves.
Names whose answers rotate show a part of their addresses at a time, so an address has left only when several answers
in a row were without it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import deque
from collections.abc import Callable

from gateway.clock import monotonic

_MAX_ADDRESSES = 64
_ABSENCES = 3
"""An address that is missing from so many look-ups in a row has left the name."""


class Resolver:
    """Looks up one host, with a memory of ``ttl_s`` seconds. Raises OSError or UnicodeError when nothing is known.

    ``on_change`` is told the addresses that have not left, whenever these are others.
    """

    def __init__(self, host: str, port: int, ttl_s: float, on_change: Callable[[frozenset[str]], None]) -> None:
        self._host = host
        self._port = port
        self._ttl_s = ttl_s
        self._on_change = on_change
        self._literal = _is_literal(host)
        self._addresses: tuple[str, ...] = (host.strip("[]"),) if self._literal else ()
        self._resolved_at = float("-inf")
        self._query: asyncio.Task[None] | None = None
        self._turn = 0
        self._answers: deque[tuple[str, ...]] = deque(maxlen=_ABSENCES)
        self._present: frozenset[str] = frozenset()

    async def addresses(self) -> tuple[str, ...]:
        """The addresses to try, in order; the start moves on by one at each call, so that all get their share."""
        if not self._literal:
            self.refresh()
            if not self._addresses and self._query is not None:
                await asyncio.shield(self._query)
        known = self._addresses
        self._turn += 1
        start = self._turn % len(known)
        return known[start:] + known[:start]

    def refresh(self) -> None:
        """Start a look-up in the background if the last answer is too old and none is under way."""
        if self._literal or self._query is not None or monotonic() - self._resolved_at < self._ttl_s:
            return
        self._query = asyncio.get_running_loop().create_task(self._resolve(), name=f"resolve {self._host}")
        self._query.add_done_callback(self._resolved)

    def close(self) -> None:
        """Give up a look-up under way."""
        if self._query is not None:
            self._query.cancel()

    async def _resolve(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MAX_ADDRESSES]
        if not addresses:
            raise OSError(f"no address for {self._host}")
        self._addresses = addresses
        self._answers.append(addresses)
        present = frozenset().union(*self._answers)
        if present != self._present:
            self._present = present
            self._on_change(present)

    def _resolved(self, query: asyncio.Task[None]) -> None:
        self._query = None
        self._resolved_at = monotonic()
        if not query.cancelled() and query.exception() is not None and not self._addresses:
            self._resolved_at = float("-inf")


class FixedAddresses:
    """Addresses that are known, in the order in which to try them; used as a ``Resolver`` is."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    async def addresses(self) -> tuple[str, ...]:
        """The addresses."""
        return self._addresses

    def refresh(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
