"""What goes to the limit scripts and what comes back, as typed values; ``codec`` turns them into bytes and back.

Invariants:
- Everything is an integer. Counts and nano-USD are kept at or below COUNT_MAX, where a double of Lua is still exact;
  what is larger is counted as COUNT_MAX.
- Lists of limits keep their order from the call to the reply, so that a place in one list means the same in all.

It holds values only: nothing here is sent, nothing knows the clock.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from gateway.model import Frozen, Limit, Price, Usage
from gateway.redis import names
from gateway.redis.ledger_format import day_name
from gateway.redis.script import bulk

COUNT_MAX: Final = 2**53 - 1
"""The largest integer that a double holds exactly together with all below it; in nano-USD about 9 million USD."""

GENERATIONS: Final = 1024
"""A window's number is ``period number x GENERATIONS + resets of the limit``."""

LEASE_CHARS: Final = 26
"""Length of a lease's id as this version makes them; any other is as good."""

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
    spec: msgspec.Raw = msgspec.Raw()  # made here: what the scripts need of it
    capacity: int = 0  # made here: what a fresh limit admits at once, the burst of a rate, else the amount

    def __post_init__(self) -> None:
        limit = self.limit
        capacity = limit.burst if limit.burst is not None and limit.per in PERIODS_MS else limit.amount
        msgspec.structs.force_setattr(self, "spec", msgspec.Raw(msgspec.msgpack.encode(_spec(self.id, limit))))
        msgspec.structs.force_setattr(self, "capacity", capacity)


class LimitSet:
    """The limits of one kind of call, at most one entry per limit, and what is the same on the wire for each call."""

    __slots__ = (
        "_day",
        "_record_prefix",
        "_usage",
        "admission",
        "admission_for",
        "admit_head",
        "admit_parts",
        "admit_tail",
        "capacities",
        "events",
        "levels",
        "limits",
        "needs_price",
        "slots",
        "specs",
        "tenant",
    )

    def __init__(self, tenant: str, limits: tuple[BoundLimit, ...]) -> None:
        self.tenant = tenant
        self.limits = limits
        self.levels = names.levels(tenant)
        self._record_prefix = names.lease(tenant, "").decode()
        self.slots = tuple(names.slots(tenant, each.id) for each in limits if each.limit.unit == "concurrency")
        # A call of ``admit.lua`` up to its lease, of the usual length, and from there to its argument.
        record_bytes = len(self._record_prefix) + LEASE_CHARS
        head = bulk(b"%d" % (2 + len(self.slots))) + bulk(self.levels)
        self.admit_head = head + b"$%d\r\n" % record_bytes + self._record_prefix.encode()
        self.admit_tail = b"\r\n" + b"".join([bulk(each) for each in self.slots])
        self.admit_parts = 4 + len(self.slots)
        self.specs = [each.spec for each in limits]
        self.needs_price = any(each.limit.unit == "cost" for each in limits)
        self.capacities = tuple(each.capacity for each in limits)
        self.events = names.events(tenant)
        self.admission = msgspec.Raw()
        self.admission_for: ScriptOptions | None = None
        self._day = -1  # since the epoch, of ``_usage``
        self._usage = b""

    def record(self, lease_id: str) -> bytes:
        """The key of a lease's record."""
        return f"{self._record_prefix}{lease_id}".encode()

    def prepare(self, options: ScriptOptions, scenario: str) -> msgspec.Raw:
        """Make ``admission``: what ``admit.lua`` is told of every call of this kind, which is of one scenario."""
        fixed = (self.specs, str(options.open_ms), options.slot_ms, scenario, options.first_output_tokens)
        self.admission_for = options
        self.admission = msgspec.Raw(msgspec.msgpack.encode(fixed))
        return self.admission

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


class AdmitReply(msgspec.Struct, array_like=True):
    """The answer to an AdmitCall, as ``admit.lua`` lists it; ``kind`` is that of the call.

    ``status`` is 1 where the call is admitted, 0 where it is refused, and 2 where the lease was voided or used before.
    ``refused_place`` counts from 1 and is that of the limit that will refuse longest, for ``retry_after_ms``; 0: none.
    ``output_bound`` is the most tokens of one choice and must be sent upstream; below 0: there is none.
    ``shadowed_places`` are those of shadow limits that would have refused. ``input_estimate`` and ``output_estimate``
    are the tokens expected of the whole call. ``expired`` counts slots that nobody renewed. ``epoch`` is that of the
    tenant's levels, as in all replies; empty where the server keeps none. ``windows`` to ``used`` are the parts of the
    levels, in the order of the limits; ``remaining`` may be below zero.
    """

    status: int
    epoch: str
    now_ms: int
    refused_place: int
    retry_after_ms: int
    output_bound: int
    input_estimate: int
    output_estimate: int
    expired: int
    shadowed_places: tuple[int, ...]
    windows: tuple[int, ...]
    remaining: tuple[int, ...]
    reset_ms: tuple[int, ...]
    used: tuple[int, ...]
    kind: LimitSet | None = None

    @property
    def admitted(self) -> bool:
        """Whether the call may run."""
        return self.status == 1

    @property
    def refused(self) -> BoundLimit | None:
        """The limit that will refuse longest; None without ``admitted``: the lease was voided or used before."""
        return self._limits[self.refused_place - 1] if self.refused_place else None

    @property
    def output_limit(self) -> int | None:
        """The most tokens of one choice, where a budget bounds them."""
        return self.output_bound if self.output_bound >= 0 else None

    @property
    def shadowed(self) -> tuple[str, ...]:
        """The ids of shadow limits that would have refused."""
        return tuple([self._limits[place - 1].id for place in self.shadowed_places])

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, made anew each time: few calls ever look at them."""
        capacities = [bound.capacity for bound in self._limits]
        return levels_of(capacities, self.remaining, self.reset_ms, self.used, self.windows)

    @property
    def _limits(self) -> tuple[BoundLimit, ...]:
        return () if self.kind is None else self.kind.limits


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
