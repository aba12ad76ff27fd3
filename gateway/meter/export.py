"""The events of settled calls, handed out of Redis at least once each, and how far behind that is.

Invariants:
- An event is acknowledged only after the sink has taken it. What was handed out and not acknowledged comes again: to
  the same consumer when it starts anew, to another one after ``claim_after_s``. Its ``id`` tells a repetition.
- Memory is bounded by one batch, whatever waits.
- An event that was trimmed before it was acknowledged is counted as lost, once for each group that lost it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Final, Protocol

from gateway.clock import wall
from gateway.errors import RedisFailure, RedisRefused
from gateway.meter.ledger import LaneLike
from gateway.model import Frozen
from gateway.redis import names
from gateway.redis.ledger_format import UsageEvent, decode_event
from gateway.redis.script import Script

GROUP: Final = "export"
CONSUMER: Final = "exporter"
_TENANTS_AT_ONCE: Final = 100
_LEAD_PERIODS: Final = 3


class Sink(Protocol):
    """Where events go."""

    async def take(self, events: Sequence[UsageEvent]) -> None:
        """Take a batch, in the order of one tenant's stream; return when it is safe."""

    def lost(self, tenant: str, events: int) -> None:
        """So many events of ``tenant`` cannot be had any more."""


class ExportOptions(Frozen, frozen=True):
    """``batch`` is how many events are handed out at a time (1 to 5000)."""

    group: str = GROUP
    consumer: str = CONSUMER
    batch: int = 500
    claim_after_s: float = 60.0


class Exporter:
    """One consumer of a group, over any number of tenants; ends where ``stopping`` is set, between two batches."""

    def __init__(
        self, lane: LaneLike, sink: Sink, options: ExportOptions, stopping: asyncio.Event | None = None
    ) -> None:
        self._lane = lane
        self._sink = sink
        self._options = options
        self._stopping = stopping or asyncio.Event()
        self._script = _script("export")
        self._recovered: set[str] = set()  # tenants of whom nothing is left from before

    async def drain(self, tenants: Sequence[str]) -> None:
        """Export what there is. Raises RedisFailure, and what the sink raises; another call goes on from there."""
        while await self.step(tenants):
            if self._stopping.is_set():
                return

    async def step(self, tenants: Sequence[str]) -> bool:
        """Export at most a batch of each tenant; whether there may be more. Raises as ``drain`` does."""
        more = False
        for tenant in tenants:
            if self._stopping.is_set():
                break
            try:
                more |= await self._step_of(tenant)
            except BaseException:  # also where cancelled: what was handed out has to be asked for again
                self._recovered.discard(tenant)
                raise
        return more

    async def _step_of(self, tenant: str) -> bool:
        again = tenant not in self._recovered
        lost, entries = await self._take(tenant, again=again)
        events = list(_decoded(tenant, entries))
        if lost or len(events) < len(entries):
            self._sink.lost(tenant, lost + len(entries) - len(events))
        if events:
            await self._sink.take(events)
        if entries:
            await self._lane.send("XACK", names.events(tenant), self._options.group, *(place for place, _ in entries))
        if again and not entries and not lost:
            self._recovered.add(tenant)
        return again or len(entries) >= self._options.batch

    async def _take(self, tenant: str, *, again: bool) -> tuple[int, list[tuple[bytes, list[bytes]]]]:
        options = self._options
        arguments = (options.group, options.consumer, options.batch, int(again), round(options.claim_after_s * 1000))
        lost, _, entries = await self._lane.run(self._script, (names.events(tenant), names.export(tenant)), arguments)
        return lost, entries

    async def follow(
        self, tenants: Callable[[], Awaitable[Sequence[str]]], trouble: Callable[[str], None], interval_s: float
    ) -> None:
        """Export until stopped, looking for more every ``interval_s`` seconds; waits out a Redis that fails.

        ``trouble`` is called with a text when Redis begins to fail, and with "" when it answers again.
        """
        fails = False
        while not self._stopping.is_set():
            try:
                more = await self.step(await tenants())
            except RedisFailure as failure:
                more = False
                if not fails:
                    trouble(failure.text)
                fails = True
            else:
                if fails:
                    trouble("")
                fails = False
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), interval_s)


