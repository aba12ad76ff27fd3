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
    count,
    levels_of,
)
from gateway.model import Usage
from gateway.redis import names

_DAY_S: Final = 86_400


def encode_admit(call: AdmitCall, options: ScriptOptions) -> Invocation:
    """For ``admit.lua``. Raises ValueError for a limit of cost without a price."""
    if call.price is None and any(bound.limit.unit == "cost" for bound in call.limits):
        raise ValueError(f"a limit of cost needs a price: {call.tenant}, backend {call.backend}")
    price = call.price
    worst = call.worst_output if call.output_cap is None else min(call.worst_output, call.output_cap)
    arguments = (
        call.lease_id,
        call.kind.specs,
        str(options.open_ms),
        options.slot_ms,
        call.scenario,
        call.backend,
        count(call.text_bytes),
        count(call.input_upper),
        -1 if call.output_cap is None else count(call.output_cap),
        count(worst),
        max(call.choices, 1),
        0 if price is None else count(max(price.input_nano_usd, price.cached_input_nano_usd)),
        0 if price is None else count(price.output_nano_usd),
        options.first_output_tokens,
    )
    return _invocation(call.kind, call.lease_id, (), arguments)


def decode_admit(call: AdmitCall, raw: bytes) -> AdmitReply:
    """The reply of ``admit.lua``. Raises msgspec.DecodeError where it is none."""
    reply = _ADMITTED.decode(raw)
    if not len(reply.remaining) == len(reply.reset_ms) == len(reply.used) == len(reply.windows) == len(call.limits):
        raise msgspec.DecodeError("levels of other limits than those of the call")
    return AdmitReply(
        admitted=reply.status == 1,
        epoch=reply.epoch.encode(),
        now_ms=reply.now_ms,
        refused=call.limits[reply.refused - 1] if reply.refused else None,
        retry_after_ms=reply.retry_after_ms,
        output_limit=reply.output_limit if reply.output_limit >= 0 else None,
        shadowed=tuple([call.limits[place - 1].id for place in reply.shadowed]) if reply.shadowed else (),
        capacities=call.kind.capacities,
        remaining=reply.remaining,
        reset_ms=reply.reset_ms,
        used=reply.used,
        windows=reply.windows,
        input_estimate=reply.input_estimate,
        output_estimate=reply.output_estimate,
        expired=reply.expired,
    )


def encode_settle(call: SettleCall, options: ScriptOptions) -> Invocation:
    """For ``settle.lua``; running it again changes nothing."""
    usage = call.usage or _NOTHING
    arguments = (
        call.lease_id,
        call.kind.specs,
        str(options.ended_ms),
        call.admitted_ms,
        str(count(usage.input_tokens)),
        str(count(usage.cached_input_tokens)),
        str(count(usage.output_tokens)),
        str(count(call.cost_nano)),
        str(int(usage.estimated)),
        int(call.keep),
        call.key,
        call.scenario,
        call.backend,
        str(call.status),
        count(call.text_bytes) if call.usage is not None and not usage.estimated else 0,
        max(call.choices, 1),
        str(options.retention_s + _DAY_S),
        str(options.events_max),
    )
    kind = call.kind
    return _invocation(kind, call.lease_id, (kind.usage(call.ended_at), kind.events), arguments)


def decode_settle(raw: bytes) -> SettleReply:
    """The reply of ``settle.lua``."""
    reply = _ENDED.decode(raw)
    outcomes: tuple[SettleOutcome, ...] = ("settled", "charged", "repeated")
    return SettleReply(outcome=outcomes[reply.outcome], epoch=reply.epoch.encode())


def encode_void(kind: LimitSet, lease_id: str, options: ScriptOptions) -> Invocation:
    """For ``void.lua``: undo an admit that may have been executed, or keep it from being so later."""
    return _invocation(kind, lease_id, (), (lease_id, kind.specs, str(options.ended_ms)))


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
    return Invocation(keys=(names.levels(tenant), *places, *records), args=(packed,))


def decode_renew(held: Sequence[Held], raw: bytes) -> RenewReply:
    """The reply of ``renew.lua``."""
    reply = _RENEWED.decode(raw)
    ended = tuple([held[place - 1].lease_id for place in reply.ended])
    return RenewReply(epoch=reply.epoch.encode(), now_ms=reply.now_ms, ended=ended, expired=reply.expired)


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
    return LevelsReply(epoch=reply.epoch.encode(), now_ms=reply.now_ms, levels=levels)


class _Admitted(msgspec.Struct, array_like=True, frozen=True):
    status: int  # 1 admitted, 0 refused, 2 the lease was known already
    epoch: str
    now_ms: int
    refused: int
    retry_after_ms: int
    output_limit: int
    input_estimate: int
    output_estimate: int
    expired: int
    shadowed: tuple[int, ...]
    windows: tuple[int, ...]
    remaining: tuple[int, ...]
    reset_ms: tuple[int, ...]
    used: tuple[int, ...]


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
_ADMITTED: Final = msgspec.msgpack.Decoder(_Admitted)
_ENDED: Final = msgspec.msgpack.Decoder(_Ended)
_RENEWED: Final = msgspec.msgpack.Decoder(_Renewed)
_LEVELS: Final = msgspec.msgpack.Decoder(_Levels)
_NOTHING: Final = Usage()


def _specs(limits: Iterable[BoundLimit]) -> list[msgspec.Raw]:
    return [bound.spec for bound in limits]


def _slots(tenant: str, limits: Iterable[BoundLimit]) -> list[bytes]:
    return [names.slots(tenant, bound.id) for bound in limits if bound.limit.unit == "concurrency"]


def _invocation(kind: LimitSet, lease_id: str, further: tuple[bytes, ...], arguments: tuple[object, ...]) -> Invocation:
    keys = (kind.levels, kind.lease_prefix + lease_id.encode(), *further, *kind.slots)
    return Invocation(keys=keys, args=(_pack(arguments),))


def _levels_invocation(tenant: str, limits: Iterable[BoundLimit], arguments: tuple[object, ...]) -> Invocation:
    keys = (names.levels(tenant), *_slots(tenant, limits))
    return Invocation(keys=keys, args=(msgspec.msgpack.encode(arguments),))
