"""The values of ``wire`` as the scripts take them, and their replies as values; pure.

Invariant: arguments and replies are one MessagePack array each (the ``cmsgpack`` of Redis), laid out as the head of
each ``lua/*.lua`` says; a change of a layout changes both files. Numbers that a script passes on to a command unchanged
go as decimal text, since some servers write round numbers of Lua as ``1e+08``.

It sends nothing: the caller runs a script with the keys and arguments of the ``Invocation``, or with a ``ScriptCall``,
which is the same packed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from gateway.limits.wire import (
    ANSWER_VALUES,
    COUNT_MAX,
    AdmitCall,
    AdmitReply,
    AdmitRun,
    BoundLimit,
    Held,
    Invocation,
    Level,
    LevelsReply,
    LimitSet,
    RenewReply,
    ScriptOptions,
    SettleCall,
    SettleOutcome,
    SettleReply,
    VoidOutcome,
    count,
    levels_of,
)
from gateway.model import Usage
from gateway.redis import names
from gateway.redis.script import ScriptCall, bulk

_DAY_S: Final = 86_400
_SHORT, _LONG = 16, 65_536
"""Arrays of MessagePack with fewer elements have a header of one byte, or of three; others of five
(https://github.com/msgpack/msgpack/blob/master/spec.md)."""


def admit_values(call: AdmitCall) -> tuple[str | int, ...]:
    """What ``admit.lua`` is told of one call. Raises ValueError for a limit of cost without a price."""
    price, cap, worst = call.price, call.output_cap, call.worst_output
    if price is not None:
        input_price, output_price = price.dearest_input_nano_usd, price.output_nano_usd
    elif call.kind.needs_price:
        raise ValueError(f"a limit of cost needs a price: {call.kind.tenant}, backend {call.backend}")
    else:
        input_price = output_price = 0
    return (
        call.lease_id,
        call.text_bytes,
        call.input_upper,
        -1 if cap is None else cap if cap < COUNT_MAX else COUNT_MAX,
        worst if cap is None or worst < cap else cap,
        call.choices if call.choices > 1 else 1,
        input_price if input_price < COUNT_MAX else COUNT_MAX,
        output_price if output_price < COUNT_MAX else COUNT_MAX,
    )


def pack_admit(calls: Sequence[AdmitCall], values: Iterable[str | int], options: ScriptOptions) -> ScriptCall:
    """For ``admit.lua``, for calls of one kind to one backend, at least one; ``values`` are those of all of them."""
    first = calls[0]
    kind, fixed = first.kind, (str(options.open_ms), options.slot_ms, first.scenario, options.first_output_tokens)
    told = _told(kind, [len(calls), *fixed, first.backend, *values])
    keys = 1 + len(kind.slots) + len(calls)
    records = kind.records([each.lease_id for each in calls])
    return ScriptCall(keys + 2, b"".join((bulk(b"%d" % keys), kind.fixed_keys, records, bulk(told))), kind.levels)


def decode_admit(calls: Sequence[AdmitCall], raw: bytes) -> list[AdmitReply]:
    """The reply of ``admit.lua``, call by call. Raises msgspec.DecodeError where it is none."""
    run: AdmitRun = _ADMITTED.decode(raw)
    kind, answers = calls[0].kind, run.answers
    count = len(kind.limits)
    width = ANSWER_VALUES + count
    if len(answers) != width * len(calls) or not len(run.untils) == len(run.windows) == count:
        raise msgspec.DecodeError("levels of other limits than those of the calls")
    replies = []
    for at in range(0, len(answers), width):
        levels_at = at + ANSWER_VALUES
        place, wait_ms, bound, input_estimate, output_estimate, shadowed = answers[at:levels_at]
        used = answers[levels_at : at + width]
        replies.append(
            AdmitReply(kind, run, place, wait_ms, bound, input_estimate, output_estimate, shadowed or (), used)
        )
    return replies


def pack_settle(calls: Sequence[SettleCall], options: ScriptOptions) -> ScriptCall:
    """For ``settle.lua``, for calls of one kind to one backend by one key that ended on one day, at least one.

    A repetition changes nothing.
    """
    kind = calls[0].kind
    keys = 3 + len(kind.slots) + len(calls)
    ledger = bulk(kind.usage(calls[0].ended_at)) + bulk(kind.events)
    records, told = kind.records([call.lease_id for call in calls]), bulk(settle_arguments(calls, options))
    packed = b"".join((bulk(b"%d" % keys), bulk(kind.levels), ledger, kind.slot_keys, records, told))
    return ScriptCall(keys + 2, packed, kind.levels)


def settle_arguments(calls: Sequence[SettleCall], options: ScriptOptions) -> bytes:
    """The argument of ``settle.lua``."""
    first = calls[0]
    lifetime_s, events_max = str(options.retention_s + _DAY_S), str(options.events_max)
    values: list[str | int] = [len(calls), str(options.ended_ms), lifetime_s, events_max]
    values += (first.key, first.scenario, first.backend)
    for call in calls:
        usage = call.usage or _NOTHING
        input_tokens, cached, output = usage.input_tokens, usage.cached_input_tokens, usage.output_tokens
        cost = call.cost_nano
        if input_tokens > COUNT_MAX or output > COUNT_MAX or cost > COUNT_MAX:
            input_tokens, cached, output, cost = count(input_tokens), count(cached), count(output), count(cost)
        values += (
            call.lease_id,
            call.admitted_ms,
            input_tokens,
            cached,
            output,
            cost,
            str(input_tokens),
            str(cached),
            str(output),
            str(cost),
            str(call.status),
            1 if usage.estimated else 0,
            1 if call.keep else 0,
            0 if usage.estimated or call.usage is None else call.text_bytes,
            call.choices if call.choices > 1 else 1,
            1 if call.cached else 0,
            call.variant,
        )
    return _told(first.kind, values)


def decode_settle(raw: bytes) -> SettleReply:
    """The reply of ``settle.lua``."""
    reply = _SETTLED.decode(raw)
    names_of: tuple[SettleOutcome, ...] = ("settled", "charged", "repeated")
    return SettleReply(outcomes=tuple([names_of[outcome] for outcome in reply.outcomes]), epoch=reply.epoch)


def encode_void(kind: LimitSet, lease_id: str, options: ScriptOptions) -> Invocation:
    """For ``void.lua``: undo an admit that may have been executed, or keep it from being so later."""
    keys = (kind.levels, kind.record(lease_id), *kind.slots)
    return Invocation(keys, (_told(kind, [lease_id, str(options.ended_ms)]),))


def decode_void(raw: bytes) -> VoidOutcome:
    """The reply of ``void.lua``: given back, kept from coming, or too late since the lease had ended."""
    outcomes: tuple[VoidOutcome, ...] = ("voided", "blocked", "ended")
    return outcomes[_ENDED.decode(raw).outcome]


def encode_renew(tenant: str, held: Sequence[Held], options: ScriptOptions) -> Invocation:
    """For ``renew.lua``: the slots of many calls of one tenant."""
    places: dict[bytes, int] = {}
    leases: list[tuple[str, list[int]]] = []
    for call in held:
        slots = [names.slots(tenant, bound.id) for bound in call.limits if bound.limit.unit == "concurrency"]
        leases.append((call.lease_id, [places.setdefault(key, len(places) + 1) for key in slots]))
    records = [names.lease(tenant, lease_id) for lease_id, _ in leases]
    packed = msgspec.msgpack.encode((options.slot_ms, len(places), leases))
    return Invocation((names.levels(tenant), *places, *records), (packed,))


def decode_renew(held: Sequence[Held], raw: bytes) -> RenewReply:
    """The reply of ``renew.lua``."""
    reply = _RENEWED.decode(raw)
    ended = tuple([held[place - 1].lease_id for place in reply.ended])
    return RenewReply(epoch=reply.epoch, now_ms=reply.now_ms, ended=ended, expired=reply.expired)


def encode_read(tenant: str, limits: tuple[BoundLimit, ...]) -> Invocation:
    """For ``levels.lua``: read levels, changing nothing."""
    return _levels_invocation(tenant, limits, [0])


def encode_reset(tenant: str, limits: tuple[BoundLimit, ...]) -> Invocation:
    """For ``levels.lua``: forget what was used of these limits, calls that still run included."""
    return _levels_invocation(tenant, limits, [1])


def encode_restore(
    tenant: str, limits: tuple[BoundLimit, ...], levels: Sequence[Level], seen_ms: int, epoch: str
) -> Invocation:
    """For ``levels.lua``: raise the use of each limit to what was seen at ``seen_ms`` of the server's clock.

    ``epoch`` is a new random id, taken where the server has no levels at all.
    """
    used, windows = [level.used for level in levels], [level.window for level in levels]
    return _levels_invocation(tenant, limits, [2, used, windows, seen_ms, epoch])


def decode_levels(limits: tuple[BoundLimit, ...], raw: bytes) -> LevelsReply:
    """The reply of ``levels.lua``, in the order of ``limits``."""
    reply = _LEVELS.decode(raw)
    capacities = [bound.capacity for bound in limits]
    levels = levels_of(capacities, reply.remaining, reply.reset_ms, reply.used, reply.windows)
    return LevelsReply(epoch=reply.epoch, now_ms=reply.now_ms, levels=levels)


class _Settled(msgspec.Struct, array_like=True, frozen=True):
    epoch: str
    outcomes: tuple[int, ...]


class _Ended(msgspec.Struct, array_like=True, frozen=True):
    outcome: int
    epoch: str


class _Renewed(msgspec.Struct, array_like=True, frozen=True):
    epoch: str
    now_ms: int
    ended: tuple[int, ...]
    expired: int


class _Levels(msgspec.Struct, array_like=True, frozen=True):
    epoch: str
    now_ms: int
    windows: tuple[int, ...]
    remaining: tuple[int, ...]
    reset_ms: tuple[int, ...]
    used: tuple[int, ...]


_pack: Final = msgspec.msgpack.Encoder().encode
_ADMITTED: Final = msgspec.msgpack.Decoder(AdmitRun)
_SETTLED: Final = msgspec.msgpack.Decoder(_Settled)
_ENDED: Final = msgspec.msgpack.Decoder(_Ended)
_RENEWED: Final = msgspec.msgpack.Decoder(_Renewed)
_LEVELS: Final = msgspec.msgpack.Decoder(_Levels)
_NOTHING: Final = Usage()


def _told(kind: LimitSet, values: Sequence[object]) -> bytes:
    """What a script is told: the limits, then ``values``, in one array that says its length in four bytes.

    A script reads it value by value from behind that header.
    """
    packed = _pack(values)
    header = 1 if len(values) < _SHORT else 3 if len(values) < _LONG else 5  # the array's own
    return b"\xdd%b%b%b" % ((kind.specs_values + len(values)).to_bytes(4, "big"), kind.specs, packed[header:])


def _levels_invocation(tenant: str, limits: tuple[BoundLimit, ...], values: list[object]) -> Invocation:
    kind = LimitSet(tenant, limits)
    return Invocation((kind.levels, *kind.slots), (_told(kind, values),))
