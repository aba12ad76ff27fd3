"""How much work the whole fleet has under way, for an autoscaler: each process says its part in Redis, anyone adds up.

Invariants: what a process said counts for EXPIRE_MS at most, so that one that died is forgotten; an answer that would
leave out replicas because Redis is away is none at all, since a number too small takes capacity away.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.errors import RedisFailure, StoreUnavailable
from gateway.redis import names
from gateway.telemetry.load import Load, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.redis.lane import RedisLane
    from gateway.telemetry import Metrics

PUBLISH_S: Final = 1.0
"""How often a process says what it has under way."""

EXPIRE_MS: Final = 10_000
"""How long that counts, as long as the announcement of a process."""

PROCESSES_MAX: Final = 10_000
"""How many processes are added up at most."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one process has under way; ``replica`` is the same for the workers of one."""

    replica: str
    load: Load


class Fleet(msgspec.Struct, frozen=True):
    """The work under way in ``replicas`` replicas: all that share a Redis, or without one this alone."""

    shared: bool
    replicas: int
    load: Load


class FleetLoad:
    """This process's part and everybody's sum. ``lane`` None: there is no Redis, and this replica is all there is.

    ``process`` is the name of this process among those that ``limits.replicas`` announces, ``replica`` that of the
    replica that it is a worker of.
    """

    def __init__(self, metrics: Metrics, lane: RedisLane | None, *, process: str, replica: str) -> None:
        self._metrics = metrics
        self._lane = lane
        self._process = process
        self._replica = replica

    async def run(self) -> None:
        """Say what this process has under way, time and again; never returns."""
        lane = self._lane
        if lane is None:
            await asyncio.Event().wait()
            return
        while True:
            with suppress(RedisFailure):  # said again in a moment
                await lane.send("SET", names.load(self._process), self._encoded(), "PX", EXPIRE_MS)
            await asyncio.sleep(PUBLISH_S)

    async def leave(self) -> None:
        """This process ends."""
        if self._lane is not None and self._lane.available:
            with suppress(RedisFailure):  # it expires
                await self._lane.send("DEL", names.load(self._process))

    async def total(self) -> Fleet:
        """What is under way now; of other processes as they last said. Raises StoreUnavailable."""
        if self._lane is None:
            return Fleet(shared=False, replicas=1, load=await asyncio.to_thread(self._metrics.replica_load))
        try:
            parts = await self._others(self._lane)
        except RedisFailure as error:
            text = f"Redis did not answer as it should ({type(error).__name__})."
            raise StoreUnavailable(text, detail=str(error), retry_after_s=1.0) from error
        parts = [*parts, Part(self._replica, self._metrics.load())]
        replicas = len({part.replica for part in parts})
        return Fleet(shared=True, replicas=replicas, load=total(part.load for part in parts))

    async def _others(self, lane: RedisLane) -> list[Part]:
        alive: Sequence[bytes] = await lane.send("ZRANGE", names.replicas(), -PROCESSES_MAX, -1)
        keys = [names.load(name) for name in map(bytes.decode, alive) if name != self._process]
        said: Sequence[bytes | None] = await lane.send("MGET", *keys) if keys else ()
        return [msgspec.msgpack.decode(part, type=Part) for part in said if part is not None]

    def _encoded(self) -> bytes:
        return msgspec.msgpack.encode(Part(self._replica, self._metrics.load()))
