"""States that alerts go by and that no request moves, beside the health of backends, which requests do."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from gateway.telemetry import families
from gateway.telemetry.health import BackendsHealth
from gateway.telemetry.series import Numbers, Words

if TYPE_CHECKING:
    from gateway.telemetry.families import Spec
    from gateway.telemetry.series import Cell

MAX_ISSUERS: Final = 100
"""Token issuers that have a series of their own; the rest are counted under ``other``."""


class States:
    """The states of one process; part of its ``Metrics``, whose ``numbers`` it fills."""

    def __init__(self, numbers: Mapping[Spec, Numbers], max_tenants: int) -> None:
        self.backends = BackendsHealth(numbers[families.BACKEND_HEALTHY])
        self._ends = numbers[families.KEY_EXPIRY]
        self._fetches = numbers[families.JWKS_FETCHES]
        self._evicting = numbers[families.REDIS_EVICTING].child()
        self._tenants = Words(max_tenants)  # of its own: a key that ends takes no place from a tenant that calls
        self._issuers = Words(MAX_ISSUERS)

    def keys_expire(self, ends: Mapping[str, float]) -> None:
        """When the first key of each tenant ends, in Unix seconds; a tenant that is not named has none that does."""
        first: dict[Cell, int] = dict.fromkeys(self._ends.children.values(), 0)
        for tenant, end in sorted(ends.items(), key=itemgetter(1), reverse=True):  # of those below `other` the first
            first[self._ends.child(self._tenants.within(tenant))] = int(end)
        for cell, end in first.items():
            cell.value = end

    def jwks_fetched(self, issuer: str, ok: bool) -> None:
        """The keys of a token issuer were asked for, with or without success."""
        issuer = self._issuers.within(issuer)
        good, bad = self._fetches.child(issuer, "ok"), self._fetches.child(issuer, "failed")  # both, from the first on
        (good if ok else bad).value += 1

    def redis_evicting(self, change: int) -> None:
        """So many servers more, or fewer, may evict keys."""
        self._evicting.value += change
