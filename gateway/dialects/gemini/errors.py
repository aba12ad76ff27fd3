"""Errors of Gemini: what the caller is told, what the operator is, and how long to wait.

A 400 may be about the gateway's own account (a key that is not valid, billing, a location): that is no fault of the
caller, and its text is not the caller's to read.

Source: https://ai.google.dev/gemini-api/docs/troubleshooting, https://cloud.google.com/apis/design/errors.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from gateway.dialects.gemini.schema import Error
from gateway.dialects.openai.errors import error_body
from gateway.errors import (
    AttemptFailed,
    GatewayError,
    InvalidRequest,
    Outcome,
    Overloaded,
    UpstreamFailed,
    UpstreamTimeout,
)

_OF_THE_ACCOUNT: Final = frozenset({"FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED"})
_NAMES_ACCOUNT = re.compile(
    r"((?:projects|billingAccounts|organizations|folders)/|projects? )(?:(?<=/)[^\s/'\"`,]+|[0-9]{6,})"
)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_WAIT_S_MAX = 86_400.0
_SHOWN_CHARS_MAX = 2000


class _Body(msgspec.Struct):
    error: Error | None = None


_decode = msgspec.json.Decoder(_Body | list[_Body]).decode


def refusal_body(status: int, body: bytes) -> bytes:
    """A 400, 413, 415 or 422 in the envelope of chat.

    Raises AttemptFailed (unauthorized) where it is about the gateway's own account.
    """
    error = read_error(body)
    if error is None:
        return error_body(InvalidRequest("The model backend refused the request.", code="upstream_refused"))
    if _is_of_the_account(error):
        raise AttemptFailed("unauthorized", f"status {status}: {_shown(error)}", status=status)
    text = _NAMES_ACCOUNT.sub(r"\1-", (error.message or "")[:_SHOWN_CHARS_MAX])
    return error_body(InvalidRequest(text or "The model backend refused the request.", code="upstream_refused"))


def _is_of_the_account(error: Error) -> bool:
    reasons = [each.reason or "" for each in error.details or ()]
    return (
        error.status in _OF_THE_ACCOUNT
        or any(reason.startswith("API_KEY") for reason in reasons)
        or (error.message or "").startswith("API key")
    )


def retry_after_s(body: bytes) -> float | None:
    """``RetryInfo.retryDelay`` in seconds; None where there is none."""
    error = read_error(body)
    for detail in (error.details or ()) if error is not None else ():
        found = _DURATION.fullmatch(detail.retry_delay or "")
        if found is not None:
            return min(float(found[1]), _WAIT_S_MAX)
    return None


def read_error(body: bytes) -> Error | None:
    """The error in a body, alone or as the first of a list, as some paths answer; None where there is none."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    first = (found[0] if found else None) if isinstance(found, list) else found
    return None if first is None else first.error


def failure_of(error: Error) -> AttemptFailed:
    """An error where an answer should be, before anything was said."""
    code = error.code or 0
    outcome: Outcome = "error_in_body"
    if code == 429:
        outcome = "rate_limited"
    elif code in (401, 403):
        outcome = "unauthorized"
    return AttemptFailed(outcome, f"an error for an answer: {_shown(error)}", status=code or None)


def public_error(error: Error) -> GatewayError:
    """What the caller is told of an error within a stream."""
    code = error.code or 0
    if code in (429, 503):
        return Overloaded("The model is overloaded. Please try again later.", detail=_shown(error))
    if code == 504:
        return UpstreamTimeout("The model backend did not answer in time.", detail=_shown(error))
    return UpstreamFailed("The model backend failed to answer.", detail=_shown(error))


def _shown(error: Error) -> str:
    """For operators: its kind alone, since its text may quote the request."""
    return f"{error.code or ''} {(error.status or '')[:64]}".strip()
