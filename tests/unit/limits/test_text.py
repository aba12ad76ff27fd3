"""What a caller reads: durations, headers, refusals."""

from __future__ import annotations

import pytest

from gateway.errors import BudgetExceeded, RateLimited
from gateway.limits.text import duration, refusal, unavailable
from gateway.model import Limit
from tests.unit.limits.values import a_limit


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (120, "120ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (3_600_000, "1h0m0s"),
        (90_061_010, "25h1m1.01s"),
    ],
)
def test_durations_are_written_as_clients_know_them(milliseconds: int, text: str) -> None:
    """With units, without what is zero in front."""
    assert duration(milliseconds) == text


@pytest.mark.parametrize(
    ("limit", "kind", "words"),
    [
        (a_limit("requests", "minute", 60), RateLimited, "60 requests per minute"),
        (a_limit("inputTokens", "second", 9), RateLimited, "9 input tokens per second"),
        (a_limit("concurrency", None, 3), RateLimited, "3 concurrent requests"),
        (a_limit("cost", "month", 10**9), BudgetExceeded, "cost per month"),
        (a_limit("requests", "day", 5), BudgetExceeded, "requests per day"),
    ],
)
def test_a_refusal_names_the_limit(limit: Limit, kind: type[Exception], words: str) -> None:
    """A rate and a budget are different errors; money is not told."""
    error = refusal(limit, 7.2, ((b"a", b"b"),))
    assert error.detail == f"limit {limit.name}"
    assert isinstance(error, kind)
    assert words in error.message
    assert "1000000000" not in error.message
    assert (error.retry_after_s, error.headers) == (7.2, ((b"a", b"b"),))


def test_a_closed_limit_tells_the_caller_nothing_of_redis() -> None:
    """The operator reads which limit it was."""
    error = unavailable(a_limit("requests", "day", 5))
    assert "Redis" not in error.message
    assert "requests-day" in (error.detail or "")
    assert error.headers == ((b"x-llm-gateway-degraded", b"limits"),)
