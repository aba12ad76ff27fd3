"""What the scripts are given and how their answers are read, without a server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.limits import codec
from gateway.limits.scripts import PARTS, load_scripts
from gateway.limits.wire import (
    COUNT_MAX,
    SPEC_VALUES,
    AdmitCall,
    BoundLimit,
    Held,
    Level,
    LimitSet,
    ScriptOptions,
    SettleCall,
    count,
)
from gateway.model import Limit, Price, Usage
from gateway.redis.script import ScriptCall
from tests.support.limit_server import unpacked

OPTIONS = ScriptOptions()
RPM = BoundLimit(id="t:rpm", limit=Limit(name="rpm", unit="requests", per="minute", amount=600, burst=50))
TPD = BoundLimit(id="k:ci:tpd", limit=Limit(name="tpd", unit="tokens", per="day", amount=5000, mode="shadow"))
USD = BoundLimit(id="t:usd", limit=Limit(name="usd", unit="cost", per="month", amount=2**60))
TWO = BoundLimit(id="t:two", limit=Limit(name="two", unit="concurrency", per=None, amount=2))


def _admit(**more: Any) -> AdmitCall:
    fields: dict[str, Any] = {
        "lease_id": "lease-1",
        "scenario": "chat",
        "backend": "qwen",
        "text_bytes": 10,
        "input_upper": 20,
        "output_cap": None,
        "worst_output": 100,
        **more,
    }
    return AdmitCall(kind=LimitSet("acme", fields.pop("limits", (RPM, TPD, TWO))), **fields)


def _settle(**more: Any) -> SettleCall:
    fields: dict[str, Any] = {
        "lease_id": "lease-1",
        "admitted_ms": 1000,
        "usage": Usage(input_tokens=3, output_tokens=4),
        "cost_nano": 5,
        "key": "ci",
        "scenario": "chat",
        "backend": "qwen",
        "status": 200,
        "ended_at": 86_399.5,
        **more,
    }
    return SettleCall(kind=LimitSet("acme", fields.pop("limits", (RPM, TWO))), **fields)


def _sent(args: tuple[bytes, ...]) -> Any:
    (packed,) = args
    return msgspec.msgpack.decode(packed)


def _after_limits(told: bytes) -> Any:
    """What a script is told after the limits."""
    assert told[0] == 0xDD, "a header of five bytes"
    values = msgspec.msgpack.decode(told)
    return values[1 + SPEC_VALUES * values[0] :]


def _admission(*calls: AdmitCall) -> tuple[list[bytes], list[bytes]]:
    """Keys and arguments of an admission."""
    return _parts(codec.pack_admit(calls, [value for call in calls for value in codec.admit_values(call)], OPTIONS))


def _parts(call: ScriptCall) -> tuple[list[bytes], list[bytes]]:
    """Keys and arguments of a call."""
    count, *parts = unpacked(call.packed)
    assert len(parts) + 1 == call.parts
    assert call.key == parts[0]
    return parts[: int(count)], parts[int(count) :]


def test_a_limit_is_sent_with_what_the_scripts_need() -> None:
    """Field, kind, unit, amount, capacity, period and mode; the field changes with unit and period, not the amount."""
    (_, (told,)) = _admission(_admit())
    assert msgspec.msgpack.decode(told)[: 1 + 3 * SPEC_VALUES] == [
        3,
        *("l|t:rpm|requests|minute", 1, 1, 600, 50, 60_000, 0),
        *("l|k:ci:tpd|tokens|day", 2, 2, 5000, 5000, 0, 1),
        *("l|t:two|concurrency|", 4, 6, 2, 2, 0, 0),
    ]


def test_an_amount_beyond_a_double_is_the_largest_that_fits() -> None:
    """Such a limit is stricter than asked for, never looser."""
    assert msgspec.msgpack.decode(b"\x97" + USD.spec)[3] == COUNT_MAX
    assert [count(value) for value in (-1, 0, 7, 2**53)] == [0, 0, 7, COUNT_MAX]


def test_the_keys_of_a_call_lie_in_one_slot() -> None:
    """All keys carry the tenant's hash tag; slots come in the order of the limits of concurrency."""
    keys, _ = _admission(_admit(), _admit(lease_id="b"))
    assert keys == [b"lgw:1:{acme}:" + each for each in (b"levels", b"slots:t:two", b"lease:lease-1", b"lease:b")]
    keys, _ = _parts(codec.pack_settle((_settle(), _settle(lease_id="b")), OPTIONS))
    ledger = (b"usage:1970-01-01", b"events")
    names = (b"levels", *ledger, b"slots:t:two", b"lease:lease-1", b"lease:b")
    assert keys == [b"lgw:1:{acme}:" + each for each in names]


@pytest.mark.parametrize("many", [1, 2, 9_000])
def test_what_a_script_is_told_says_how_long_it_is(many: int) -> None:
    """One array, whatever the header is that its length would need."""
    calls = [_admit(lease_id=f"{number}") for number in range(many)]
    _, (told,) = _admission(*calls)
    fixed, values = _after_limits(told)[:6], _after_limits(told)[6:]
    assert fixed == [many, "3600000", 30_000, "chat", 256, "qwen"]
    assert values[::8] == [call.lease_id for call in calls]


