"""What a finished request says of its variant."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.rollout.evidence import first_token_s, observe
from tests.unit.rollout.values import canary, record

STREAM: dict[str, Any] = {"stream": True, "started_at": 10.0, "finished_at": 20.0}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"status": 200}, {"requests"}),
        ({"status": 400}, {"requests"}),
        ({"status": 502}, {"requests", "failures"}),
        ({"status": 504, "stream_end_reason": "idle_timeout"}, {"requests", "failures"}),
        ({"status": 500, "error_code": "internal_error"}, {"requests", "failures"}),
        ({"status": 503, "error_code": "no_backend", "attempts": []}, {"requests", "failures"}),
        ({"status": 499}, set()),
        ({"status": 503, "error_code": "limits_unavailable", "attempts": []}, set()),
        ({"status": 429, "error_code": "rate_limit_exceeded", "attempts": []}, set()),
        ({"status": 200, "attempts": []}, set()),
        ({"status": 503, "error_code": "shutting_down"}, set()),
        (STREAM | {"status": 200, "first_token_at": 10.06}, {"requests", "streams", "h6"}),
        (STREAM | {"status": 200, "first_token_at": 11.5}, {"requests", "streams", "slow", "h12"}),
        (STREAM | {"status": 499, "first_token_at": 10.0}, {"streams", "h0"}),
        (STREAM | {"status": 499}, {"streams", "slow", "h15"}),
        (STREAM | {"status": 499, "finished_at": 10.9}, set()),
        (STREAM | {"status": 504}, {"requests", "failures"}),
    ],
)
def test_what_counts(fields: dict[str, Any], names: set[str]) -> None:
    """Failures are those of the metrics; what never reached a backend, or was cut by our own end, says nothing."""
    assert set(observe(canary(), record(**fields))) == names


def test_the_base_is_counted_apart() -> None:
    """Its counts are shown and never judged."""
    assert observe(canary(), record(502, variant="base")) == ("base.requests", "base.failures")


def test_without_a_bound_nothing_is_slow() -> None:
    """A client that left before the first token then says nothing."""
    free = canary(abort=None)
    assert observe(free, record(**STREAM, first_token_at=19.0)) == ("requests", "streams", "h15")
    assert observe(free, record(499, **STREAM)) == ()


def test_the_percentile_is_that_of_its_bucket() -> None:
    """The bound of the bucket; None without any first token, or beyond the last bound."""
    assert first_token_s({"h6": 95, "h12": 5, "requests": 100}, 0.95) == 0.08
    assert first_token_s({"h6": 94, "h12": 6}, 0.95) == 2.5
    assert first_token_s({"requests": 3}, 0.95) is None
    assert first_token_s({"h19": 1}, 0.95) is None
