"""Metrics that no event moves: what is looked at every few seconds.

When keys end is read from the snapshot, in a thread, and only when the keys have changed or the first end has come.
Which backends nobody tried for long is asked of the metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from gateway.clock import monotonic, wall

if TYPE_CHECKING:
    from gateway.app.source import RegistryWatch
    from gateway.model import KeyEntry
    from gateway.telemetry import Metrics

PERIOD_S: Final = 5.0

ENDED_S: Final = 86_400.0
"""How long a key that has ended is still told of: whoever is called because of it must find it."""


class SlowMetrics:
    """Keeps them up to date while ``run`` runs."""

    def __init__(self, registry: RegistryWatch, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._keys: Mapping[bytes, KeyEntry] | None = None
        self._due_at = 0.0

    async def run(self) -> None:
        """Look every ``PERIOD_S``, until cancelled."""
        while True:
            self._metrics.states.backends.forget(monotonic())
            await self._look_at_keys()
            await asyncio.sleep(PERIOD_S)

    async def _look_at_keys(self) -> None:
        keys, now = self._registry.snapshot.keys, wall()
        if keys is self._keys and now < self._due_at:
            return
        ends = await asyncio.to_thread(first_ends, keys, now - ENDED_S)
        self._metrics.states.keys_expire(ends)
        self._keys = keys
        self._due_at = min(ends.values(), default=float("inf")) + ENDED_S


def first_ends(keys: Mapping[bytes, KeyEntry], since: float) -> dict[str, float]:
    """When the first key of each tenant ends for good, of those that end after ``since``; Unix seconds.

    A key ends with the last of its digests: while it rotates, the old one ending is no event. Disabled keys and tenants
    are left out, since nobody can use them.
    """
    last: dict[tuple[str, str], float] = {}
    for entry in list(keys.values()):
        tenant, key = entry.principal.tenant, entry.principal.key
        if not tenant.disabled and not key.disabled:
            end = float("inf") if entry.expires_at is None else entry.expires_at
            last[tenant.name, key.name] = max(end, last.get((tenant.name, key.name), 0.0))
    first: dict[str, float] = {}
    for (tenant_name, _), end in last.items():
        if since < end < float("inf"):
            first[tenant_name] = min(end, first.get(tenant_name, end))
    return first
