"""Levels of limits and usage by day over the admin API: read from Redis, and a level reset.

Invariant: only limits that serve now are shown or reset; a reset touches one limit and leaves an audit line.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from gateway.app.admin_schemas import LevelView, UsageRow, usd
from gateway.app.key_operations import Audit
from gateway.app.source import RegistryWatch
from gateway.errors import NotFound, RedisFailure, RedisUnanswered, StoreUnavailable
from gateway.limits.binding import key_limits, tenant_limits
from gateway.limits.codec import decode_levels, encode_read, encode_reset
from gateway.limits.scripts import load_scripts
from gateway.limits.wire import BoundLimit, Invocation, Level
from gateway.meter.ledger import Ledger, today
from gateway.model import Tenant
from gateway.redis.script import Script

if TYPE_CHECKING:
    from gateway.redis.lane import RedisLane

LIMITS_AT_ONCE: Final = 128
"""How many levels one script reads, so that it never keeps Redis busy for long."""


class AdminLimits:
    """The operations on levels and usage. Without a lane all of them raise StoreUnavailable."""

    def __init__(self, registry: RegistryWatch, lane: RedisLane | None, audit: Audit, *, rows_max: int) -> None:
        self._registry = registry
        self._own_lane = lane
        self._audit = audit
        self._rows_max = rows_max

    async def levels(self, tenant_name: str) -> list[LevelView]:
        """Every limit of a tenant and of its keys. Raises NotFound, StoreUnavailable."""
        limits = list(self._limits(self._tenant(tenant_name)))
        views: list[LevelView] = []
        for start in range(0, len(limits), LIMITS_AT_ONCE):
            part = tuple(limits[start : start + LIMITS_AT_ONCE])
            views += await self._run(encode_read(tenant_name, part), part)
        return views

    async def reset(self, tenant_name: str, limit_id: str) -> LevelView:
        """Forget what was used of one limit. Raises NotFound, StoreUnavailable."""
        limits = tuple(each for each in self._limits(self._tenant(tenant_name)) if each.id == limit_id)
        if not limits:
            raise NotFound(f"The tenant {tenant_name} has no limit {limit_id[:512]}.", code="limit_not_found")
        try:
            (view,) = await self._run(encode_reset(tenant_name, limits), limits)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, RedisUnanswered):
                self._audit("change.unanswered", {"tenant": tenant_name, "limit": limit_id})
            raise
        self._audit("limit.reset", {"tenant": tenant_name, "limit": limit_id})
        return view

    async def usage(self, tenant: str, first: datetime.date | None, last: datetime.date | None) -> list[UsageRow]:
        """What a tenant used by UTC day, today where nothing is said. Raises InvalidRequest, StoreUnavailable."""
        last = last or max(first or today(), today())
        try:
            days = await Ledger(self._lane, self._rows_max).days(tenant, first or last, last)
        except RedisFailure as error:
            raise unavailable(error) from error
        return [
            UsageRow(
                day=day.isoformat(),
                key=of.key,
                scenario=of.scenario,
                backend=of.backend,
                requests=counts.requests,
                input_tokens=counts.input_tokens,
                cached_input_tokens=counts.cached_input_tokens,
                output_tokens=counts.output_tokens,
                cost_usd=usd(counts.cost_nano_usd),
                estimated_requests=counts.estimated_requests,
                cached_requests=counts.cached_requests,
            )
            for day, usage in sorted(days.items())
            for of, counts in sorted(usage.items(), key=lambda item: (item[0].key, item[0].scenario, item[0].backend))
        ]

    @property
    def _lane(self) -> RedisLane:
        if self._own_lane is None:
            raise StoreUnavailable("Levels and usage are kept in Redis, and none is configured: LLM_GATEWAY_REDIS_URL.")
        return self._own_lane

    @functools.cached_property
    def _script(self) -> Script:
        return load_scripts().levels

    def _tenant(self, name: str) -> Tenant:
        tenant = self._registry.snapshot.tenants.get(name)
        if tenant is None:
            raise no_tenant(name)
        return tenant

    def _limits(self, tenant: Tenant) -> Iterator[BoundLimit]:
        yield from tenant_limits(tenant)
        principals = {entry.principal.key.name: entry.principal for entry in self._registry.snapshot.keys.values()}
        for _, principal in sorted(principals.items()):
            if principal.tenant.name == tenant.name:
                yield from key_limits(principal.key)

    async def _run(self, invocation: Invocation, limits: tuple[BoundLimit, ...]) -> list[LevelView]:
        try:
            raw: bytes = await self._lane.run(self._script, invocation.keys, invocation.args)
        except RedisFailure as error:
            raise unavailable(error) from error
        levels = decode_levels(limits, raw).levels
        return [_view(bound, level) for bound, level in zip(limits, levels, strict=True)]


def no_tenant(name: str) -> NotFound:
    """The answer for a tenant that does not serve."""
    return NotFound(f"There is no tenant {name[:253]}.", code="tenant_not_found")


def _view(bound: BoundLimit, level: Level) -> LevelView:
    limit = bound.limit
    owner, _, _ = bound.id.removesuffix(f":{limit.name}").partition(":")
    shown = usd if limit.unit == "cost" else int
    return LevelView(
        id=bound.id,
        key=bound.id.removesuffix(f":{limit.name}").removeprefix("k:") if owner == "k" else None,
        name=limit.name,
        unit=limit.unit,
        per=limit.per,
        scenario=limit.scenario,
        mode=limit.mode,
        limit=shown(level.limit),
        remaining=shown(level.remaining),
        used=shown(level.used),
        reset_s=level.reset_ms / 1000,
    )


def unavailable(error: RedisFailure) -> StoreUnavailable:
    """The answer where Redis has none."""
    text = f"Redis did not answer as it should ({type(error).__name__})."
    return StoreUnavailable(text, detail=str(error), retry_after_s=1.0)
