"""What goes to the limit scripts and what comes back, as typed values; ``codec`` turns them into bytes and back.

Invariants:
- Everything is an integer. Counts and nano-USD are kept at or below COUNT_MAX, where a double of Lua is still exact;
  what is larger is counted as COUNT_MAX.
- Lists of limits keep their order from the call to the reply, so that a place in one list means the same in all.

It holds values only: nothing here is sent, nothing knows the clock.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gateway.model import Frozen, Limit, Price, Usage
from gateway.redis import names
from gateway.redis.ledger_format import day_name
from gateway.redis.script import bulk

COUNT_MAX: Final = 2**53 - 1
"""The largest integer that a double holds exactly together with all below it; in nano-USD about 9 million USD."""

GENERATIONS: Final = 1024
"""A window's number is ``period number x GENERATIONS + resets of the limit``."""

SPEC_VALUES: Final = 7
"""What the scripts are told of a limit: field, kind, unit, amount, capacity, period in ms, 1 where it is a shadow."""

PERIODS_MS: Final = {"second": 1_000, "minute": 60_000, "hour": 3_600_000}
"""The periods of rates."""

_DAY_S: Final = 86_400
_KIND_RATE, _KIND_DAY, _KIND_MONTH, _KIND_CONCURRENCY = 1, 2, 3, 4
_UNITS: Final = {"requests": 1, "tokens": 2, "inputTokens": 3, "outputTokens": 4, "cost": 5, "concurrency": 6}


class ScriptOptions(Frozen, frozen=True):
    """Lifetimes and bounds of what the scripts keep; each > 0 unless it says otherwise."""

    open_ms: int = 3_600_000  # the record of a running call: longer than the longest call and the settlement queue
    ended_ms: int = 900_000  # the record of an ended one: longer than a late admit or a repeated settlement can come
    slot_ms: int = 30_000  # a concurrency slot that nobody renews
    first_output_tokens: int = 256  # expected output of a choice where nothing has been learned
    retention_s: int = 35 * 86_400  # the usage of a day, and the stream of events after the last of them
    events_max: int = 100_000  # events of a tenant; 0: none are written


class BoundLimit(Frozen, frozen=True):
    """A limit with its place in the tenant: ``id`` is its owner and name, unique within the tenant."""

    id: str
    limit: Limit
    spec: bytes = b""  # made here: the ``SPEC_VALUES`` values that the scripts need of it, packed one after the other
    capacity: int = 0  # made here: what a fresh limit admits at once, the burst of a rate, else the amount

    def __post_init__(self) -> None:
        limit = self.limit
        capacity = limit.burst if limit.burst is not None and limit.per in PERIODS_MS else limit.amount
        packed = msgspec.msgpack.encode(_spec(self.id, limit))[1:]  # the header of so few values is one byte
        msgspec.structs.force_setattr(self, "spec", packed)
        msgspec.structs.force_setattr(self, "capacity", capacity)


