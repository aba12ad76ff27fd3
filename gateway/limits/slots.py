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
        self._calls: dict[str, dict[str, tuple[BoundLimit, ...]]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def hold(self, tenant: str, lease_id: str, limits: tuple[BoundLimit, ...]) -> None:
        """A call begins; ``limits`` are its concurrency limits, at least one."""
        self._calls.setdefault(tenant, {})[lease_id] = limits
        counts = self._counts
        for each in limits:
            key = (tenant, each.id)
            counts[key] = counts.get(key, 0) + 1

    def release(self, tenant: str, lease_id: str) -> None:
        """It has ended; later calls of this do nothing."""
        calls = self._calls.get(tenant)
        limits = calls.pop(lease_id, None) if calls is not None else None
        if limits is None:
            return
        if not calls:
            del self._calls[tenant]
        for each in limits:
            key = (tenant, each.id)
            if self._counts[key] == 1:
                del self._counts[key]
            else:
                self._counts[key] -= 1

    def count(self, key: tuple[str, str]) -> int:
        """How many calls of this process hold a place; ``key`` is tenant and id of the limit."""
        return self._counts.get(key, 0)

    def batches(self) -> Iterator[tuple[str, list[Held]]]:
        """Everything that is held now, tenant by tenant in bounded parts."""
        for tenant in list(self._calls):
            for part in self.held(tenant):
                yield tenant, part

    def held(self, tenant: str) -> Iterator[list[Held]]:
        """What one tenant holds now, in bounded parts."""
        calls = iter(list(self._calls.get(tenant, {}).items()))
        while part := list(islice(calls, BATCH_MAX)):
            yield [Held(lease_id=lease_id, limits=limits) for lease_id, limits in part]
