"""The limit scripts on a real server, rule by rule: what they admit, take, refuse and how long they say to wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.limits.scripts import load_scripts
from gateway.limits.wire import COUNT_MAX
from gateway.model import Price, Usage
from tests.support.limit_server import NOON_MS, LimitServer, limit, limit_server

SECOND = 1_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE


@pytest.fixture(scope="module")
def _shared() -> Iterator[LimitServer]:
    with limit_server() as server:
        yield server


@pytest.fixture
def server(_shared: LimitServer) -> LimitServer:
    """A server without data, at noon."""
    _shared.client.flushall()
    _shared.set_time(NOON_MS)
    return _shared


def test_the_scripts_are_in_the_package() -> None:
    """Every script can be read and has a digest of its own."""
    scripts = load_scripts()
    assert len({scripts.admit.sha, scripts.settle.sha, scripts.void.sha, scripts.renew.sha, scripts.levels.sha}) == 5


# Rates


def test_a_rate_admits_its_burst_and_then_its_rate(server: LimitServer) -> None:
    """A full bucket admits the burst at once; then one call comes in for each refill."""
    rpm = limit("rpm", "requests", 60, "minute", burst=3)
    assert [server.admit(f"a{n}", [rpm]).admitted for n in range(5)] == [True, True, True, False, False]
    server.advance(999)
    assert not server.admit("b0", [rpm]).admitted
    server.advance(1)
    assert [server.admit(f"c{n}", [rpm]).admitted for n in range(2)] == [True, False]


def test_a_refusal_says_when_it_will_admit(server: LimitServer) -> None:
    """One millisecond before the time given a call is refused, at that time it is admitted."""
    tpm = limit("tpm", "tokens", 700, "minute", burst=90)
    server.admit("a", [tpm])
    refusal = server.admit("b", [tpm])
    assert (refusal.admitted, refusal.refused) == (False, tpm)
    assert refusal.retry_after_ms > 1
    server.advance(refusal.retry_after_ms - 1)
    assert not server.admit("c", [tpm]).admitted
    server.advance(1)
    assert server.admit("d", [tpm]).admitted


def test_a_rate_reserves_what_is_likely(server: LimitServer) -> None:
    """Rates take the expected input and output, not the worst case; the output is bounded by the call's own limit."""
    tpm = limit("tpm", "tokens", 10_000, "minute")
    inputs = limit("in", "inputTokens", 10_000, "minute")
    outputs = limit("out", "outputTokens", 10_000, "minute")
    reply = server.admit("a", [tpm, inputs, outputs], output_cap=None, worst_output=4096)
    assert (reply.input_estimate, reply.output_estimate) == (30, 256)
    assert server.used(tpm, inputs, outputs) == (286, 30, 256)
    assert server.admit("b", [tpm], output_cap=7, worst_output=7).output_estimate == 7
    assert server.admit("c", [tpm], output_cap=7, worst_output=7, choices=3).output_estimate == 21
    assert server.admit("d", [tpm], text_bytes=1000, input_upper=20).input_estimate == 20


def test_use_beyond_a_reservation_becomes_debt(server: LimitServer) -> None:
    """What was used beyond the reservation keeps later calls waiting until it is refilled."""
    tpm = limit("tpm", "tokens", 600, "minute")
    server.admit("a", [tpm])
    server.settle("a", [tpm], Usage(input_tokens=100, output_tokens=1100))
    assert server.used(tpm) == (1200,)
    refusal = server.admit("b", [tpm])
    assert refusal.retry_after_ms == (1200 + 80 - 600) * 100
    assert refusal.levels[0].remaining == 0


def test_an_oversized_call_needs_a_full_bucket(server: LimitServer) -> None:
    """A call larger than the burst is admitted on a full bucket only, and leaves debt."""
    tpm = limit("tpm", "outputTokens", 600, "minute", burst=40)
    assert server.admit("a", [tpm]).admitted
    assert server.used(tpm) == (50,)
    refusal = server.admit("b", [tpm])
    assert refusal.retry_after_ms == 5000
    server.advance(4999)
    assert not server.admit("c", [tpm]).admitted
    server.advance(1)
    assert server.admit("d", [tpm]).admitted