class LimitSet:
    """The limits of one kind of call, at most one entry per limit, and what is the same on the wire for each call."""

    __slots__ = (
        "_day",
        "_record_bytes",
        "_record_prefix",
        "_usage",
        "capacities",
        "events",
        "fixed_keys",
        "levels",
        "limits",
        "needs_price",
        "refills",
        "slot_keys",
        "slots",
        "specs",
        "specs_values",
        "tenant",
    )

    def __init__(self, tenant: str, limits: tuple[BoundLimit, ...]) -> None:
        self.tenant = tenant
        self.limits = limits
        self.levels = names.levels(tenant)
        self._record_prefix = names.lease(tenant, "").decode()
        self._record_bytes = len(self._record_prefix)
        self.slots = tuple(names.slots(tenant, each.id) for each in limits if each.limit.unit == "concurrency")
        self.slot_keys = b"".join([bulk(each) for each in self.slots])  # as parts of a command
        self.fixed_keys = bulk(self.levels) + self.slot_keys
        # What every script is told first: the number of limits, and of each its values.
        self.specs = msgspec.msgpack.encode(len(limits)) + b"".join([each.spec for each in limits])
        self.specs_values = 1 + SPEC_VALUES * len(limits)
        self.needs_price = any(each.limit.unit == "cost" for each in limits)
        self.capacities = tuple(each.capacity for each in limits)
        # Of a rate the tokens per period and its ms; None for what is not refilled.
        self.refills = tuple([_refill(each.limit) for each in limits])
        self.events = names.events(tenant)
        self._day = -1  # since the epoch, of ``_usage``
        self._usage = b""

    def record(self, lease_id: str) -> bytes:
        """The key of a lease's record."""
        return f"{self._record_prefix}{lease_id}".encode()

    def records(self, lease_ids: Iterable[str]) -> bytes:
        """The same of many, as parts of a command."""
        prefix, size = self._record_prefix, self._record_bytes
        return "".join([f"${size + len(each)}\r\n{prefix}{each}\r\n" for each in lease_ids]).encode()

    def usage(self, at: float) -> bytes:
        """The key of the day's usage at a time (Unix seconds)."""
        day = int(at // _DAY_S)
        if day != self._day:
            moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
            self._usage = names.usage(self.tenant, day_name(moment.date()))
            self._day = day
        return self._usage


class AdmitCall(Frozen, frozen=True):
    """One call that asks for admission; ``kind`` holds the limits that apply to it.

    ``output_cap`` is the request's limit of one choice (None: it has none), ``worst_output`` what one choice may at
    most bring, ``price`` that of the dearest attempt. ``backend`` names whose input ratio applies. ``text_bytes``,
    ``input_upper`` and ``choices`` are those of as many ``answers`` together as the call may take.
    """

    lease_id: str
    kind: LimitSet
    scenario: str
    backend: str
    text_bytes: int
    input_upper: int
    output_cap: int | None
    worst_output: int
    price: Price | None = None
    choices: int = 1
    answers: int = 1

    @property
    def tenant(self) -> str:
        """Whose call it is."""
        return self.kind.tenant

    @property
    def limits(self) -> tuple[BoundLimit, ...]:
        """Those that apply."""
        return self.kind.limits


def worst_of(call: AdmitCall) -> int:
    """The most output tokens of one choice."""
    return call.worst_output if call.output_cap is None else min(call.output_cap, call.worst_output)


class Level(msgspec.Struct, frozen=True):
    """A limit's level. ``used`` and ``window`` are what a restore needs; the rest is for people and headers.

    ``limit`` is the burst of a rate, else the amount; ``remaining`` >= 0; ``reset_ms`` is the time until the bucket is
    full or the window turns, 0 for concurrency.
    """

    limit: int
    remaining: int
    reset_ms: int
    used: int
    window: int


class AdmitRun(msgspec.Struct, array_like=True, frozen=True):
    """What one run of ``admit.lua`` answers, as it lists it.

    ``epoch`` is that of the tenant's levels, as in all replies; empty where the server keeps none. ``expired`` counts
    slots that nobody renewed. ``answers`` are those of the calls, without a break between them: ``ANSWER_VALUES`` each,
    and then what is used of each limit.
    """

    epoch: str
    now_ms: int
    expired: int
    windows: tuple[int, ...]
    untils: tuple[int, ...]
    answers: list[Any]


ANSWER_VALUES: Final = 6


def refilled_ms(used: int, until: int, refill: tuple[int, int]) -> int:
    """When a bucket is full, in ms; ``until`` is as ``admit.lua`` says, ``refill`` the tokens per period and its ms."""
    return -((until - used * refill[1]) // refill[0]) if used > 0 else 0


class AdmitReply(msgspec.Struct):
    """The answer to an AdmitCall; ``kind`` is that of the call, ``shared`` what it has in common with others.

    ``refused_place`` is 0 where the call is admitted, else that of the limit that will refuse longest, for
    ``retry_after_ms``, counted from 1; -1 where the lease was voided or used before.
    ``output_bound`` is the most tokens of one choice and must be sent upstream; below 0: there is none.
    ``shadowed_places`` are those of shadow limits that would have refused. ``input_estimate`` and ``output_estimate``
    are the tokens expected of the whole call. ``used`` is what is in use of each limit now, in their order.
    """

    kind: LimitSet
    shared: AdmitRun
    refused_place: int
    retry_after_ms: int
    output_bound: int
    input_estimate: int
    output_estimate: int
    shadowed_places: tuple[int, ...]
    used: Sequence[int]

    @property
    def admitted(self) -> bool:
        """Whether the call may run."""
        return self.refused_place == 0

    @property
    def refused(self) -> BoundLimit | None:
        """The limit that will refuse longest; None without ``admitted``: the lease was voided or used before."""
        return self.kind.limits[self.refused_place - 1] if self.refused_place > 0 else None

    @property
    def output_limit(self) -> int | None:
        """The most tokens of one choice, where a budget bounds them."""
        return self.output_bound if self.output_bound >= 0 else None

    @property
    def shadowed(self) -> tuple[str, ...]:
        """The ids of shadow limits that would have refused."""
        return tuple([self.kind.limits[place - 1].id for place in self.shadowed_places])

    @property
    def remaining(self) -> tuple[int, ...]:
        """What is left of each limit; below zero where there is debt."""
        return tuple([capacity - used for capacity, used in zip(self.kind.capacities, self.used, strict=True)])

    def reset_ms(self, place: int) -> int:
        """When the bucket of a limit is full or its window turns, in ms; 0 for concurrency. Its first place is 0."""
        refill, until = self.kind.refills[place], self.shared.untils[place]
        return until if refill is None else refilled_ms(self.used[place], until, refill)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, made anew each time: few calls ever look at them."""
        resets = [self.reset_ms(place) for place in range(len(self.used))]
        return levels_of(self.kind.capacities, self.remaining, resets, self.used, self.shared.windows)


def levels_of(
    capacities: Sequence[int],
    remaining: Sequence[int],
    reset_ms: Sequence[int],
    used: Sequence[int],
    windows: Sequence[int],
) -> tuple[Level, ...]:
    """The levels whose parts these are."""
    parts = zip(capacities, remaining, reset_ms, used, windows, strict=True)
    return tuple([Level(limit, max(left, 0), reset, spent, window) for limit, left, reset, spent, window in parts])


class SettleCall(Frozen, frozen=True):
    """The end of a call. ``kind`` is that of its admission.

    What was reserved and from which windows is in the server's record of the lease. Where that is unknown (never
    admitted there, voided, or lost with its epoch), the use is charged in full to the windows of ``admitted_ms``: the
    ``now_ms`` of the admission, or Unix milliseconds where the server was not asked.
    ``usage`` None: the request counts and nothing else. With ``keep`` the reservation stays charged as it is, and
    ``usage`` says what the ledger shall have. ``cached``: the answer was kept, or came of another's call. ``ended_at``
    is Unix seconds and decides the day in the ledger.
    ``text_bytes`` and ``choices`` are those of the answers that were had.
    """

    lease_id: str
    admitted_ms: int
    kind: LimitSet
    usage: Usage | None
    cost_nano: int
    key: str
    scenario: str
    backend: str
    status: int
    ended_at: float
    text_bytes: int = 0
    choices: int = 1
    keep: bool = False
    cached: bool = False
    variant: str = "base"

    @property
    def tenant(self) -> str:
        """Whose call it was."""
        return self.kind.tenant


SettleOutcome = Literal["settled", "charged", "repeated"]
VoidOutcome = Literal["voided", "blocked", "ended"]


class SettleReply(Frozen, frozen=True):
    """What became of each call.

    ``settled``: the reservation was corrected; ``charged``: it was unknown and the use was charged; ``repeated``.
    """

    outcomes: tuple[SettleOutcome, ...]
    epoch: str


class RenewReply(Frozen, frozen=True):
    """``ended`` are the ids whose lease had ended already; ``expired`` counts slots that nobody had renewed in time."""

    epoch: str
    now_ms: int
    ended: tuple[str, ...]
    expired: int


class LevelsReply(Frozen, frozen=True):
    """Levels in the order asked for, as of ``now_ms`` of the server's clock."""

    epoch: str
    now_ms: int
    levels: tuple[Level, ...]


class Invocation(NamedTuple):
    """The keys and arguments of one run of a script."""

    keys: tuple[bytes, ...]
    args: tuple[bytes, ...]


class Held(Frozen, frozen=True):
    """A running call and the limits that it holds a slot of (those of other units are ignored)."""

    lease_id: str
    limits: tuple[BoundLimit, ...]


def count(value: int) -> int:
    """``value`` as the scripts can count it."""
    return 0 if value < 0 else COUNT_MAX if value > COUNT_MAX else value


def _kind(limit: Limit) -> int:
    if limit.per is None:
        return _KIND_CONCURRENCY
    return {"day": _KIND_DAY, "month": _KIND_MONTH}.get(limit.per, _KIND_RATE)


def _refill(limit: Limit) -> tuple[int, int] | None:
    period_ms = PERIODS_MS.get(limit.per or "")
    return None if period_ms is None else (limit.amount, period_ms)


def _spec(limit_id: str, limit: Limit) -> tuple[str | int, ...]:
    """What the scripts read of a limit.

    The field of its state carries unit and period: a limit that comes to count something else begins anew, one whose
    amount changes goes on from what was used.
    """
    field = f"l|{limit_id}|{limit.unit}|{limit.per or ''}"
    capacity = limit.burst if limit.burst is not None else limit.amount
    period_ms = PERIODS_MS.get(limit.per or "", 0)
    shadow = int(limit.mode == "shadow")
    return (field, _kind(limit), _UNITS[limit.unit], count(limit.amount), count(capacity), period_ms, shadow)
