"""The places that running calls hold under concurrency limits, renewed together while the calls live.

Invariant: a call is in here from its admission to its end, whatever Redis does meanwhile; what was let in without the
shared levels takes its place in them with the first renewal.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from gateway.limits.wire import BoundLimit, Held

RENEWALS: Final = 3
"""How often a slot is renewed within its lifetime (``ScriptOptions.slot_ms``): it outlives two that fail."""

BATCH_MAX: Final = 500
"""Calls of one tenant renewed by one script."""


class Slots:
    """The running calls of this process that hold places."""

    def __init__(self) -> None:
        # By tenant, then by the identity of the limits: a group per kind of calls, so that counting sees few things.
        self._groups: dict[str, dict[int, tuple[tuple[BoundLimit, ...], dict[str, None]]]] = {}

    def hold(self, tenant: str, lease_id: str, limits: tuple[BoundLimit, ...]) -> None:
        """A call begins; ``limits`` are its concurrency limits, at least one."""
        groups = self._groups.get(tenant)
        if groups is None:
            groups = self._groups[tenant] = {}
        group = groups.get(id(limits))
        if group is None:
            groups[id(limits)] = (limits, {lease_id: None})
        else:
            group[1][lease_id] = None

    def release(self, tenant: str, lease_id: str, limits: tuple[BoundLimit, ...]) -> None:
        """It has ended; ``limits`` are those that it was held with. Later calls of this do nothing."""
        groups = self._groups.get(tenant)
        group = groups.get(id(limits)) if groups is not None else None
        if groups is None or group is None:
            return
        leases = group[1]
        leases.pop(lease_id, None)
        if not leases:
            del groups[id(limits)]
            if not groups:
                del self._groups[tenant]

    def count(self, key: tuple[str, str]) -> int:
        """How many calls of this process hold a place; ``key`` is tenant and id of the limit."""
        tenant, limit_id = key
        groups = self._groups.get(tenant, {}).values()
        return sum(len(leases) for limits, leases in groups for each in limits if each.id == limit_id)

    def batches(self) -> Iterator[tuple[str, list[Held]]]:
        """Everything that is held now, tenant by tenant in bounded parts."""
        for tenant in list(self._groups):
            for part in self.held(tenant):
                yield tenant, part

    def held(self, tenant: str) -> Iterator[list[Held]]:
        """What one tenant holds now, in bounded parts."""
        groups = list(self._groups.get(tenant, {}).values())
        calls = iter([Held(lease_id=lease_id, limits=limits) for limits, leases in groups for lease_id in leases])
        while part := list(islice(calls, BATCH_MAX)):
            yield part
