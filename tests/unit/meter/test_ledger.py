"""Sums over the ledger, and amounts of money as text."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.meter.ledger import Days, grouped, total, usd
from gateway.redis.ledger_format import UsageCounts, UsageOf

MONDAY, TUESDAY = datetime.date(2026, 11, 23), datetime.date(2026, 11, 24)


def of(key: str, scenario: str, backend: str) -> UsageOf:
    """Whose."""
    return UsageOf(key=key, scenario=scenario, backend=backend)


DAYS: Days = {
    TUESDAY: {of("ci", "chat", "qwen"): UsageCounts(requests=1)},
    MONDAY: {
        of("ci", "chat", "qwen"): UsageCounts(requests=2, output_tokens=20),
        of("ci", "chat", "gpt"): UsageCounts(requests=4, output_tokens=40),
        of("app", "chat", "gpt"): UsageCounts(requests=8),
    },
}


def test_usage_is_summed_by_what_is_asked_for() -> None:
    """Sorted by it; what is not asked for falls together."""
    assert list(grouped(DAYS, lambda day, _: (day.isoformat(),)).items()) == [
        (("2026-11-23",), UsageCounts(requests=14, output_tokens=60)),
        (("2026-11-24",), UsageCounts(requests=1)),
    ]
    by_key = grouped(DAYS, lambda _, whose: (whose.key, whose.scenario))
    assert {name: counts.requests for name, counts in by_key.items()} == {("app", "chat"): 8, ("ci", "chat"): 7}


def test_total_is_over_all() -> None:
    """And nothing for nothing."""
    assert total(grouped(DAYS, lambda _, whose: (whose.key,))).requests == 15
    assert total({}) == UsageCounts()


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0"), (1, "0.000000001"), (1_000_000_000, "1"), (100_000_000_000, "100"), (12_340_000_000, "12.34")],
)
def test_money_is_written_without_needless_zeros(nano: int, text: str) -> None:
    """The zeros before the point stay."""
    assert usd(nano) == text


@given(st.integers(0, 2**63))
def test_money_is_exact(nano: int) -> None:
    """No float is involved."""
    assert Decimal(usd(nano)) * 10**9 == nano
