"""The values of ``wire`` as the scripts take them, and their replies as values; pure.

Invariant: arguments and replies are one MessagePack array each (the ``cmsgpack`` of Redis), laid out as the head of
each ``lua/*.lua`` says; a change of a layout changes both files. Numbers that a script passes on to a command unchanged
go as decimal text, since some servers write round numbers of Lua as ``1e+08``.

It sends nothing: the caller runs a script with the keys and arguments of the ``Invocation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from gateway.limits.wire import (
    COUNT_MAX,
    LEASE_CHARS,
    AdmitCall,
    AdmitReply,
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
    levels_of,
)
from gateway.model import Usage
from gateway.redis import names
from gateway.redis.script import ScriptCall, script_call

_DAY_S: Final = 86_400


def encode_admit(call: AdmitCall, options: ScriptOptions) -> Invocation:
    """For ``admit.lua``. Raises ValueError for a limit of cost without a price."""
    kind = call.kind
    return Invocation((kind.levels, kind.record(call.lease_id), *kind.slots), (admit_arguments(call, options),))


def pack_admit(call: AdmitCall, options: ScriptOptions) -> ScriptCall:
    """What ``encode_admit`` gives, packed at once: what is the same for each call of a kind is ready-made."""
    kind, lease_id = call.kind, call.lease_id
    if len(lease_id) != LEASE_CHARS:
        return script_call(*encode_admit(call, options))
    arguments = admit_arguments(call, options)
    size = f"${len(arguments)}\r\n".encode()
    packed = b"".join((kind.admit_head, lease_id.encode(), kind.admit_tail, size, arguments, b"\r\n"))
    return ScriptCall(kind.admit_parts, packed, kind.levels)


def admit_arguments(call: AdmitCall, options: ScriptOptions) -> bytes:
    """The argument of ``admit.lua``. Raises ValueError for a limit of cost without a price."""
    price, kind, cap, worst = call.price, call.kind, call.output_cap, call.worst_output
    if price is not None:
        input_price, output_price = price.dearest_input_nano_usd, price.output_nano_usd
    elif kind.needs_price:
        raise ValueError(f"a limit of cost needs a price: {kind.tenant}, backend {call.backend}")
    else:
        input_price = output_price = 0
    return _pack(
        (
            call.lease_id,
            kind.admission if kind.admission_for is options else kind.prepare(options, call.scenario),
            call.backend,
            call.text_bytes,
            call.input_upper,
            -1 if cap is None else cap if cap < COUNT_MAX else COUNT_MAX,
            worst if cap is None or worst < cap else cap,
            call.choices if call.choices > 1 else 1,
            input_price if input_price < COUNT_MAX else COUNT_MAX,
            output_price if output_price < COUNT_MAX else COUNT_MAX,
        )
    )


def decode_admit(call: AdmitCall, raw: bytes) -> AdmitReply:
    """The reply of ``admit.lua``. Raises msgspec.DecodeError where it is none."""
    reply: AdmitReply = _ADMITTED.decode(raw)
    reply.kind = kind = call.kind
    if not len(reply.remaining) == len(reply.reset_ms) == len(reply.used) == len(reply.windows) == len(kind.limits):
        raise msgspec.DecodeError("levels of other limits than those of the call")
    return reply


def encode_settle(calls: Sequence[SettleCall], options: ScriptOptions) -> Invocation:
    """For ``settle.lua``, for calls of one kind that ended on one day, at least one; a repetition changes nothing."""
    kind = calls[0].kind
    records = [kind.record(call.lease_id) for call in calls]
    keys = (kind.levels, kind.usage(calls[0].ended_at), kind.events, *kind.slots, *records)
    return Invocation(keys, (settle_arguments(calls, options),))


def settle_arguments(calls: Sequence[SettleCall], options: ScriptOptions) -> bytes:
    """The argument of ``settle.lua``."""
    ended: list[tuple[object, ...]] = []
    for call in calls:
        usage = call.usage or _NOTHING
        ended.append(
            (
                call.lease_id,
                call.admitted_ms,
                usage.input_tokens,
                usage.cached_input_tokens,
                usage.output_tokens,
                call.cost_nano if call.cost_nano < COUNT_MAX else COUNT_MAX,
                1 if usage.estimated else 0,
                1 if call.keep else 0,
                call.key,
                call.scenario,
                call.backend,
                call.status,
                0 if call.usage is None or usage.estimated else call.text_bytes,
                call.choices if call.choices > 1 else 1,
                1 if call.cached else 0,
                call.variant,
            )
        )
    lifetime_s, events_max = str(options.retention_s + _DAY_S), str(options.events_max)
    return _pack((calls[0].kind.specs, str(options.ended_ms), lifetime_s, events_max, ended))


def decode_settle(raw: bytes) -> SettleReply:
    """The reply of ``settle.lua``."""
    reply = _SETTLED.decode(raw)
    names_of: tuple[SettleOutcome, ...] = ("settled", "charged", "repeated")
    return SettleReply(outcomes=tuple([names_of[outcome] for outcome in reply.outcomes]), epoch=reply.epoch)


def encode_void(kind: LimitSet, lease_id: str, options: ScriptOptions) -> Invocation:
    """For ``void.lua``: undo an admit that may have been executed, or keep it from being so later."""
    keys = (kind.levels, kind.record(lease_id), *kind.slots)
    return Invocation(keys, (_pack((lease_id, kind.specs, str(options.ended_ms))),))


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
    return _levels_invocation(tenant, limits, (0, _specs(limits)))


def encode_reset(tenant: str, limits: tuple[BoundLimit, ...]) -> Invocation:
    """For ``levels.lua``: forget what was used of these limits, calls that still run included."""
    return _levels_invocation(tenant, limits, (1, _specs(limits)))


def encode_restore(
    tenant: str, limits: tuple[BoundLimit, ...], levels: Sequence[Level], seen_ms: int, epoch: str
) -> Invocation:
    """For ``levels.lua``: raise the use of each limit to what was seen at ``seen_ms`` of the server's clock.

    ``epoch`` is a new random id, taken where the server has no levels at all.
    """
    used, windows = [level.used for level in levels], [level.window for level in levels]
    return _levels_invocation(tenant, limits, (2, _specs(limits), used, windows, seen_ms, epoch))


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
_ADMITTED: Final = msgspec.msgpack.Decoder(AdmitReply)
_SETTLED: Final = msgspec.msgpack.Decoder(_Settled)
_ENDED: Final = msgspec.msgpack.Decoder(_Ended)
_RENEWED: Final = msgspec.msgpack.Decoder(_Renewed)
_LEVELS: Final = msgspec.msgpack.Decoder(_Levels)
_NOTHING: Final = Usage()


def _specs(limits: Iterable[BoundLimit]) -> list[msgspec.Raw]:
    return [bound.spec for bound in limits]


def _slots(tenant: str, limits: Iterable[BoundLimit]) -> list[bytes]:
    return [names.slots(tenant, bound.id) for bound in limits if bound.limit.unit == "concurrency"]


def _levels_invocation(tenant: str, limits: Iterable[BoundLimit], arguments: tuple[object, ...]) -> Invocation:
    keys = (names.levels(tenant), *_slots(tenant, limits))
    return Invocation(keys, (msgspec.msgpack.encode(arguments),))
