"""What Valkey knows of a tenant's calls, compared with what their clients and the backends know.

``check`` may be called again and again while gateways still settle: it fails until the books are closed, and must hold
from then on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gateway.limits.codec import decode_levels, encode_read
from gateway.limits.scripts import load_scripts
from gateway.limits.wire import PERIODS_MS, BoundLimit
from gateway.model import Limit
from gateway.redis.ledger_format import UsageCounts, UsageEvent, UsageOf, decode_day, decode_event
from tests.support.documents import Document
from tests.support.limit_arena import DEAR_NANO, MAIN_NANO, Arena
from tests.support.limit_calls import FIRST_PROMPT, LEFT, UNREACHED, Call, Fate, Made

DAY_S: Final = 86_400
NANO: Final = 10**9
Kind = tuple[str, int]
"""What an event says: ``exact`` and the number of its call, or ``estimated`` or ``zero`` and a status."""


@dataclass(frozen=True)
class Scope:
    """A limit, and which calls it binds."""

    bound: BoundLimit
    key: str | None

    @property
    def limit(self) -> Limit:
        """The limit itself."""
        return self.bound.limit

    @property
    def holds(self) -> bool:
        """Whether its bound holds whatever befalls Redis."""
        return self.limit.mode == "enforce" and self.limit.on_redis_loss == "closed"

    def binds(self, key: str, scenario: str) -> bool:
        """Whether it binds a call."""
        return self.key in (None, key) and self.limit.scenario in (None, scenario)


def scope_of(document: Document, key: str | None) -> Scope:
    """A limit of the registry: of a key, or with None of the tenant."""
    is_cost = document["unit"] == "cost"
    limit = Limit(
        name=document["name"],
        unit=document["unit"],
        per=document.get("per"),
        amount=int(Decimal(document["amount"]) * NANO) if is_cost else document["amount"],
        burst=document.get("burst"),
        scenario=document.get("scenario"),
        mode=document.get("mode", "enforce"),
        on_redis_loss=document["onRedisLoss"],
    )
    owner = "t" if key is None else f"k:{key}"
    return Scope(BoundLimit(id=f"{owner}:{limit.name}", limit=limit), key)


@dataclass
class Books:
    """The books of one tenant. ``began_s`` is Unix seconds."""

    arena: Arena
    tenant: str
    scopes: Sequence[Scope]
    fates: list[Fate] = field(default_factory=list)
    began_s: float = field(default_factory=time.time)

    def check(self) -> bool:
        """Whether every lease ended once, everything is in the ledger, and every bound held. Raises AssertionError."""
        assert not self.arena.maker.twice, "a call was sent to its backend twice"
        events = self._events()
        open_ids = self._check_leases(events)
        self._check_ledger(events)
        self._check_events(events)
        for scope in self.scopes:
            if scope.limit.unit == "concurrency":
                self._check_places(scope, open_ids)
            elif scope.limit.per in PERIODS_MS:
                self._check_rate(scope)
            else:
                self._check_budget(scope, events, open_ids)
        return True

    def places_held(self) -> int:
        """How many places are taken that have not expired."""
        seconds, micros = self.arena.store.time()
        now_ms = seconds * 1000 + micros // 1000
        return sum(self.arena.store.zcount(key, f"({now_ms}", "+inf") for key in self._slot_keys())

    # -- leases and ledger

    def _events(self) -> list[UsageEvent]:
        found = self.arena.store.xrange(f"lgw:1:{{{self.tenant}}}:events")
        return [decode_event(self.tenant, at, [*_flat(fields.items())]) for at, fields in found]

    def _check_leases(self, events: Sequence[UsageEvent]) -> set[str]:
        """Every lease of a living process has ended, once; the ids of those that have not."""
        ids = Counter(event.id for event in events)
        assert not [each for each, count in ids.items() if count > 1], "a lease ended twice"
        records = self._records()
        assert {each for each, record in records.items() if record == b"s"} == set(ids), "an end without its event"
        open_ids = {each for each, record in records.items() if record not in (b"s", b"v")}
        assert not [each for each in open_ids if self.arena.is_living(each)], "a lease of a living process has no end"
        assert len(open_ids) <= sum(fate.killed for fate in self.fates), f"too many leases without an end: {open_ids}"
        return open_ids

    def _records(self) -> dict[str, bytes]:
        prefix = f"lgw:1:{{{self.tenant}}}:lease:"
        keys = list(self.arena.store.scan_iter(f"{prefix}*", count=1000))
        values = self.arena.store.mget(keys) if keys else []
        return {key.decode().removeprefix(prefix): value for key, value in zip(keys, values, strict=True)}

    def _check_ledger(self, events: Iterable[UsageEvent]) -> None:
        """The usage of the days is the sum of the events."""
        summed: dict[UsageOf, UsageCounts] = {}
        for event in events:
            of = UsageOf(key=event.key, scenario=event.scenario, backend=event.backend)
            summed[of] = summed.get(of, UsageCounts()) + UsageCounts(
                requests=1,
                input_tokens=event.input_tokens,
                output_tokens=event.output_tokens,
                cost_nano_usd=event.cost_nano_usd,
                estimated_requests=int(event.estimated),
            )
        kept: dict[UsageOf, UsageCounts] = {}
        for key in self.arena.store.keys(f"lgw:1:{{{self.tenant}}}:usage:*"):
            for of, counts in decode_day(self.arena.store.hgetall(key)).items():
                kept[of] = kept.get(of, UsageCounts()) + counts
        assert kept == summed, f"days {kept}, events {summed}"

    def _check_events(self, events: Iterable[UsageEvent]) -> None:
        """Each call that its client saw end has its event, and what its backend reported is what was charged."""
        by_number = {fate.call.number: fate for fate in self.fates}
        kinds: Counter[Kind] = Counter()
        for event in events:
            kinds[_kind(event)] += 1
            self._check_cost(event)
            if not event.estimated and event.input_tokens:
                self._check_reported(event, by_number[event.input_tokens - FIRST_PROMPT])
        certain = Counter(_end_of(fate) for fate in self.fates if fate.is_certain and fate.status not in (429, 503))
        assert not certain - kinds, f"calls without an event: {certain - kinds}, further events: {kinds - certain}"
        further = kinds - certain
        assert all(count == 1 for (kind, _), count in further.items() if kind == "exact"), f"charged twice: {further}"
        uncertain = [fate for fate in self.fates if not fate.is_certain and fate.status not in (429, 503, UNREACHED)]
        least = sum(self._made(fate.call) is not None and not fate.killed for fate in uncertain)
        assert least <= further.total() <= len(uncertain), f"{further} for {least} to {len(uncertain)} calls"
        odd = {each for each in further if each[0] != "exact" and each[1] != 499}
        assert not odd or any(fate.killed for fate in uncertain), f"ends of calls whose clients had left: {odd}"

    def _check_reported(self, event: UsageEvent, fate: Fate) -> None:
        call, made = fate.call, self._made(fate.call)
        backend = "dear" if call.scenario == "talk" and call.way != "fall back" else "main"
        said = (event.key, event.scenario, event.backend, event.output_tokens)
        assert made is not None, f"{event} of a call that no backend answered"
        assert said == (call.key, call.scenario, backend, made.output), f"{event}, {fate}, {made}"
        assert event.status == 200 or (fate.status == LEFT and event.status == 499), f"{event}, {fate}"

    def _check_cost(self, event: UsageEvent) -> None:
        price = {"main": MAIN_NANO, "dear": DEAR_NANO, "": (0, 0)}[event.backend]
        cost = event.input_tokens * price[0] + event.output_tokens * price[1]
        assert event.cost_nano_usd == cost, f"{event} costs {cost}"

    # -- bounds

    def _check_budget(self, scope: Scope, events: Iterable[UsageEvent], open_ids: set[str]) -> None:
        """The backends' own count never exceeds it, and its level is what the events add up to."""
        limit = scope.limit
        days = int(time.time() // DAY_S) - int(self.began_s // DAY_S) + 1
        fates = [fate for fate in self.fates if scope.binds(fate.call.key, fate.call.scenario)]
        made = sum(_amount(limit, fate.call, found) for fate in fates if (found := self._reported(fate)) is not None)
        assert not scope.holds or made <= limit.amount * days, f"{limit} was exceeded: {made}"
        if days > 1:
            return  # the level is of another window
        charged = sum(_charged(limit, event) for event in events if scope.binds(event.key, event.scenario))
        level = self._level(scope)
        assert not scope.holds or level <= limit.amount, f"{limit} was exceeded: {level}"
        assert level >= charged, f"{limit} forgot what was used: {level} of {charged}"
        keeps_reservations = open_ids or any(fate.call.way == "leave" for fate in fates)
        assert keeps_reservations or level == charged, f"{limit} was charged twice: {level} for {charged}"

    def _reported(self, fate: Fate) -> Made | None:
        """What a backend made of a call; None where it did not report it, or could not to a client that had left."""
        return None if fate.call.way in ("silent", "break", "leave stream") else self._made(fate.call)

    def _level(self, scope: Scope) -> int:
        invocation = encode_read(self.tenant, (scope.bound,))
        script = load_scripts().levels
        raw: Any = self.arena.store.eval(script.source, len(invocation.keys), *invocation.keys, *invocation.args)
        return decode_levels((scope.bound,), raw).levels[0].used

    def _check_rate(self, scope: Scope) -> None:
        """Where it counts requests: in any time no more were let in than its burst and what was refilled in that."""
        limit = scope.limit
        if limit.unit != "requests" or not scope.holds:
            return
        spans = [
            span for fate in self.fates if scope.binds(fate.call.key, fate.call.scenario) for span in self._span(fate)
        ]
        for since_s, _ in spans:
            for _, until_s in spans:
                admitted = sum(since_s <= begins_s and ends_s <= until_s for begins_s, ends_s in spans)
                refilled = limit.amount * (until_s - since_s) * 1000 / PERIODS_MS[limit.per or ""]
                within = f"{admitted} calls within {until_s - since_s} s"
                assert not admitted or admitted <= scope.bound.capacity + refilled, f"{limit} let in {within}"

    def _span(self, fate: Fate) -> list[tuple[float, float]]:
        """The time within which a call was admitted; nothing where it was not, or nobody knows."""
        made = self._made(fate.call)
        if made is not None:
            return [(fate.began_s, made.begins_s)]
        return [(fate.began_s, fate.ended_s)] if fate.status in (200, 400, 502) else []

    def _check_places(self, scope: Scope, open_ids: set[str]) -> None:
        """Never more calls at once than places, and no place is held but by a process that died."""
        held = self.arena.store.zrange(f"lgw:1:{{{self.tenant}}}:slots:{scope.bound.id}", 0, -1)
        assert {each.decode() for each in held} <= open_ids, f"{scope.limit}: a place of a call that has ended"
        if not scope.holds:
            return
        moments: list[tuple[float, int]] = []
        for fate in self.fates:
            made = self._made(fate.call)
            if made is not None and scope.binds(fate.call.key, fate.call.scenario):
                ends_s = min(made.ends_s, fate.ended_s)
                moments += [(made.begins_s, 1), (ends_s, -1)] if ends_s > made.begins_s else []
        running = most = 0
        for _, change in sorted(moments):
            running += change
            most = max(most, running)
        assert most <= scope.limit.amount, f"{scope.limit}: {most} calls at once"

    def _made(self, call: Call) -> Made | None:
        return self.arena.maker.made.get((self.tenant, call.number))

    def _slot_keys(self) -> list[str]:
        slots = [scope.bound.id for scope in self.scopes if scope.limit.unit == "concurrency"]
        return [f"lgw:1:{{{self.tenant}}}:slots:{each}" for each in slots]


def _kind(event: UsageEvent) -> Kind:
    if event.estimated:
        return ("estimated", event.status)
    return ("exact", event.input_tokens - FIRST_PROMPT) if event.input_tokens else ("zero", event.status)


def _end_of(fate: Fate) -> Kind:
    """The event of a call whose client saw its end. Raises AssertionError for an answer that no call should have."""
    way, status = fate.call.way, fate.status
    if status == 200 and way == "silent":
        return ("estimated", 200)
    if status == 200 and way == "break":
        return ("estimated", 502)
    if status == 200:
        return ("exact", fate.call.number)
    assert status == {"fail": 502, "refuse": 400, "fall back": 502}.get(way), f"{status}: {fate}"
    return ("zero", status)


def _charged(limit: Limit, event: UsageEvent) -> int:
    used = {"requests": 1, "inputTokens": event.input_tokens, "outputTokens": event.output_tokens}
    used |= {"tokens": event.input_tokens + event.output_tokens, "cost": event.cost_nano_usd}
    return used[limit.unit]


def _amount(limit: Limit, call: Call, made: Made) -> int:
    price = DEAR_NANO if call.scenario == "talk" and call.way != "fall back" else MAIN_NANO
    used = {"requests": 1, "inputTokens": call.prompt, "outputTokens": made.output}
    used |= {"tokens": call.prompt + made.output, "cost": call.prompt * price[0] + made.output * price[1]}
    return used[limit.unit]


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for pair in pairs:
        yield from pair
