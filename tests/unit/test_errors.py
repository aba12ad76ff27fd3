"""The tree of errors: the contract's status table, and no detail in what a caller reads."""

from __future__ import annotations

import pytest

from gateway import errors
from gateway.errors import AttemptFailed, AuthenticationFailed, GatewayError, ModelNotFound, RegistryInvalid
from gateway.model import Problem

TABLE = {
    "InvalidRequest": (400, "invalid_request_error", "invalid_value"),
    "AuthenticationFailed": (401, "authentication_error", "invalid_api_key"),
    "AdminTokenRefused": (401, "authentication_error", "invalid_admin_token"),
    "ReadOnlyToken": (403, "permission_error", "read_only_token"),
    "Conflict": (409, "invalid_request_error", "conflict"),
    "StoreUnavailable": (503, "overloaded_error", "store_unavailable"),
    "ModelNotFound": (404, "invalid_request_error", "model_not_found"),
    "NotFound": (404, "invalid_request_error", "unknown_url"),
    "MethodNotAllowed": (405, "invalid_request_error", "method_not_allowed"),
    "RequestTimeout": (408, "invalid_request_error", "request_timeout"),
    "RequestTooLarge": (413, "invalid_request_error", "request_too_large"),
    "HeadersTooLarge": (431, "invalid_request_error", "request_headers_too_large"),
    "RateLimited": (429, "rate_limit_error", "rate_limit_exceeded"),
    "BudgetExceeded": (429, "insufficient_quota", "budget_exceeded"),
    "LimitsUnavailable": (503, "overloaded_error", "limits_unavailable"),
    "UsageUnavailable": (503, "overloaded_error", "usage_unavailable"),
    "InternalError": (500, "api_error", "internal_error"),
    "UpstreamFailed": (502, "upstream_error", "upstream_failed"),
    "Overloaded": (503, "overloaded_error", "overloaded"),
    "NoBackend": (503, "overloaded_error", "no_backend"),
    "UpstreamTimeout": (504, "upstream_error", "upstream_timeout"),
}


@pytest.mark.parametrize("kind", GatewayError.__subclasses__(), ids=lambda kind: str(kind.__name__))
def test_every_error_has_its_line_in_the_table(kind: type[GatewayError]) -> None:
    """Status, type and code are a contract; a new error needs a line here."""
    assert (kind.status, kind.kind, kind.code) == TABLE[kind.__name__]


def test_the_module_docstring_draws_the_whole_tree() -> None:
    """The tree at the top of the module names every error."""
    assert errors.__doc__ is not None
    assert [name for name in TABLE if name not in errors.__doc__] == []


def test_a_refused_key_says_nothing_of_why() -> None:
    """One text for every reason; the reason is the operator's."""
    one, other = AuthenticationFailed("expired key x"), AuthenticationFailed("unknown key")
    assert one.message == other.message
    assert "expired" not in str(one)
    assert one.detail == "expired key x"


def test_an_unknown_model_is_shown_shortened() -> None:
    """A caller's own text is repeated up to a bound."""
    assert "`" + "m" * 128 + "`" in ModelNotFound("m" * 128).message
    assert len(ModelNotFound("m" * 10_000).message) < 300


def test_only_the_total_timeout_is_final_by_itself() -> None:
    """After it no time is left for another attempt; every other failure may be followed by one."""
    assert AttemptFailed("total_timeout", "").is_final
    assert not AttemptFailed("reset", "").is_final


def test_a_refused_registry_keeps_every_problem() -> None:
    """The text counts them, the value lists them, each readable on one line."""
    problem = Problem(source="a.yaml", object="Backend/x", field="spec.url", reason="is missing")
    found = RegistryInvalid([problem, Problem(source="", object="", field="", reason="empty")])
    assert str(found) == "2 problem(s) in the registry"
    assert str(found.problems[0]) == "a.yaml Backend/x: spec.url: is missing"
