"""Everything that can go wrong, as one tree.

    GatewayError                 what a caller is told: status, type, code, text, param, retry-after
      InvalidRequest             400 invalid_request_error
      AuthenticationFailed       401 authentication_error
      AdminTokenRefused          401 authentication_error
      ReadOnlyToken              403 permission_error
      ModelNotFound, NotFound    404 invalid_request_error
      MethodNotAllowed           405 invalid_request_error
      RequestTimeout             408 invalid_request_error
      Conflict                   409 invalid_request_error
      RequestTooLarge            413 invalid_request_error
      RateLimited                429 rate_limit_error
      BudgetExceeded             429 insufficient_quota
      HeadersTooLarge            431 invalid_request_error
      Overloaded, NoBackend      503 overloaded_error
      LimitsUnavailable          503 overloaded_error
      StoreUnavailable           503 overloaded_error
      UsageUnavailable           503 overloaded_error
      UpstreamFailed             502 upstream_error
      UpstreamTimeout            504 upstream_error
      InternalError              500 api_error
    AttemptFailed                one attempt at one backend failed; the plan decides what comes next
    RegistryInvalid              a registry that may not be started from, with every problem found
    SettingsInvalid              settings that may not be started from
    RedisFailure                 a command to Redis has no answer that counts; whoever sent it decides what then
      RedisUnavailable           certainly not executed: never written, or turned away by the server untouched
      RedisUnanswered            written, and perhaps executed
      RedisRefused               the server answered with an error
    KubernetesFailure            a request to the Kubernetes API has no answer that counts

Each GatewayError carries a public text (the tenant reads it) and an operator text (the log reads it). Only the
public text ever leaves the data port. Nothing here knows of HTTP libraries or of a dialect's envelope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Problem

Outcome = Literal[
    "ok",
    "connect_error",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
    "reset",
    "protocol_error",
    "rate_limited",
    "server_error",
    "error_in_body",
    "unauthorized",
    "misconfigured",
    "refused",
    "busy",
    "cancelled",
]
"""How an attempt at a backend ended; also the label ``outcome`` of ``llm_gateway_upstream_attempts_total``."""

BACKEND_FAULTS: frozenset[Outcome] = frozenset(get_args(Outcome)) - {
    "ok", "refused", "rate_limited", "busy", "cancelled",
}  # fmt: skip
"""Outcomes by which a backend is seen to be down or set up wrong; ``ok`` and ``refused`` show that it works."""

TIMEOUT_OUTCOMES: frozenset[Outcome] = frozenset(
    {"connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout"}
)


class GatewayError(Exception):
    """A refusal or failure as the caller sees it.

    ``message`` is public. ``detail`` is for the operator's log and must never be sent to a tenant. ``retry_after_s``
    is a number of seconds (>= 0) for the ``retry-after`` header (RFC 9110, section 10.2.3). ``headers`` are further
    fields of the answer.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "api_error"
    code: str = "internal_error"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        detail: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.param = param
        self.detail = detail
        self.retry_after_s = retry_after_s


class InvalidRequest(GatewayError):
    """The request itself is wrong; ``param`` names the field."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_value"


class AuthenticationFailed(GatewayError):
    """Missing, unknown, expired or disabled credential: one text for all, the reason only in ``detail``."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"

    def __init__(self, detail: str) -> None:
        super().__init__("Incorrect API key provided.", detail=detail)


class AdminTokenRefused(GatewayError):
    """Missing or wrong token of the admin API."""

    status = 401
    kind = "authentication_error"
    code = "invalid_admin_token"


class ReadOnlyToken(GatewayError):
    """The token of the admin API that may look and not change."""

    status = 403
    kind = "permission_error"
    code = "read_only_token"


class Conflict(GatewayError):
    """An operator's change that does not fit what is there."""

    status = 409
    kind = "invalid_request_error"
    code = "conflict"


