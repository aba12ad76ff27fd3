"""How usage lies in Redis: what is written is what is read, by another release too."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from gateway.redis.ledger_format import (
    COUNTS,
    EVENT_FIELDS,
    UsageCounts,
    UsageEvent,
    UsageOf,
    day_name,
    decode_day,
    decode_event,
    encode_event,
    encode_field,
)

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
NUMBERS = st.integers(0, 2**53)
COUNT_VALUES = st.builds(
    UsageCounts,
    requests=NUMBERS,
    input_tokens=NUMBERS,
    cached_input_tokens=NUMBERS,
    output_tokens=NUMBERS,
    cost_nano_usd=NUMBERS,
    estimated_requests=NUMBERS,
)
OF = st.builds(UsageOf, key=NAMES, scenario=NAMES, backend=st.one_of(st.just(""), NAMES))
EVENT = UsageEvent(
    tenant="acme",
    stream_id="1763800000123-0",
    id="f00d",
    time_ms=1763800000123,
    key="ci",
    scenario="support-chat",
    backend="qwen",
    status=200,
    input_tokens=12,
    cached_input_tokens=3,
    output_tokens=40,
    cost_nano_usd=66_000,
    estimated=True,
)


def in_order(counts: UsageCounts) -> list[int]:
    """The numbers, in the order of COUNTS."""
    return [getattr(counts, each.name) for each in fields(UsageCounts)]


@given(st.dictionaries(OF, COUNT_VALUES, max_size=5))
def test_day_is_read_as_it_was_counted(usage: dict[UsageOf, UsageCounts]) -> None:
    """Each count comes back under its own key, scenario and backend."""
    written = {
        encode_field(of, what): str(number).encode()
        for of, counts in usage.items()
        for what, number in zip(COUNTS, in_order(counts), strict=True)
    }
    assert decode_day(written) == usage


def test_absent_counts_are_nothing_and_strange_fields_are_left_out() -> None:
    """A release that counts something more, or writes no zeros, can run beside this one."""
    written = {b"ci|chat|qwen|requests": b"2", b"ci|chat|qwen|reasoning": b"9", b"other": b"x", b"a|b|c|d|cost": b"1"}
    assert decode_day(written) == {UsageOf(key="ci", scenario="chat", backend="qwen"): UsageCounts(requests=2)}


@given(COUNT_VALUES, COUNT_VALUES)
def test_counts_add_up(one: UsageCounts, other: UsageCounts) -> None:
    """Number by number."""
    assert in_order(one + other) == [a + b for a, b in zip(in_order(one), in_order(other), strict=True)]


@given(NUMBERS, NUMBERS, st.booleans(), st.one_of(st.just(""), NAMES))
def test_event_is_read_as_it_was_written(tokens: int, cost: int, estimated: bool, backend: str) -> None:
    """With the names of its fields in the order that is agreed."""
    event = replace(EVENT, output_tokens=tokens, cost_nano_usd=cost, estimated=estimated, backend=backend)
    written = encode_event(event)
    assert tuple(written[::2]) == EVENT_FIELDS
    assert decode_event("acme", b"1763800000123-0", written) == event


def test_event_of_another_release_is_read() -> None:
    """A further field is ignored, an absent number is 0."""
    event = decode_event("acme", b"7-1", [b"id", b"f00d", b"key", b"ci", b"colour", b"red", b"input", b"5"])
    assert (event.id, event.key, event.input_tokens, event.output_tokens, event.time_ms) == ("f00d", "ci", 5, 0, 7)


@pytest.mark.parametrize("strange", [[b"input", b"many"], [b"id"]])
def test_what_is_no_event_is_refused(strange: list[bytes]) -> None:
    """Not taken for one without tokens."""
    with pytest.raises(ValueError):
        decode_event("acme", b"7-1", strange)


def test_day_in_a_key() -> None:
    """As ISO 8601 has it."""
    assert day_name(datetime.date(2026, 3, 1)) == "2026-03-01"