async def forget_group(lane: LaneLike, tenants: Sequence[str], group: str) -> int:
    """Keep and count nothing for a group of readers any more; how many tenants knew it. Raises RedisFailure."""
    known = 0
    for tenant in tenants:
        fields = (f"{group}|{what}" for what in ("position", "lost", "told"))
        await lane.send("HDEL", names.export(tenant), *fields)
        with contextlib.suppress(RedisRefused):  # a tenant without any event
            known += await lane.send("XGROUP", "DESTROY", names.events(tenant), group)
    return known


class ExportObserver(Protocol):
    """Who is told how far the export is."""

    def usage_export_lag(self, events: int) -> None:
        """So many events of all tenants have yet to be exported."""

    def usage_lost(self, events: int) -> None:
        """So many more events were trimmed before they were exported."""


class UsageWatch:
    """Tells how far the export is behind: one replica for all of them, every ``period_s`` seconds (> 0).

    It also writes down which tenants there are, for exporters, which know no registry; a tenant is forgotten
    ``retention_s`` seconds after it was last in one.
    """

    def __init__(
        self,
        lane: LaneLike,
        tenants: Callable[[], Iterable[str]],
        observer: ExportObserver,
        *,
        period_s: float,
        retention_s: float,
    ) -> None:
        self._lane = lane
        self._tenants = tenants
        self._observer = observer
        self._period_s = period_s
        self._retention_s = retention_s
        self._me = secrets.token_hex(8)
        self._lead, self._lag = _script("lead"), _script("lag")

    async def run(self) -> None:
        """Look until cancelled. While Redis fails the last number stands; that it fails is said elsewhere."""
        while True:
            with contextlib.suppress(RedisFailure):
                await self.look()
            await asyncio.sleep(self._period_s)

    async def look(self) -> None:
        """Look once. Raises RedisFailure."""
        hold_ms = round(self._period_s * _LEAD_PERIODS * 1000)
        if not await self._lane.run(self._lead, (names.usage_watch(),), (self._me, hold_ms)):
            self._observer.usage_export_lag(0)  # the one that looks says it
            return
        self._observer.usage_export_lag(await self._lag_of(await self._note_tenants()))

    async def _note_tenants(self) -> list[str]:
        now = round(wall())
        key = names.tenants()
        for some in _parts(sorted(self._tenants())):
            await self._lane.send("ZADD", key, *(part for name in some for part in (now, name)))
        await self._lane.send("ZREMRANGEBYSCORE", key, "-inf", round(now - self._retention_s))
        known: list[bytes] = await self._lane.send("ZRANGE", key, 0, -1)
        return [name.decode() for name in known]

    async def _lag_of(self, tenants: list[str]) -> int:
        lag = 0
        for some in _parts(tenants):
            keys = ((names.events(tenant), names.export(tenant)) for tenant in some)
            asked = [self._lane.run(self._lag, pair, ()) for pair in keys]
            for behind, lost in await asyncio.gather(*asked):
                lag += behind
                if lost:
                    self._observer.usage_lost(lost)
        return lag


def _decoded(tenant: str, entries: Iterable[tuple[bytes, list[bytes]]]) -> Iterator[UsageEvent]:
    for place, fields in entries:
        with contextlib.suppress(ValueError):  # nothing of ours wrote it, and it would come again for ever
            yield decode_event(tenant, place, fields)


def _parts(tenants: list[str]) -> Iterator[list[str]]:
    return (tenants[start : start + _TENANTS_AT_ONCE] for start in range(0, len(tenants), _TENANTS_AT_ONCE))


def _script(name: str) -> Script:
    return Script(name, files("gateway.meter").joinpath(f"lua/{name}.lua").read_text(encoding="utf-8"))
