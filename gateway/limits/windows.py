"""Calendar windows of budgets, in UTC; pure."""

from __future__ import annotations

import datetime
from typing import Final, Literal

from gateway.model import Limit

RATE_PERIODS_S: Final = {"second": 1, "minute": 60, "hour": 3600}
"""Seconds of a rate's period."""

Per = Literal["day", "month"]


def is_budget(limit: Limit) -> bool:
    """Whether a limit counts in calendar windows."""
    return limit.per in {"day", "month"}


def window_of(per: str, now_s: float) -> tuple[float, float]:
    """Start and end, Unix seconds, of the day or month that ``now_s`` lies in."""
    at = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        end = start + datetime.timedelta(days=1)
    else:
        start = start.replace(day=1)
        end = (start + datetime.timedelta(days=32)).replace(day=1)
    return start.timestamp(), end.timestamp()
