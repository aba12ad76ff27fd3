"""The limit scripts on a real server: every call counts once, whatever was lost, late, repeated or reset."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from gateway.limits.wire import Held, ScriptOptions
from gateway.model import Usage
from gateway.redis.ledger_format import UsageCounts, UsageOf, decode_day, decode_event
from tests.support.limit_server import NOON_MS, TENANT, LimitServer, limit, limit_server

DAY = 86_400_000
RPM = limit("rpm", "requests", 10, "minute")
TPM = limit("tpm", "tokens", 1000, "minute")
TPD = limit("tpd", "tokens", 1000, "day")
USD = limit("usd", "cost", 100_000, "month")
TWO = limit("two", "concurrency", 2)
ALL = [RPM, TPM, TPD, USD, TWO]
USAGE = Usage(input_tokens=20, cached_input_tokens=5, output_tokens=10)
LEVELS = "lgw:1:{acme}:levels"


@pytest.fixture(scope="module")
def _shared() -> Iterator[LimitServer]:
    with limit_server() as server:
        yield server


@pytest.fixture
def server(_shared: LimitServer) -> LimitServer:
    """A server without data, at noon."""
    _shared.client.flushall()
    _shared.options = ScriptOptions()
    _shared.set_time(NOON_MS)
    return _shared


# Lost replies


def test_a_settlement_counts_once(server: LimitServer) -> None:
    """A repetition, as after a lost reply, changes no level, no usage and writes no event."""
    server.admit("a", ALL)
    assert server.settle("a", ALL, USAGE).outcomes == ("settled",)
    before = (server.used(*ALL), _usage(server), server.client.xlen("lgw:1:{acme}:events"))
    assert server.settle("a", ALL, USAGE).outcomes == ("repeated",)
    assert (server.used(*ALL), _usage(server), server.client.xlen("lgw:1:{acme}:events")) == before
    assert before[0] == (1, 30, 30, 40, 0)


def test_a_void_gives_everything_back(server: LimitServer) -> None:
    """The request too: the call never came to be."""
    server.admit("a", ALL)
    assert server.void("a", ALL) == "voided"
    assert server.used(*ALL) == (0, 0, 0, 0, 0)
    assert server.void("a", ALL) == "blocked"
    assert server.used(*ALL) == (0, 0, 0, 0, 0)


def test_a_void_blocks_a_late_admission(server: LimitServer) -> None:
    """The admission that comes after its void takes nothing."""
    assert server.void("a", ALL) == "blocked"
    reply = server.admit("a", ALL)
    assert (reply.admitted, reply.refused) == (False, None)
    assert server.used(*ALL) == (0, 0, 0, 0, 0)


def test_an_admission_that_comes_twice_takes_once(server: LimitServer) -> None:
    """The lease id is taken; nothing more is."""
    server.admit("a", ALL)
    reply = server.admit("a", ALL)
    assert (reply.admitted, reply.refused) == (False, None)
    assert server.used(*ALL) == (1, 80, 150, 200, 1)


def test_a_void_after_the_settlement_changes_nothing(server: LimitServer) -> None:
    """What was used stays charged."""
    server.admit("a", ALL)
    server.settle("a", ALL, USAGE)
    assert server.void("a", ALL) == "ended"
    assert server.used(*ALL) == (1, 30, 30, 40, 0)


def test_a_settlement_after_the_void_charges_the_use(server: LimitServer) -> None:
    """A call that ran all the same is charged what it used, once."""
    server.admit("a", ALL)
    server.void("a", ALL)
    assert server.settle("a", ALL, USAGE).outcomes == ("charged",)
    assert server.settle("a", ALL, USAGE).outcomes == ("repeated",)
    assert server.used(*ALL) == (1, 30, 30, 40, 0)


def test_a_void_gives_back_to_the_window_it_was_taken_from(server: LimitServer) -> None:
    """Today's use stays where a call of yesterday is voided."""
    server.admit("a", [TPD])
    server.advance(DAY // 2)
    server.admit("b", [TPD])
    server.void("a", [TPD])
    assert server.used(TPD) == (150,)


def test_a_kept_reservation_stays_charged(server: LimitServer) -> None:
    """A caller who left while the backend worked pays the reservation; the ledger has the estimate."""
    server.admit("a", ALL)
    estimate = Usage(input_tokens=30, output_tokens=50, estimated=True)
    server.settle("a", ALL, estimate, keep=True, status=499)
    assert server.used(*ALL) == (1, 80, 150, 200, 0)
    assert _usage(server).input_tokens == 30


# Loss of data


def test_a_lease_of_another_epoch_is_charged_in_full(server: LimitServer) -> None:
    """After a loss nothing is reserved any more, so the use itself counts, once."""
    epoch = server.admit("a", ALL).shared.epoch
    server.lose_everything()
    reply = server.settle("a", ALL, USAGE)
    assert reply.outcomes == ("charged",)
    assert reply.epoch not in ("", epoch)
    assert server.settle("a", ALL, USAGE).outcomes == ("repeated",)
    assert server.used(*ALL) == (1, 30, 30, 40, 0)


def test_a_record_that_outlived_the_levels_is_of_another_epoch(server: LimitServer) -> None:
    """Where only the levels were lost, the reservation in the record is not given back to the new ones."""
    limits = [RPM, TPM, TPD, USD]
    server.admit("a", limits)
    server.admit("v", limits)
    server.client.delete(LEVELS)
    server.admit("b", limits)
    assert server.void("v", limits) == "voided"
    assert server.settle("a", limits, USAGE).outcomes == ("charged",)
    assert server.used(*limits) == (2, 110, 180, 240)


def test_use_of_an_outage_does_not_weigh_on_buckets_later(server: LimitServer) -> None:
    """What a bucket would have been refilled with since the call is not charged to it; budgets are charged in full."""
    server.advance(30_000)
    server.settle("a", ALL, Usage(input_tokens=400, output_tokens=200), admitted_ms=NOON_MS)
    assert server.used(*ALL) == (0, 100, 600, 800, 0)


def test_late_use_goes_to_the_window_of_its_time(server: LimitServer) -> None:
    """A call let in without the server before midnight and settled after it counts for the day before."""
    server.advance(DAY // 2)
    server.settle("a", [TPD], USAGE, admitted_ms=NOON_MS)
    assert server.used(TPD) == (0,)
    server.advance(-DAY // 2)
    assert server.used(TPD) == (30,)
    server.advance(DAY)
    server.admit("b", [TPD])
    server.settle("c", [TPD], USAGE, admitted_ms=NOON_MS - DAY)
    assert server.used(TPD) == (150,)
    server.advance(-DAY)
    assert server.used(TPD) == (30,)


def test_restored_levels_are_the_highest_seen(server: LimitServer) -> None:
    """Replicas restore what they saw in any order and as often as they like; buckets less what was refilled since."""
    limits = [TPM, TPD, USD]
    low = server.admit("a", limits).levels
    high = server.admit("b", limits).levels
    server.lose_everything()
    server.admit("c", limits)
    for levels in (low, high, low):
        server.restore(limits, levels, NOON_MS)
    assert server.used(*limits) == (160, 300, 400)
    server.advance(6000)
    server.restore(limits, high, NOON_MS)
    assert server.used(*limits) == (60, 300, 400)


def test_a_restore_of_an_empty_server_makes_an_epoch(server: LimitServer) -> None:
    """The levels have an epoch from then on, and a lifetime."""
    seen = server.admit("a", [TPD]).levels
    server.lose_everything()
    assert server.restore([TPD], seen, NOON_MS).epoch == "restored"
    assert server.admit("b", [TPD]).shared.epoch == "restored"
    assert server.client.ttl(LEVELS) > 39 * 86_400


def test_levels_of_a_past_window_are_not_restored(server: LimitServer) -> None:
    """Last week's use is not this day's."""
    seen = server.admit("a", [TPD]).levels
    server.lose_everything()
    server.advance(7 * DAY)
    server.restore([TPD], seen, NOON_MS)
    assert server.used(TPD) == (0,)


# Slots


def test_renewed_slots_last(server: LimitServer) -> None:
    """A slot renewed in time outlives its first expiry; one that was not is removed and counted."""
    server.admit("a", [TWO])
    server.admit("b", [TWO])
    server.advance(20_000)
    server.renew(Held(lease_id="a", limits=(RPM, TWO)))
    server.advance(20_000)
    reply = server.renew(Held(lease_id="a", limits=(TWO,)))
    assert (reply.ended, reply.expired) == ((), 1)
    assert server.used(TWO) == (1,)


def test_a_lost_slot_is_taken_again_by_renewal(server: LimitServer) -> None:
    """The call runs, so it holds its slot, also where the server has forgotten it."""
    server.admit("a", [TWO])
    server.lose_everything()
    reply = server.renew(Held(lease_id="a", limits=(TWO,)))
    assert (reply.epoch, reply.ended) == ("", ())
    assert server.used(TWO) == (1,)


def test_the_slot_of_an_ended_call_is_not_renewed(server: LimitServer) -> None:
    """A renewal that comes after the settlement takes nothing, and says so."""
    server.admit("a", [TWO])
    server.settle("a", [TWO], None)
    server.void("b", [TWO])
    reply = server.renew(Held(lease_id="a", limits=(TWO,)), Held(lease_id="b", limits=(TWO,)))
    assert reply.ended == ("a", "b")
    assert server.used(TWO) == (0,)


# Resets


def test_a_reset_forgets_what_was_used(server: LimitServer) -> None:
    """Levels are whole again; calls that were running neither give back to them nor charge them."""
    server.admit("a", ALL)
    server.admit("b", ALL)
    server.reset(ALL)
    assert server.used(*ALL) == (0, 0, 0, 0, 0)
    server.admit("c", [TPD, USD])
    server.settle("a", ALL, USAGE)
    server.settle("b", ALL, Usage(input_tokens=500, output_tokens=500))
    assert server.used(TPD, USD) == (150, 200)


def test_levels_seen_before_a_reset_are_not_restored(server: LimitServer) -> None:
    """A replica that restores late does not undo the reset."""
    seen = server.admit("a", [TPD]).levels
    server.reset([TPD])
    server.restore([TPD], seen, NOON_MS)
    assert server.used(TPD) == (0,)


# The ledger and what is learned


def test_the_ledger_has_each_call_once(server: LimitServer) -> None:
    """The day's hash sums up, the stream has one event per call, both in the format that readers know."""
    server.admit("a", ALL)
    server.settle("a", ALL, USAGE)
    server.settle("b", [], Usage(input_tokens=7, output_tokens=1, estimated=True), status=499)
    assert _usage(server) == UsageCounts(
        requests=2,
        input_tokens=27,
        cached_input_tokens=5,
        output_tokens=11,
        cost_nano_usd=49,
        estimated_requests=1,
    )
    events = server.client.xrange("lgw:1:{acme}:events")
    first, second = (decode_event(TENANT, place, fields) for place, fields in _flat(events))
    assert (first.id, first.key, first.scenario, first.backend) == ("a", "ci", "chat", "qwen")
    assert (first.status, first.input_tokens, first.cached_input_tokens, first.output_tokens) == (200, 20, 5, 10)
    assert (first.cost_nano_usd, first.estimated) == (40, False)
    assert (second.id, second.status, second.estimated) == ("b", 499, True)


def test_a_large_cost_is_written_exactly(server: LimitServer) -> None:
    """Sixteen digits arrive as sixteen digits, in the hash and in the event."""
    server.settle("a", [], USAGE, cost_nano=9_000_000_000_000_001)
    server.settle("b", [], USAGE, cost_nano=9_000_000_000_000_000)
    assert _usage(server).cost_nano_usd == 18_000_000_000_000_001
    events = server.client.xrange("lgw:1:{acme}:events")
    assert [decode_event(TENANT, *event).cost_nano_usd % 10 for event in _flat(events)] == [1, 0]


def test_events_are_capped_and_can_be_turned_off(server: LimitServer) -> None:
    """A cap of 0 writes none; the usage of the day is written all the same."""
    server.options = ScriptOptions(events_max=0)
    server.settle("a", [], USAGE)
    assert server.client.exists("lgw:1:{acme}:events") == 0
    assert _usage(server).requests == 1
    server.options = ScriptOptions(events_max=100)
    for n in range(600):
        server.settle(f"b{n}", [], None)
    assert 100 <= server.client.xlen("lgw:1:{acme}:events") < 400


def test_everything_has_a_lifetime(server: LimitServer) -> None:
    """No key that the scripts write stays forever."""
    server.admit("a", ALL)
    server.admit("b", ALL)
    server.settle("a", ALL, USAGE)
    server.void("c", ALL)
    server.renew(Held(lease_id="b", limits=(TWO,)))
    keys = server.client.keys("lgw*")
    assert len(keys) == 7
    assert [key for key in keys if server.client.ttl(key) <= 0] == []


def test_the_input_ratio_is_learned_per_backend(server: LimitServer) -> None:
    """The next estimate follows what the backend reported; an estimated usage teaches nothing."""
    server.settle("a", [TPM], Usage(input_tokens=100, output_tokens=5), text_bytes=1000)
    server.settle("b", [TPM], Usage(input_tokens=999, output_tokens=5, estimated=True), text_bytes=1000)
    assert server.admit("c", [TPM], text_bytes=400).input_estimate == 40
    assert server.admit("d", [TPM], text_bytes=400, input_upper=400, backend="other").input_estimate == 120
    for n in range(64):
        server.settle(f"e{n}", [], Usage(input_tokens=100), text_bytes=1000)
    for n in range(200):
        server.settle(f"f{n}", [TPM], Usage(input_tokens=500, output_tokens=5), text_bytes=1000)
    server.advance(DAY)
    assert 190 <= server.admit("g", [TPM], text_bytes=400, input_upper=400).input_estimate <= 200


@pytest.mark.parametrize("name", ["day", "month"])
def test_what_is_learned_is_kept_whatever_the_backend_and_scenario_are_called(server: LimitServer, name: str) -> None:
    """Not taken for a budget that nobody touched."""
    rpd = limit("rpd", "requests", 100, "day")
    named = {"backend": name, "scenario": name}
    server.admit("a", [rpd], **named)
    server.settle("a", [rpd], Usage(input_tokens=80, output_tokens=7), text_bytes=100, **named)
    server.advance(24 * 3_600_000)
    server.admit("b", [rpd], **named)
    assert server.admit("c", [rpd], **named).input_estimate == 80
    assert server.client.hexists("lgw:1:{acme}:levels", f"o|{name}")


def test_the_output_is_learned_as_a_high_quantile(server: LimitServer) -> None:
    """Of outputs from 1 to 100 the estimate comes to lie near the upper end; per choice, and within the cap."""
    outputs = [(n * 37) % 100 + 1 for n in range(500)]
    for n, tokens in enumerate(outputs):
        server.settle(f"a{n}", [TPM], Usage(input_tokens=10, output_tokens=2 * tokens), text_bytes=100, choices=2)
    server.advance(DAY)
    uncapped = {"output_cap": None, "worst_output": 4096}
    assert 75 <= server.admit("b", [TPM], **uncapped).output_estimate <= 135
    server.advance(DAY)
    assert server.admit("c", [TPM]).output_estimate == 50


def test_what_nobody_touches_leaves_the_levels(server: LimitServer) -> None:
    """Once a day, limits that are gone from the registry for long are forgotten; the rest stays."""
    month = limit("month", "requests", 10, "month")
    old = [limit("old-rate", "requests", 1, "minute"), limit("old-day", "requests", 1, "day"), month]
    server.admit("a", old)
    server.settle("a", old, USAGE, text_bytes=100, backend="old", scenario="old")
    server.advance(20 * DAY)
    server.admit("b", [RPM, month])
    assert server.client.hlen(LEVELS) == 7
    server.advance(21 * DAY)
    server.admit("c", [RPM, month])
    assert sorted(server.client.hkeys(LEVELS)) == [b"e", b"l|t:month|requests|month", b"l|t:rpm|requests|minute"]


def test_a_full_server_takes_nothing(server: LimitServer) -> None:
    """Out of memory, a script fails before its first write, so nothing is half done."""
    server.admit("a", ALL)
    before = server.used(*ALL)
    server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.admit("b", ALL)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.settle("a", ALL, USAGE)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            server.void("a", ALL)
    finally:
        server.client.config_set("maxmemory", 0)
    assert server.used(*ALL) == before
    assert server.settle("a", ALL, USAGE).outcomes == ("settled",)


def _usage(server: LimitServer) -> UsageCounts:
    day = decode_day(server.client.hgetall("lgw:1:{acme}:usage:2026-11-22"))
    assert set(day) == {UsageOf(key="ci", scenario="chat", backend="qwen")}
    return day[UsageOf(key="ci", scenario="chat", backend="qwen")]


def _flat(events: list[tuple[bytes, dict[bytes, bytes]]]) -> list[tuple[bytes, list[bytes]]]:
    return [(place, [part for pair in fields.items() for part in pair]) for place, fields in events]
