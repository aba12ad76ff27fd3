"""Leases end once, and say what was left."""

from __future__ import annotations

import pytest

from gateway.errors import BudgetExceeded
from gateway.limits import NOTHING_USED, End, Lease
from gateway.limits.lease import AdmittedLease, CountedLease
from gateway.model import ChatRequest, Usage
from tests.unit.limits.values import admit_call, admitted, bound


def test_the_first_settlement_counts() -> None:
    """Whoever comes later changes nothing."""
    lease = Lease()
    assert not lease.is_settled
    assert lease.settle(End(usage=Usage(output_tokens=3)))
    assert not lease.settle(End(usage=Usage(output_tokens=9)))
    assert not lease.settle(NOTHING_USED)
    assert lease.settled_usage == Usage(output_tokens=3)
    assert lease.headers() == ()


def test_the_end_is_told_once() -> None:
    """To whoever counts, with how it ended."""
    told: list[End] = []
    lease = CountedLease(admit_call().kind, "chat", "ci", lambda _, end: told.append(end))
    assert lease.settle(End(status=502))
    assert not lease.settle(NOTHING_USED)
    assert told == [End(status=502)]
    assert lease.settled_usage is None


@pytest.mark.parametrize(
    ("limit", "asked", "expected"), [(None, 9, (None, 9)), (5, 9, (5, 5)), (5, 3, (5, 3)), (5, None, (5, 5))]
)
def test_a_request_is_lowered_to_the_limit_of_its_lease(
    limit: int | None, asked: int | None, expected: tuple[int | None, int | None]
) -> None:
    """Never raised; without a limit it is the same request."""
    lease = AdmittedLease(bound(), admit_call(), lambda _, __: None)
    lease.output_limit = limit
    request = lease.applied_to(ChatRequest(model="m", fields={}, max_output_tokens=asked))
    assert (request.output_limit, request.max_output_tokens) == expected


def test_what_cannot_be_told_to_say_less_needs_room_for_all() -> None:
    """Anything but a chat; what has no output always has that room, also where the limit is bounded without Redis."""
    ends: list[End] = []
    lease = AdmittedLease(bound(), admit_call(output_cap=None, worst_output=90), lambda _, end: ends.append(end))
    lease.output_limit = 89
    image = ChatRequest(model="m", fields={}, operation="images")
    with pytest.raises(BudgetExceeded):
        lease.applied_to(image)
    assert ends == [End(status=429)]
    lease.output_limit = 90
    assert lease.applied_to(image).output_limit == 90
    lease = AdmittedLease(bound(), admit_call(output_cap=0, worst_output=90), lambda _, __: None)
    lease.output_limit = 0
    assert (
        lease.applied_to(ChatRequest(model="m", fields={}, operation="embeddings", max_output_tokens=0)).output_limit
        == 0
    )


def test_an_estimate_is_of_one_answer() -> None:
    """Of a call that may take two, each is bounded by its half of what was reserved."""
    call = admit_call(input_upper=140, output_cap=None, worst_output=90, choices=4, answers=2)
    lease = AdmittedLease(bound(), call, lambda _, __: None)
    high = lease.bounded(Usage(input_tokens=1000, output_tokens=1000, estimated=True))
    assert high == Usage(input_tokens=70, output_tokens=180, estimated=True)


def test_headers_are_those_of_the_tightest_limit_of_each_unit() -> None:
    """By what is left; other units and shadow limits are not shown."""
    limits = bound(
        ("requests", "minute", 10), ("requests", "day", 100), ("tokens", "minute", 5), ("tokens", "day", 1, "shadow")
    )
    lease = AdmittedLease(limits, admit_call(), lambda _, __: None)
    assert lease.headers() == ((b"x-llm-gateway-degraded", b"limits"),)
    lease.reply = admitted((10, 7, 1500), (100, 3, 60_000), (5, 0, 999), (1, 0, 1))
    assert lease.headers() == (
        (b"x-ratelimit-limit-requests", b"100"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"1m0s"),
        (b"x-ratelimit-limit-tokens", b"5"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"999ms"),
    )


@pytest.mark.parametrize(("cap", "limit", "most"), [(None, None, 90), (30, None, 30), (200, None, 90), (30, 20, 20)])
def test_an_estimate_is_never_above_what_a_call_can_have_used(cap: int | None, limit: int | None, most: int) -> None:
    """A guess must not exceed a budget that reserved the most; what is below stays as it is."""
    call = admit_call(input_upper=70, output_cap=cap, worst_output=90, choices=2)
    lease = AdmittedLease(bound(), call, lambda _, __: None)
    lease.output_limit = limit
    high = lease.bounded(Usage(input_tokens=1000, output_tokens=1000, estimated=True))
    assert high == Usage(input_tokens=70, output_tokens=2 * most, estimated=True)
    low = Usage(input_tokens=5, output_tokens=6, estimated=True)
    assert lease.bounded(low) == low
    assert CountedLease(call.kind, "chat", "ci", lambda _, __: None).bounded(low) is low


@pytest.mark.parametrize("reset_ms", [0, 999, 1000, 61_001])
@pytest.mark.parametrize("left", [(7, 5, 9), (5, 7, 9), (-3, 5, 0), (0, 0, 2**53 - 1)])
def test_header_lines_say_what_the_header_fields_say(left: tuple[int, int, int], reset_ms: int) -> None:
    """Byte for byte; they are made another way, since every whole answer has them."""
    two = bound(("requests", "day", 10), ("requests", "minute", 8), ("tokens", "day", 2**53 - 1), ("cost", "day", 9))
    lease = AdmittedLease(two, admit_call(), lambda *_: None)
    many = (10, 8, 2**53 - 1, 9)
    lease.reply = admitted(*[(most, each, reset_ms) for most, each in zip(many, (*left, 1), strict=True)])
    lease.reply.kind = two.kind
    assert lease.header_lines() == b"".join(b"%b: %b\r\n" % field for field in lease.headers())
    assert len(lease.headers()) == 6
    lease.reply = None
    assert lease.header_lines() == b"".join(b"%b: %b\r\n" % field for field in lease.headers())
