"""What a backend of Anthropic's says went wrong, told to callers of chat completions; pure.

Invariant: what concerns the operator's account (credit, usage limits, the organization) reaches no caller, whatever
status it comes with: it fails the attempt.

Source: https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.dialects.anthropic import schema
from gateway.dialects.openai.errors import error_body
from gateway.errors import (
    AttemptFailed,
    GatewayError,
    InvalidRequest,
    Overloaded,
    RequestTooLarge,
    UpstreamFailed,
    UpstreamTimeout,
)

OVERLOADED_STATUS: Final = 529

_OF_THE_CALLER: Final = frozenset({"invalid_request_error", "request_too_large", ""})
_of_the_account = re.compile(
    r"credit balance|usage limits?\b|spend(ing)? limit|billing|your (organization|workspace|account|plan|api key)"
    r"|this (organization|workspace|account)",
    re.IGNORECASE,
).search
_place = re.compile(r"([a-z_]+)(?:\.[A-Za-z0-9_.]+)?(?::| )").match
_CHAT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "messages": "messages",
        "system": "messages",
        "model": "model",
        "max_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop_sequences": "stop",
        "tools": "tools",
        "tool_choice": "tool_choice",
        "thinking": "reasoning_effort",
        "output_config": "response_format",
        "metadata": "user",
        "cache_control": "cache_control",
    }
)
"""The field of a chat request by that of a Messages request."""

_SHOWN_CHARS_MAX: Final = 2_000


def check_refusal(status: int, body: bytes) -> schema.ErrorDetail:
    """What a refusal says that is the caller's to know. Raises AttemptFailed where it is not."""
    try:
        detail = schema.decode_error(body).error
    except (msgspec.DecodeError, RecursionError):  # of a proxy, perhaps: its text is not for callers
        return schema.ErrorDetail()
    if detail.type not in _OF_THE_CALLER or is_of_the_account(detail):
        text = f"status {status}, {detail.type[:64]}: {detail.message[:_SHOWN_CHARS_MAX]}"
        raise AttemptFailed("misconfigured", text, status=status)
    return detail


def is_of_the_account(detail: schema.ErrorDetail) -> bool:
    """Whether an error speaks of the operator's account."""
    return _of_the_account(detail.message) is not None


def refusal_of(status: int, body: bytes) -> bytes:
    """A refusal (400, 413, 415, 422) as an error of a chat. Raises AttemptFailed where it is not the caller's fault."""
    detail = check_refusal(status, body)
    return error_body(error_of(status, detail))


def error_of(status: int, detail: schema.ErrorDetail) -> GatewayError:
    """A refusal as an error of the gateway's."""
    text = detail.message[:_SHOWN_CHARS_MAX] or "The model backend refused the request."
    if status == RequestTooLarge.status:
        return RequestTooLarge(text)
    return InvalidRequest(text, code=_code(text), param=_param(text))


def _code(text: str) -> str:
    """As OpenAI names the one error that clients look for."""
    return "context_length_exceeded" if text.startswith("prompt is too long") else "upstream_refused"


def _param(text: str) -> str | None:
    """The field that a text begins with, as in ``messages.0.content: ...``."""
    found = _place(text)
    return None if found is None else _CHAT_NAMES.get(found.group(1))


def public_error(kind: str) -> GatewayError:
    """What a caller is told of an error in a stream, by its type."""
    if kind in {"overloaded_error", "rate_limit_error"}:
        return Overloaded("The model is overloaded. Please try again later.")
    if kind == "timeout_error":
        return UpstreamTimeout("The model backend stopped answering.")
    return UpstreamFailed("The model backend broke off its answer.")


def failure_of_first(detail: schema.ErrorDetail) -> AttemptFailed:
    """The failure of an attempt whose stream began with an error."""
    text = f"a stream whose first event is an error: {detail.type[:64]}: {detail.message[:_SHOWN_CHARS_MAX]}"
    if detail.type == "rate_limit_error":
        return AttemptFailed("rate_limited", text)
    status = OVERLOADED_STATUS if detail.type == "overloaded_error" else None
    return AttemptFailed("error_in_body", text, status=status)
