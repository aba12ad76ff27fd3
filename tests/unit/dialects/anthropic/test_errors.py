"""Errors and header fields of Anthropic's dialect."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from gateway import errors
from gateway.dialects.anthropic.errors import AnthropicErrors, kind_of
from gateway.errors import GatewayError, InvalidRequest, Overloaded, RateLimited

NOW = 1_764_230_400.5  # 2025-11-27T08:00:00.5Z
TOLD = AnthropicErrors("r-1", lambda: NOW)


def test_an_error() -> None:
    """Its public text, what programs go by, and the id of the request; as a body or as an event."""
    error = InvalidRequest("No `x`.", code="missing_field", param="x", detail="secret")
    body = TOLD.error_body(error)
    assert json.loads(body) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "No `x`.",
            "details": {"error_code": "missing_field", "param": "x"},
        },
        "request_id": "r-1",
    }
    assert TOLD.error_event(error) == b"event: error\ndata: " + body + b"\n\n"


def test_every_error_has_a_type_of_the_dialect() -> None:
    """And of them only overload has another status than in the table of the contract."""
    known = {
        "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
        "rate_limit_error", "api_error", "overloaded_error", "timeout_error", "conflict_error",
    }  # fmt: skip
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GatewayError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert kind_of(kind.status) in known
        error = kind.__new__(kind)
        assert TOLD.status(error) == (529 if kind.status == HTTPStatus.SERVICE_UNAVAILABLE else kind.status)
    assert kind_of(TOLD.status(Overloaded("full"))) == "overloaded_error"
    assert kind_of(RateLimited.status) == "rate_limit_error"


@pytest.mark.parametrize(
    ("duration", "moment"),
    [
        (b"0ms", b"2025-11-27T08:00:01Z"),
        (b"500ms", b"2025-11-27T08:00:01Z"),
        (b"501ms", b"2025-11-27T08:00:02Z"),
        (b"1.5s", b"2025-11-27T08:00:02Z"),
        (b"6m0s", b"2025-11-27T08:06:01Z"),
        (b"25h1m2.25s", b"2025-11-28T09:01:03Z"),
    ],
)
def test_levels_of_limits(duration: bytes, moment: bytes) -> None:
    """Under Anthropic's names, with the time at which a limit is whole again; other fields stay."""
    fields = [
        (b"content-type", b"application/json"),
        (b"x-ratelimit-limit-tokens", b"10"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", duration),
        (b"retry-after", b"7"),
    ]
    assert TOLD.header_fields(fields) == [
        (b"content-type", b"application/json"),
        (b"anthropic-ratelimit-tokens-limit", b"10"),
        (b"anthropic-ratelimit-requests-remaining", b"3"),
        (b"anthropic-ratelimit-requests-reset", moment),
        (b"retry-after", b"7"),
        (b"request-id", b"r-1"),
    ]
