"""Calendar windows in UTC."""

from __future__ import annotations

import datetime

import pytest

from gateway.limits.windows import window_of


def at(text: str) -> float:
    """Unix seconds of a UTC time."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("day", "2026-11-22T23:59:59.999", "2026-11-22", "2026-11-23"),
        ("day", "2026-11-22T00:00", "2026-11-22", "2026-11-23"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-01-31T12:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_windows_begin_and_end_at_midnight(per: str, now: str, start: str, end: str) -> None:
    """Of a day, and of a month whatever its length."""
    assert window_of(per, at(now)) == (at(start), at(end))
