"""Kept answers in Redis: looked for, kept, put out of reach.

Invariants:
- A purge is one write, whatever is kept; what was asked for before it is not kept after it.
- Whatever Redis does, a caller waits no longer than the lane's deadline and gets a defined answer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from gateway.cache.entry import Damaged, unpack
from gateway.cache.key import Way
from gateway.cache.scripts import CacheScripts
from gateway.clock import wall
from gateway.errors import RedisRefused
from gateway.redis import names
from gateway.redis.script import Script

MARKS_S: Final = 30 * 86_400
"""How long the marks of a tenant outlive the last answer that was kept: longer than any answer."""

_TOLD_MAX: Final = 20
_log = logging.getLogger("gateway.cache")


class LaneLike(Protocol):
    """What is asked of the lane to Redis."""

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """One command."""

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """One script."""


class Kept(msgspec.Struct, frozen=True):
    """A kept answer and its age in seconds (>= 0)."""

    body: bytes
    age_s: float


class Found(msgspec.Struct, frozen=True):
    """What a look found: a kept answer; else who makes the call, None where it is whoever asked.

    ``marks`` are what an answer is to be kept under.
    """

    marks: bytes
    kept: Kept | None = None
    leader: bytes | None = None


class Store:
    """Answers in Redis, through one lane."""

    def __init__(self, lane: LaneLike, scripts: CacheScripts, *, lease_ms: int, entry_bytes_max: int) -> None:
        self.lane = lane
        self.scripts = scripts
        self.lease_ms = lease_ms
        self._entry_bytes_max = entry_bytes_max
        self._told: set[str] = set()
        self._epochs = secrets.token_hex(8)
        self._looks = 0

    async def look(self, way: Way, leader_id: bytes) -> Found:
        """Look for an answer; where there is none, take the call on as ``leader_id`` (empty: do not).

        Raises RedisFailure.
        """
        keys = (names.cache_marks(way.tenant), names.cache_answer(way.tenant, way.digest.hex()), *flight_keys(way)[:2])
        self._looks += 1
        epoch = f"{self._epochs}{self._looks:x}"
        args = (way.scenario, epoch, leader_id, self.lease_ms, MARKS_S, int(way.reads))
        try:
            marks, raw, leader = await self.lane.run(self.scripts.look, keys, args)
        except RedisRefused as refused:
            self.tell_once(refused.text)
            raise
        return Found(marks, None if raw is None else self._kept(raw, way), leader)

    async def fetch(self, way: Way, digest: bytes) -> Kept | None:
        """A kept answer to another question of the same tenant and scenario. Raises RedisFailure."""
        leader, waits = flight_keys(way)
        keys = (names.cache_marks(way.tenant), names.cache_answer(way.tenant, digest.hex()), leader, waits)
        args = (way.scenario, secrets.token_hex(8), b"", self.lease_ms, MARKS_S, 1)
        _, raw, _ = await self.lane.run(self.scripts.look, keys, args)
        return None if raw is None else self._kept(raw, way)

    def _kept(self, raw: bytes, way: Way) -> Kept | None:
        """The answer, unless it is not what it should be or older than the scenario now wants."""
        try:
            body, kept_at = unpack(raw, self._entry_bytes_max)
        except Damaged as fault:
            self.tell_once(f"a kept answer cannot be read: {fault}")
            return None
        age_s = max(wall() - kept_at, 0.0)
        return Kept(body, age_s) if age_s <= way.policy.ttl_s else None

    def keep(self, way: Way, marks: bytes, packed: bytes) -> asyncio.Future[Any]:
        """Keep an answer for the scenario's time, unless it was purged meanwhile. The future raises RedisFailure."""
        keys = (names.cache_marks(way.tenant), names.cache_answer(way.tenant, way.digest.hex()))
        args = (way.scenario, marks, packed, max(int(way.policy.ttl_s * 1000), 1), MARKS_S)
        return self.lane.run(self.scripts.keep, keys, args)

    def tell_once(self, fault: str) -> None:
        """Log what no outage explains: each once, since every call may meet it."""
        if fault not in self._told and len(self._told) < _TOLD_MAX:
            self._told.add(fault)
            _log.error("the cache cannot be used as it should: %s", fault)


async def purge(lane: LaneLike, scripts: CacheScripts, tenant: str, scenario: str | None) -> None:
    """Put what is kept of a tenant, or of one of its scenarios, out of reach. Raises RedisFailure."""
    args = (scenario or "", secrets.token_hex(8), secrets.token_hex(8), MARKS_S)
    await lane.run(scripts.purge, (names.cache_marks(tenant),), args)


def flight_keys(way: Way) -> tuple[bytes, bytes]:
    """Of a call in flight: who makes it, and who waits."""
    digest = way.flight
    return names.cache_flight(way.tenant, digest.hex()), names.cache_flight(way.tenant, digest.hex(), "waits")
