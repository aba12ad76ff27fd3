"""The cache as the process has it: its lane to Redis, begun when a scenario first needs it, and its bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.app.redis import cache_lane
from gateway.cache import Cache, CacheOptions, ConversationBounds, Conversations, IndexBounds, Store, load_scripts
from gateway.telemetry import CacheMetrics

if TYPE_CHECKING:
    from gateway.cache.store import LaneLike
    from gateway.model import Snapshot
    from gateway.redis.lane import RedisLane
    from gateway.settings import Settings
    from gateway.telemetry import Metrics


class SharingParts:
    """Made inside the event loop; a gateway without a scenario that has a cache opens no connection for one."""

    def __init__(self, settings: Settings, redis_url: str | None, metrics: Metrics) -> None:
        self._settings = settings
        self._redis_url = redis_url
        self._metrics = CacheMetrics(metrics)
        self._lane: RedisLane | None = None
        self._starting: asyncio.Task[None] | None = None
        self.cache = Cache(self._open, cache_options(settings), self._metrics)

    @property
    def conversations(self) -> Conversations:
        """The turns that callers go on from, kept where answers are."""
        settings = self._settings
        bounds = ConversationBounds(
            ttl_s=settings.responses_ttl_s,
            max_turns=settings.responses_max_turns,
            max_bytes=settings.responses_max_bytes,
        )

        def lane() -> LaneLike | None:
            store = self.cache.store
            return None if store is None else store.lane

        return Conversations(lane, load_scripts(), bounds)

    async def start(self, snapshot: Snapshot) -> None:
        """Begin to connect where a scenario has a cache; else the first call of one that gets one does."""
        if any(each.cache is not None for each in snapshot.scenarios.values()):
            _ = self.cache.store

    def _open(self) -> Store | None:
        lane = self._lane = cache_lane(self._settings, self._redis_url, self._metrics)
        if lane is None:
            return None
        self._starting = asyncio.get_running_loop().create_task(lane.start())
        return Store(
            lane,
            load_scripts(),
            lease_ms=int(self._settings.cache_lease_s * 1000),
            entry_bytes_max=self._settings.cache_max_entry_bytes,
        )

    async def close(self) -> None:
        """Give up the calls that are still made, tell others, and end the connection."""
        await self.cache.close()
        if self._lane is not None:
            await self._lane.close()


def cache_options(settings: Settings) -> CacheOptions:
    """The bounds of the cache."""
    return CacheOptions(
        lease_s=settings.cache_lease_s,
        poll_s=settings.cache_poll_s,
        max_entry_bytes=settings.cache_max_entry_bytes,
        max_flight_bytes=settings.cache_max_flight_bytes,
        max_flights_bytes=settings.cache_max_flights_bytes,
        max_followed=settings.cache_max_followed,
        local_s=settings.cache_local_s,
        max_local_bytes=settings.cache_max_local_bytes,
        index=IndexBounds(bucket_max=settings.cache_max_bucket_vectors, tenant_max=settings.cache_max_tenant_vectors),
    )