class ModelNotFound(GatewayError):
    """No such scenario, or not for this caller: the same answer for both."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        shown = model if len(model) <= 128 else model[:125] + "..."
        super().__init__(f"The model `{shown}` does not exist or you do not have access to it.", param="model")


class NotFound(GatewayError):
    """No such path on this port."""

    status = 404
    kind = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowed(GatewayError):
    """The path exists, the method does not; ``allow`` lists those that do (RFC 9110, section 15.5.6)."""

    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str = "") -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(GatewayError):
    """The client took too long to send its body."""

    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"


class RequestTooLarge(GatewayError):
    """The body is larger than the configured bound."""

    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"


class HeadersTooLarge(GatewayError):
    """The request line and header fields are larger or more than the configured bounds (RFC 6585, section 5)."""

    status = 431
    kind = "invalid_request_error"
    code = "request_headers_too_large"


class Overloaded(GatewayError):
    """No planned backend has room just now."""

    status = 503
    kind = "overloaded_error"
    code = "overloaded"


class RateLimited(GatewayError):
    """A rate or the number of calls at once is used up; ``retry_after_s`` is when it will have room again."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetExceeded(GatewayError):
    """A day's or month's budget is used up; ``retry_after_s`` is the turn of its window."""

    status = 429
    kind = "insufficient_quota"
    code = "budget_exceeded"


class LimitsUnavailable(GatewayError):
    """A limit cannot be checked just now, and is one that closes then."""

    status = 503
    kind = "overloaded_error"
    code = "limits_unavailable"


class UsageUnavailable(GatewayError):
    """The usage ledger cannot be read just now, or there is none."""

    status = 503
    kind = "overloaded_error"
    code = "usage_unavailable"


class StoreUnavailable(GatewayError):
    """The admin API cannot reach what holds the state that it was asked about."""

    status = 503
    kind = "overloaded_error"
    code = "store_unavailable"


class NoBackend(GatewayError):
    """The scenario has no backend that could be tried."""

    status = 503
    kind = "overloaded_error"
    code = "no_backend"


class UpstreamFailed(GatewayError):
    """Every planned attempt failed."""

    status = 502
    kind = "upstream_error"
    code = "upstream_failed"


class UpstreamTimeout(GatewayError):
    """The last planned attempt ran out of time."""

    status = 504
    kind = "upstream_error"
    code = "upstream_timeout"


class InternalError(GatewayError):
    """A fault of the gateway itself; the public text says nothing else."""

    def __init__(self, detail: str) -> None:
        super().__init__("The gateway failed to handle the request.", detail=detail)


class AttemptFailed(Exception):
    """One attempt at a backend failed.

    ``detail`` is for operators. ``retry_after_s`` is what the backend asked for, in seconds. ``status`` is the
    backend's HTTP status where it gave one. ``is_final`` forbids a further attempt: the backend had begun its answer,
    or the time for the whole call is over. ``not_ready`` says that no endpoint of the backend took the request, so that
    no model has seen it.
    """

    not_ready = False

    def __init__(
        self,
        outcome: Outcome,
        detail: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.outcome: Outcome = outcome
        self.detail = detail
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_final = outcome == "total_timeout"


class RegistryInvalid(Exception):
    """The registry has problems and somebody is watching; ``problems`` lists every one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem(s) in the registry")
        self.problems = tuple(problems)


class SettingsInvalid(Exception):
    """A setting has a wrong value; the text names the setting and what was expected, one line each."""


class RedisFailure(Exception):
    """A command to Redis has no answer that counts; the text is for operators and holds no argument of the command."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class RedisUnavailable(RedisFailure):
    """Certainly not executed: the breaker is open, it was never written, or the server turned it away untouched.

    The last is what a server says that is full (OOM), loads its data, is only a replica or wants authentication.
    """


class RedisUnanswered(RedisFailure):
    """Written, and no answer within the deadline or before the connection was lost: perhaps executed, now or later."""


class RedisRefused(RedisFailure):
    """The server answered with an error; ``text`` is what it said."""


class KubernetesFailure(Exception):
    """A request to the Kubernetes API has no answer that counts; the text is for operators and holds no credential.

    ``status`` is the HTTP status where there was an answer, ``reason`` the word of the API server for it, such as
    ``AlreadyExists``, ``retry_after_s`` what it asked for in seconds. ``silent``: it said nothing for too long.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        reason: str = "",
        retry_after_s: float | None = None,
        silent: bool = False,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.silent = silent
