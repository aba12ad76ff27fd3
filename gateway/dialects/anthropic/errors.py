"""Errors, and the names of header fields, as callers of the Anthropic API know them; pure.

    {"type": "error", "error": {"type", "message", "details": {"error_code", "param"}}, "request_id"}

Invariant: what is told of an error is its public text, and nothing else of it.

Source: https://docs.anthropic.com/en/api/errors, https://docs.anthropic.com/en/api/rate-limits#response-headers
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.errors import GatewayError

OVERLOADED: Final = 529
"""Anthropic's status of ``overloaded_error``: its clients know a refusal to be retried by it."""

KINDS: Final = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        409: "conflict_error",
        413: "request_too_large",
        429: "rate_limit_error",
        500: "api_error",
        502: "api_error",
        503: "overloaded_error",
        504: "timeout_error",
        OVERLOADED: "overloaded_error",
    }
)
"""The type of an error by its status; of another status, that of 400 or of 500."""

_LEVEL = re.compile(rb"x-ratelimit-(limit|remaining|reset)-(requests|tokens)").fullmatch
_DURATION = re.compile(rb"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?").fullmatch


class Details(msgspec.Struct, omit_defaults=True):
    """What programs go by: the error in one word, and the field that is at fault."""

    error_code: str | None = None
    param: str | None = None


class Detail(msgspec.Struct, omit_defaults=True):
    """What went wrong."""

    type: str
    message: str
    details: Details | None = None


class Envelope(msgspec.Struct, omit_defaults=True, tag_field="type", tag="error"):
    """The body of an error, or the data of the event that tells of one."""

    error: Detail
    request_id: str | None = None


_encode = msgspec.json.Encoder().encode


def kind_of(status: int) -> str:
    """The type of an error of this status."""
    return KINDS.get(status) or KINDS[500 if status >= 500 else 400]


def error_told(error: GatewayError, request_id: str | None = None) -> bytes:
    """The JSON that tells a caller of ``error``."""
    details = Details(error.code, error.param)
    return _encode(Envelope(Detail(kind_of(error.status), error.message, details), request_id))


def as_event(told: bytes) -> bytes:
    """An error as the last event of a stream."""
    return b"event: error\ndata: " + told + b"\n\n"


class AnthropicErrors:
    """The errors of one request; see ``ErrorDialect``. ``wall`` tells the time, in Unix seconds."""

    def __init__(self, request_id: str, wall: Callable[[], float]) -> None:
        self.request_id = request_id
        self._wall = wall

    def status(self, error: GatewayError) -> int:
        """See ErrorDialect."""
        return OVERLOADED if error.status == 503 else error.status

    def error_body(self, error: GatewayError) -> bytes:
        """See ErrorDialect."""
        return error_told(error, self.request_id)

    def error_event(self, error: GatewayError) -> bytes:
        """See ErrorDialect."""
        return as_event(error_told(error, self.request_id))

    def header_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields with the levels of limits under Anthropic's names, and the id of the request."""
        told = [self._told(name, value) for name, value in fields]
        told.append((b"request-id", self.request_id.encode()))
        return told

    def _told(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        level = _LEVEL(name)
        if level is None:
            return name, value
        what, unit = level[1], level[2]
        return b"anthropic-ratelimit-%b-%b" % (unit, what), self._moment(value) if what == b"reset" else value

    def _moment(self, duration: bytes) -> bytes:
        """When it is over, in RFC 3339, rounded up to the second."""
        parts = _DURATION(duration)
        hours, minutes, seconds, milliseconds = parts.groups() if parts is not None else (None,) * 4
        whole_s = int(hours or 0) * 3600 + int(minutes or 0) * 60
        until = -(-(self._wall() + whole_s + float(seconds or 0) + int(milliseconds or 0) / 1000) // 1)
        return datetime.datetime.fromtimestamp(until, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
