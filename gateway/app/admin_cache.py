"""Kept answers over the admin API: forgotten.

Invariant: a purge is one write to Redis, holds from then on for whoever looks there, and leaves an audit line. A worker
looks again after ``LLM_GATEWAY_CACHE_LOCAL_S`` at the latest.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from gateway.app.admin_limits import no_tenant, unavailable
from gateway.app.key_operations import Audit
from gateway.app.source import RegistryWatch
from gateway.cache import CacheScripts, load_scripts, purge
from gateway.errors import NotFound, RedisFailure, RedisUnanswered, StoreUnavailable

if TYPE_CHECKING:
    from gateway.redis.lane import RedisLane


class AdminCache:
    """The operations on kept answers. Without a lane all of them raise StoreUnavailable."""

    def __init__(self, registry: RegistryWatch, lane: RedisLane | None, audit: Audit) -> None:
        self._registry = registry
        self._lane = lane
        self._audit = audit

    @functools.cached_property
    def _scripts(self) -> CacheScripts:
        return load_scripts()

    async def purge(self, tenant: str, scenario: str | None) -> None:
        """Forget what is kept. Raises NotFound for a name that does not serve, StoreUnavailable."""
        snapshot = self._registry.snapshot
        if tenant not in snapshot.tenants:
            raise no_tenant(tenant)
        if scenario is not None and scenario not in snapshot.scenarios:
            raise NotFound(f"There is no scenario {scenario[:253]}.", code="scenario_not_found")
        if self._lane is None:
            raise StoreUnavailable("Answers are kept in Redis, and none is configured: LLM_GATEWAY_REDIS_URL.")
        facts = {"tenant": tenant, "scenario": scenario or ""}
        try:
            await purge(self._lane, self._scripts, tenant, scenario)
        except RedisFailure as error:
            if isinstance(error, RedisUnanswered):
                self._audit("change.unanswered", facts)
            raise unavailable(error) from error
        self._audit("cache.purge", facts)
