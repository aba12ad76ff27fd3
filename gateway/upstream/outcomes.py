"""What a backend's refusal means: the outcome of an attempt, and what the caller is told when none is left. Pure.

The rules are those of docs/adr/0002.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from gateway.clock import wall
from gateway.errors import (
    TIMEOUT_OUTCOMES,
    AttemptFailed,
    GatewayError,
    NoBackend,
    Outcome,
    Overloaded,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.model import Plan
from gateway.upstream.source import Source

_MAX_RETRY_AFTER_S = 86_400.0
_BUSY_RETRY_AFTER_S = 1.0
_OVERLOADED_STATUSES = frozenset({503, 529})  # 529: Anthropic's, https://docs.anthropic.com/en/api/errors
_OVERLOADED: frozenset[Outcome] = frozenset({"busy", "rate_limited"})


def failure_of_status(status: int, retry_after_s: float | None) -> AttemptFailed:
    """Which failure a status is that must not reach the caller.

    401, 403, 404 and the like mean that our configuration of the backend is wrong, which is no fault of the caller.
    """
    outcome: Outcome
    if status == 429:
        outcome = "rate_limited"
    elif status >= 500 or status == 408:
        outcome = "server_error"
    elif status < 300:
        outcome = "protocol_error"
    elif status in {401, 403}:
        outcome = "unauthorized"
    else:
        outcome = "misconfigured"
    return AttemptFailed(outcome, f"status {status}", status=status, retry_after_s=retry_after_s)


def failure_of_answer(source: Source) -> AttemptFailed:
    """Which failure an answer is by its status and headers.

    A 503 that is not JSON is no model server's: a proxy (a service mesh, an ingress) has nobody to pass the request to.
    """
    failure = failure_of_status(source.status, retry_after_s(source))
    content_type = header(source, b"content-type").lower()
    failure.not_ready = source.status == 503 and not content_type.startswith(b"application/json")
    return failure


def header(source: Source, name: bytes) -> bytes:
    """The value of a header field by its lower-case name; empty where it is absent."""
    for key, value in source.headers:
        if key == name:
            return value.strip()
    return b""


def retry_after_s(source: Source) -> float | None:
    """``Retry-After`` in seconds, given as a number or a date (RFC 9110, 10.2.3); None where absent or senseless.

    ``retry-after-ms`` is more exact where it is there
    (https://learn.microsoft.com/azure/ai-foundry/openai/how-to/provisioned-get-started#handling-high-utilization).
    """
    ms = header(source, b"retry-after-ms")
    if ms.isdigit() and len(ms) < 10:
        return min(int(ms) / 1000, _MAX_RETRY_AFTER_S)
    text = header(source, b"retry-after").decode("latin-1")
    if not text:
        return None
    try:
        seconds = float(text) if text.isdecimal() else _timestamp(text) - wall()
    except (ValueError, OverflowError, TypeError):  # what the library raises for dates beyond its own
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _timestamp(text: str) -> float:
    date = parsedate_to_datetime(text)
    return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()


def exhausted(plan: Plan, failures: Sequence[AttemptFailed]) -> GatewayError:
    """What the caller is told when nothing is left to try; the reasons go to the operator."""
    if not failures:
        return NoBackend(
            "No model backend is available for this model.",
            detail=", ".join(f"{name}: {reason}" for name, reason in plan.dropped),
            retry_after_s=_BUSY_RETRY_AFTER_S,
        )
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    wait_s = min(waits, default=None)
    last = next((failure for failure in reversed(failures) if failure.outcome != "busy"), failures[-1])
    detail = last.detail
    if last.outcome in _OVERLOADED or last.status in _OVERLOADED_STATUSES:
        wait_s = _BUSY_RETRY_AFTER_S if wait_s is None else wait_s
        return Overloaded("The model is overloaded. Please try again later.", detail=detail, retry_after_s=wait_s)
    if last.outcome in TIMEOUT_OUTCOMES:
        return UpstreamTimeout("The model backend did not answer in time.", detail=detail, retry_after_s=wait_s)
    return UpstreamFailed("The model backend failed to answer.", detail=detail, retry_after_s=wait_s)