def test_unused_reservation_is_given_back(server: LimitServer) -> None:
    """Tokens that were not used are free again at once; the request stays counted."""
    limits = [limit("rpm", "requests", 10, "minute"), limit("tpm", "tokens", 1000, "minute")]
    server.admit("a", limits)
    server.settle("a", limits, Usage(input_tokens=10, output_tokens=5))
    assert server.used(*limits) == (1, 15)


def test_a_failed_call_costs_a_request_and_no_tokens(server: LimitServer) -> None:
    """Settling without usage gives all tokens back."""
    limits = [limit("rpm", "requests", 10, "minute"), limit("tpd", "tokens", 1000, "day")]
    server.admit("a", limits)
    server.settle("a", limits, None)
    assert server.used(*limits) == (1, 0)


def test_many_small_steps_refill_as_much_as_one_large(server: LimitServer) -> None:
    """Parts of a token that a short time brings are not lost when the bucket is written in between."""
    ops = limit("ops", "outputTokens", 13, "second", burst=1000)
    server.settle("a", [ops], Usage(output_tokens=900))
    for n in range(200):
        server.advance(76)
        assert server.admit(f"b{n}", [ops], output_cap=1, worst_output=1).admitted
    assert server.used(ops) == (900 + 200 - 200 * 76 * 13 // 1000,)


# Budgets


def test_a_budget_reserves_the_worst_case(server: LimitServer) -> None:
    """Budgets take the upper bound of the input and all output that may come."""
    limits = [limit("tpd", "tokens", 1000, "day"), limit("usd", "cost", 1000, "month")]
    assert server.admit("a", limits, choices=2).admitted
    assert server.used(*limits) == (100 + 2 * 50, 100 + 2 * 2 * 50)


def test_a_budget_lowers_the_output_to_what_is_left(server: LimitServer) -> None:
    """The output limit sent upstream is the rest of the budget; nothing is left then, and the next call is refused."""
    tpd = limit("tpd", "tokens", 130, "day")
    reply = server.admit("a", [tpd])
    assert (reply.admitted, reply.output_limit) == (True, 30)
    assert server.used(tpd) == (130,)
    refusal = server.admit("b", [tpd])
    assert (refusal.refused, refusal.retry_after_ms) == (tpd, DAY // 2)


def test_the_output_limit_is_of_one_choice(server: LimitServer) -> None:
    """Several choices share what is left."""
    tpd = limit("tpd", "tokens", 130, "day")
    assert server.admit("a", [tpd], choices=4).output_limit == 7
    assert server.used(tpd) == (128,)


def test_a_cost_budget_lowers_the_output(server: LimitServer) -> None:
    """What is left of the money decides how many tokens there can be, to the last nano-USD."""
    usd = limit("usd", "cost", 151, "month")
    reply = server.admit("a", [usd])
    assert reply.output_limit == 25
    assert server.used(usd) == (150,)
    assert server.admit("b", [usd]).retry_after_ms == 8 * DAY + DAY // 2


def test_a_call_without_an_output_limit_gets_one_under_a_budget(server: LimitServer) -> None:
    """What was reserved must bind the backend; without a budget of output nothing need be said."""
    tpd = limit("tpd", "tokens", 100_000, "day")
    assert server.admit("a", [tpd], output_cap=None, worst_output=4096).output_limit == 4096
    assert server.admit("b", [tpd]).output_limit is None
    rpd = limit("rpd", "requests", 100, "day")
    assert server.admit("c", [rpd], output_cap=None, worst_output=4096).output_limit is None


def test_prices_beyond_what_a_product_can_hold(server: LimitServer) -> None:
    """The price of a large call at a high price is exact, though tokens times price exceed 2^53."""
    usd = limit("usd", "cost", COUNT_MAX, "month")
    price = Price(input_nano_usd=75_000_000_001, cached_input_nano_usd=0, output_nano_usd=150_000_000_003)
    reply = server.admit("a", [usd], price=price, input_upper=1_000_001, worst_output=100_003, output_cap=None)
    assert reply.admitted
    exact = 1_000_001 * 75_000_000_001 + 100_003 * 150_000_000_003
    assert server.used(usd) == (-(-exact // 1_000_000),)


def test_use_stops_at_what_a_double_holds(server: LimitServer) -> None:
    """A use beyond 2^53 - 1 is counted as that, and refuses what comes next."""
    limits = [limit("tpd", "outputTokens", COUNT_MAX, "day"), limit("tpm", "outputTokens", COUNT_MAX, "minute")]
    for lease in ("a", "b"):
        server.settle(lease, limits, Usage(output_tokens=COUNT_MAX - 1), cost_nano=2**60)
    assert server.used(*limits) == (COUNT_MAX, COUNT_MAX)
    assert not server.admit("c", limits).admitted


def test_a_settlement_goes_to_the_window_that_was_reserved_from(server: LimitServer) -> None:
    """A call that ends after midnight corrects yesterday; today's budget is whole."""
    tpd = limit("tpd", "tokens", 1000, "day")
    server.admit("a", [tpd])
    server.admit("b", [tpd])
    server.advance(DAY // 2)
    server.settle("a", [tpd], Usage(input_tokens=100, output_tokens=500), admitted_ms=NOON_MS)
    assert server.used(tpd) == (0,)
    server.admit("c", [tpd])
    server.settle("b", [tpd], Usage(input_tokens=1), admitted_ms=NOON_MS)
    assert server.used(tpd) == (150,)
    server.advance(-DAY // 2)
    assert server.used(tpd) == (601,)


@pytest.mark.parametrize(
    ("now_ms", "turn_ms"),
    [
        (1_795_348_800_000, 1_796_083_200_000),  # November 2026
        (1_830_297_599_999, 1_830_297_600_000),  # the last millisecond of 2027
        (1_835_395_200_000, 1_835_481_600_000),  # 29 February 2028
        (4_107_456_000_000, 4_107_542_400_000),  # 28 February 2100, no leap year
        (951_782_400_000, 951_868_800_000),  # 29 February 2000, one
    ],
)
def test_months_are_those_of_the_calendar(server: LimitServer, now_ms: int, turn_ms: int) -> None:
    """A month's window turns at the first of the next month, UTC."""
    server.set_time(now_ms)
    month = limit("month", "requests", 1, "month")
    assert server.admit("a", [month]).admitted
    assert server.admit("b", [month]).retry_after_ms == turn_ms - now_ms
    server.set_time(turn_ms - 1)
    assert not server.admit("c", [month]).admitted
    server.set_time(turn_ms)
    assert server.admit("d", [month]).admitted


# Concurrency


def test_slots_are_held_to_the_end_of_the_call(server: LimitServer) -> None:
    """A slot is free again when its call was settled or voided."""
    two = limit("two", "concurrency", 2)
    assert [server.admit(name, [two]).admitted for name in "abc"] == [True, True, False]
    server.settle("a", [two], None)
    server.void("b", [two])
    assert [server.admit(name, [two]).admitted for name in "def"] == [True, True, False]


def test_a_slot_that_nobody_renews_expires(server: LimitServer) -> None:
    """After 30 s a dead replica's slots are taken over and counted."""
    one = limit("one", "concurrency", 1)
    server.admit("a", [one])
    server.advance(29_999)
    assert not server.admit("b", [one]).admitted
    server.advance(1)
    reply = server.admit("c", [one])
    assert (reply.admitted, reply.shared.expired) == (True, 1)


# All or none


def test_a_refusal_changes_nothing(server: LimitServer) -> None:
    """Where one limit refuses, no other has anything taken."""
    limits = [
        limit("rpm", "requests", 10, "minute"),
        limit("two", "concurrency", 2),
        limit("tpd", "tokens", 1000, "day"),
        limit("tiny", "requests", 1, "hour"),
    ]
    server.admit("a", limits)
    before = server.client.hgetall("lgw:1:{acme}:levels")
    refusal = server.admit("b", limits)
    assert refusal.refused == limits[3]
    assert server.client.hgetall("lgw:1:{acme}:levels") == before
    assert server.used(*limits) == (1, 1, 150, 1)
    assert server.client.exists("lgw:1:{acme}:lease:b") == 0


def test_the_longest_refusal_is_named(server: LimitServer) -> None:
    """Of several limits that refuse the one to wait longest for is named, so that the wait is enough."""
    limits = [limit("rpm", "requests", 1, "minute"), limit("rph", "requests", 1, "hour"), limit("s", "concurrency", 1)]
    server.admit("a", limits)
    refusal = server.admit("b", limits)
    assert (refusal.refused, refusal.retry_after_ms) == (limits[1], 60 * MINUTE)


def test_a_refusal_on_an_empty_server_makes_no_epoch(server: LimitServer) -> None:
    """A refusal writes nothing, so it has no epoch to tell of either."""
    assert server.admit("a", [limit("tpd", "tokens", 10, "day")]).shared.epoch == ""
    assert server.client.keys("lgw*") == []


def test_shadow_limits_report_and_refuse_nobody(server: LimitServer) -> None:
    """They are counted; a budget and slots go on beyond their amount, a rate takes only what it would have admitted."""
    shadow = {"mode": "shadow"}
    limits = [
        limit("rpm", "requests", 1, "minute", **shadow),
        limit("rpd", "requests", 1, "day", **shadow),
        limit("one", "concurrency", 1, **shadow),
        limit("tpd", "tokens", 160, "day", **shadow),
    ]
    assert server.admit("a", limits).shadowed == ()
    reply = server.admit("b", limits)
    assert (reply.admitted, set(reply.shadowed)) == (True, {bound.id for bound in limits})
    assert reply.output_limit is None
    assert server.used(*limits) == (1, 2, 2, 300)
    server.settle("b", limits, Usage(input_tokens=10))
    assert server.used(*limits) == (1, 2, 1, 160)


# Changes of the registry


def test_a_raised_amount_holds_at_once(server: LimitServer) -> None:
    """What was used is not forgotten, and the rest of the new amount is there at once."""
    server.admit("a", [limit("rpd", "requests", 1, "day"), limit("rpm", "requests", 1, "minute")])
    raised = [limit("rpd", "requests", 3, "day"), limit("rpm", "requests", 3, "minute")]
    assert [server.admit(name, raised).admitted for name in "bcd"] == [True, True, False]


def test_a_lowered_amount_holds_at_once(server: LimitServer) -> None:
    """A budget that is already exceeded refuses; a bucket is empty, not in debt for what the old amount allowed."""
    many = [limit("rpd", "requests", 10, "day"), limit("rpm", "requests", 60, "minute")]
    for n in range(5):
        server.admit(f"a{n}", many)
    few = [limit("rpd", "requests", 4, "day"), limit("rpm", "requests", 2, "minute")]
    assert server.admit("b", few[:1]).refused == few[0]
    assert server.admit("c", few[1:]).retry_after_ms == 30 * SECOND


def test_an_amount_that_goes_to_and_fro_gives_nothing_away(server: LimitServer) -> None:
    """Two replicas with different registries for a while do not refill a bucket by it."""
    big, small = limit("rpm", "requests", 60, "minute"), limit("rpm", "requests", 1, "minute")
    for n in range(60):
        assert server.admit(f"a{n}", [big]).admitted
    for n in range(5):
        server.void(f"x{n}", [small])
        assert not server.admit(f"s{n}", [small]).admitted
        server.settle(f"z{n}", [small], None, admitted_ms=server.now_ms)
        assert not server.admit(f"b{n}", [big]).admitted


# Clocks


def test_a_clock_that_goes_back_refills_nothing_twice(server: LimitServer) -> None:
    """After a failover to a server whose clock is behind, a bucket waits until that has caught up."""
    rpm = limit("rpm", "requests", 60, "minute", burst=1)
    server.admit("a", [rpm])
    server.advance(-5 * SECOND)
    assert server.admit("b", [rpm]).retry_after_ms == 6 * SECOND
    server.advance(6 * SECOND)
    assert server.admit("c", [rpm]).admitted


def test_a_clock_that_was_far_ahead_blocks_nobody_for_long(server: LimitServer) -> None:
    """A bucket timed an hour ahead is timed anew."""
    rpm = limit("rpm", "requests", 60, "minute", burst=1)
    server.advance(60 * MINUTE)
    server.admit("a", [rpm])
    server.set_time(NOON_MS)
    assert server.admit("b", [rpm]).retry_after_ms == SECOND


def test_a_clock_that_goes_back_over_midnight_finds_yesterdays_use(server: LimitServer) -> None:
    """Both windows are kept, whichever the clock says is now."""
    tpd = limit("tpd", "tokens", 1000, "day")
    server.admit("a", [tpd])
    server.advance(DAY // 2)
    server.admit("b", [tpd])
    server.admit("c", [tpd])
    server.advance(-1)
    assert server.admit("d", [tpd]).levels[0].used == 300
    server.advance(1)
    assert server.used(tpd) == (300,)