def test_a_limit_of_cost_needs_a_price() -> None:
    """A plan without one should have been dropped before."""
    with pytest.raises(ValueError, match="acme, backend qwen"):
        codec.admit_values(_admit(limits=(USD,)))


def test_the_dearest_input_is_reserved() -> None:
    """Where cached input costs more than other, that is the worst case."""
    price = Price(input_nano_usd=3, cached_input_nano_usd=7, output_nano_usd=11)
    assert codec.admit_values(_admit(limits=(USD,), price=price))[6:8] == (7, 11)


def test_the_worst_output_is_within_the_cap() -> None:
    """The request's own limit counts where it is lower; none is sent as -1."""
    assert codec.admit_values(_admit(output_cap=30))[3:5] == (30, 30)
    assert codec.admit_values(_admit(output_cap=300))[3:5] == (300, 100)
    assert codec.admit_values(_admit())[3:5] == (-1, 100)


def test_answers_are_read_call_by_call() -> None:
    """The limit that refuses, the wait, and levels that are never below zero; a place in one list means it in all."""
    answers = [*(2, 1500, -1, 3, 4, 0, 45, 5003, 1), *(-1, 0, -1, 3, 4, 0, 45, 5003, 1)]
    raw = msgspec.msgpack.encode(["e1", 77, 1, [0, 9, 0], [59_000, 2, 0], answers])
    reply, known = codec.decode_admit([_admit(), _admit()], raw)
    assert (reply.admitted, reply.refused, reply.retry_after_ms, reply.output_limit) == (False, TPD, 1500, None)
    assert (reply.shared.epoch, reply.shared.now_ms, reply.shared.expired) == ("e1", 77, 1)
    # 45 x 60,000 parts of 600 per minute are missing, less 59,000 that have come: 4401.67 ms.
    assert reply.levels[0] == Level(limit=50, remaining=5, reset_ms=4402, used=45, window=0)
    assert reply.levels[1] == Level(limit=5000, remaining=0, reset_ms=2, used=5003, window=9)
    assert (known.admitted, known.refused) == (False, None)


def test_an_admission_is_read() -> None:
    """An output limit, and the ids of shadow limits that would have refused; a full bucket has nothing to wait for."""
    raw = msgspec.msgpack.encode(["e1", 77, 0, [0, 9, 0], [1, 2, 0], [0, 0, 0, 3, 4, [2], 0, 5000, 1]])
    (reply,) = codec.decode_admit([_admit()], raw)
    assert (reply.admitted, reply.refused, reply.output_limit, reply.shadowed) == (True, None, 0, ("k:ci:tpd",))
    assert (reply.input_estimate, reply.output_estimate, reply.reset_ms(0)) == (3, 4, 0)


def test_what_is_no_reply_is_refused() -> None:
    """A truncated or foreign answer raises rather than being half read."""
    short = msgspec.msgpack.encode(["e1", 77, 0, [0, 9, 0], [1, 2, 0], [0, 0, 0, 3, 4, 0, 0, 5000]])
    for raw in (b"", b"\x91\x01", b"+OK", msgspec.msgpack.encode("x"), short):
        with pytest.raises(msgspec.DecodeError):
            codec.decode_admit([_admit()], raw)


def test_only_reported_usage_is_learned_from() -> None:
    """Estimates, failures and kept reservations are sent without a size to learn from."""
    learned = [
        _settle(text_bytes=9),
        _settle(text_bytes=9, usage=None),
        _settle(text_bytes=9, usage=Usage(estimated=True)),
    ]
    _, (told,) = _parts(codec.pack_settle(learned, OPTIONS))
    assert _after_limits(told)[7:][13::17] == [9, 0, 0]


def test_renewals_name_each_slot_key_once() -> None:
    """Calls under the same limit share its key; the records of the leases follow."""
    held = (Held(lease_id="a", limits=(RPM, TWO)), Held(lease_id="b", limits=(TWO,)))
    renew = codec.encode_renew("acme", held, OPTIONS)
    assert [key.rpartition(b"}:")[2] for key in renew.keys] == [b"levels", b"slots:t:two", b"lease:a", b"lease:b"]
    assert _sent(renew.args) == [30_000, 1, [["a", [1]], ["b", [1]]]]
    reply = codec.decode_renew(held, msgspec.msgpack.encode(["e1", 5, [2], 3]))
    assert (reply.epoch, reply.now_ms, reply.ended, reply.expired) == ("e1", 5, ("b",), 3)


def test_outcomes_are_named() -> None:
    """The numbers of the scripts, as words."""
    ended = [msgspec.msgpack.encode([outcome, "e1"]) for outcome in range(3)]
    settled = codec.decode_settle(msgspec.msgpack.encode(["e1", [0, 1, 2]]))
    assert (settled.epoch, settled.outcomes) == ("e1", ("settled", "charged", "repeated"))
    assert [codec.decode_void(raw) for raw in ended] == ["voided", "blocked", "ended"]


def test_every_script_is_put_together() -> None:
    """Each ends with its own file, and asks for the time once."""
    scripts = load_scripts()
    for name in PARTS:
        source = getattr(scripts, name).source
        assert source.count("call('TIME')") == 1
        assert getattr(scripts, name).name == name
