"""The levels as they were last seen: where local limits start from, and what is restored after a loss of data.

Invariants: another epoch than the one known of a tenant means that its levels were lost, and then what had been seen
before is put aside for a restore before anything newer takes its place; so too for every tenant where the server is one
that may have lost writes and kept the epoch. Of two levels of a limit that wait for a restore the higher one is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from gateway.limits.local import Seen
from gateway.limits.wire import PERIODS_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.limits.binding import Bound
    from gateway.limits.wire import AdmitReply, BoundLimit, Level

LEVELS_MAX: Final = 50_000
"""Limits whose level is remembered; beyond it the one remembered longest is forgotten."""

FRESH_MAX: Final = 10_000
"""Kinds of calls whose last reply waits to be looked at."""

TENANTS_MAX: Final = 20_000
"""Tenants whose epoch is remembered."""


class SeenLevel(msgspec.Struct, frozen=True):
    """One level: the server's time of it in milliseconds, and ours in Unix seconds."""

    bound: BoundLimit
    level: Level
    server_ms: int
    at_s: float

    @property
    def rank(self) -> tuple[int, int]:
        """The higher of two levels of one limit has the higher rank; a bucket's refill since is left out of account."""
        limit, level = self.bound.limit, self.level
        period_ms = PERIODS_MS.get(limit.per or "", 0)
        return level.window, level.used * period_ms + limit.amount * self.server_ms if period_ms else level.used


class Restore(NamedTuple):
    """Levels of one tenant that were seen at the same time."""

    tenant: str
    limits: tuple[BoundLimit, ...]
    levels: tuple[Level, ...]
    seen_ms: int


class SeenLevels:
    """Remembers levels and epochs of this process."""

    def __init__(self) -> None:
        self._levels: dict[tuple[str, str], SeenLevel] = {}
        self._fresh: dict[Bound, tuple[float, AdmitReply]] = {}  # newer than ``_levels``
        self.epochs: dict[str, str] = {}  # by tenant, as last heard of
        self.lost: dict[str, dict[str, SeenLevel]] = {}  # by tenant and limit: what waits to be restored

    def remember(self, bound: Bound, reply: AdmitReply, at_s: float) -> None:
        """Keep the levels of a reply, whose epoch ``epoch`` has been told of."""
        self._fresh[bound] = (at_s, reply)
        if len(self._fresh) > FRESH_MAX:
            self._merge()

    def show(self) -> None:
        """Have the metrics show what has been remembered since they last did."""
        for bound, (_, reply) in self._fresh.items():
            bound.show(reply)

    def _merge(self) -> None:
        """Take over what has been remembered since: only when somebody asks, since nobody asks while Redis is there."""
        self.show()
        known = self._levels
        for bound, (at_s, reply) in sorted(self._fresh.items(), key=lambda item: item[1][0]):
            for key, limit, level in zip(bound.seen_keys, bound.limits, reply.levels, strict=True):
                known[key] = SeenLevel(limit, level, reply.shared.now_ms, at_s)
        self._fresh.clear()
        while len(known) > LEVELS_MAX:
            del known[next(iter(known))]

    def seen(self, key: tuple[str, str]) -> Seen | None:
        """What was left of a limit when it was last seen."""
        if self._fresh:
            self._merge()
        found = self._levels.get(key)
        return None if found is None else Seen(found.level.remaining, found.at_s)

    def epoch(self, tenant: str, epoch: str) -> bool:
        """A server answered with this epoch (empty: it has no levels); True where the tenant's levels were lost."""
        epochs = self.epochs
        before = epochs.get(tenant, "")
        if before == epoch:
            return False
        self._merge()
        if not epoch:
            del epochs[tenant]
        else:
            epochs[tenant] = epoch
            if len(epochs) > TENANTS_MAX:
                del epochs[next(iter(epochs))]
        if not before:
            return False
        self._put_aside(tenant, [found for (owner, _), found in self._levels.items() if owner == tenant])
        return True

    def restored(self, tenant: str, epoch: str) -> None:
        """The levels of a tenant are those of this epoch now, and nothing of them waits."""
        if epoch:
            self.epochs[tenant] = epoch
        else:
            self.epochs.pop(tenant, None)

    def doubt(self) -> None:
        """Whatever the server knows of any tenant may be older than what was seen."""
        self._merge()
        by_tenant: dict[str, list[SeenLevel]] = {}
        for (tenant, _), found in self._levels.items():
            by_tenant.setdefault(tenant, []).append(found)
        for tenant, levels in by_tenant.items():
            self._put_aside(tenant, levels)

    def to_restore(self, tenant: str) -> Iterator[Restore]:
        """All that waits for a restore of one tenant; what is given here is forgotten, ``again`` puts it back."""
        by_time: dict[int, list[SeenLevel]] = {}
        for each in self.lost.pop(tenant, {}).values():
            by_time.setdefault(each.server_ms, []).append(each)
        for seen_ms, group in by_time.items():
            limits = tuple(each.bound for each in group)
            yield Restore(tenant, limits, tuple(each.level for each in group), seen_ms)

    def again(self, restore: Restore) -> None:
        """A restore was not answered."""
        pairs = zip(restore.limits, restore.levels, strict=True)
        self._put_aside(restore.tenant, [SeenLevel(bound, level, restore.seen_ms, 0.0) for bound, level in pairs])

    def _put_aside(self, tenant: str, levels: Iterable[SeenLevel]) -> None:
        for each in levels:
            aside = self.lost.setdefault(tenant, {})
            known = aside.get(each.bound.id)
            if known is None or known.rank < each.rank:
                aside[each.bound.id] = each
