"""Kept answers that were found a moment ago, held in the process: what is asked again and again costs no look in Redis,
and in the same writing no digest.

Bounded in time, which is how long a purge or a newer answer of another process may go unnoticed, and in bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from gateway.cache.store import Kept
from gateway.clock import monotonic

if TYPE_CHECKING:
    from gateway.cache.key import Way, Writing
    from gateway.model import CachePolicy


class _Held(msgspec.Struct, frozen=True):
    kept: Kept
    since: float  # monotonic seconds
    way: Way
    size: int


class LocalAnswers:
    """Answers by tenant and digest, the oldest first. ``hold_s`` 0: none."""

    def __init__(self, hold_s: float, bytes_max: int) -> None:
        self._hold_s = hold_s
        self._bytes_max = bytes_max
        self._held: OrderedDict[tuple[str, bytes], _Held] = OrderedDict()
        self._ways: dict[Writing, Way] = {}  # of the answers that are held, each as it was asked for when it was found
        self._bytes = 0

    def way(self, writing: Writing, policy: CachePolicy | None) -> Way | None:
        """The way to an answer that is held, where it was asked for in just these words; None where it is to be made.

        ``policy`` is the scenario's now.
        """
        way = self._ways.get(writing)
        return way if way is not None and way.policy is policy else None

    def find(self, way: Way) -> Kept | None:
        """The answer, with its age now; None where it is not held, or no longer may be."""
        held = self._held.get((way.tenant, way.digest))
        if held is None:
            return None
        passed_s = monotonic() - held.since
        age_s = held.kept.age_s + passed_s
        if passed_s > self._hold_s or age_s > way.policy.ttl_s:
            self.forget(way)
            return None
        return Kept(held.kept.body, age_s)

    def hold(self, way: Way, kept: Kept) -> None:
        """An answer that was just found."""
        size = len(kept.body) + sum(len(part) for part in way.writing if isinstance(part, bytes))
        if self._hold_s <= 0 or size > self._bytes_max:
            return
        self.forget(way)
        now = monotonic()
        self._held[way.tenant, way.digest] = _Held(kept, now, way, size)
        if way.writing:
            self._ways[way.writing] = way
        self._bytes += size
        while self._bytes > self._bytes_max or now - next(iter(self._held.values())).since > self._hold_s:
            self._drop(self._held.popitem(last=False)[1])

    def forget(self, way: Way) -> None:
        """There is a newer one."""
        held = self._held.pop((way.tenant, way.digest), None)
        if held is not None:
            self._drop(held)

    def _drop(self, held: _Held) -> None:
        self._bytes -= held.size
        if self._ways.get(held.way.writing) is held.way:
            del self._ways[held.way.writing]
