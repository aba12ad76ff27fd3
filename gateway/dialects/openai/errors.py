"""Errors in the envelope of the OpenAI API: ``{"error": {"message", "type", "param", "code"}}``.

Source: https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.errors import GatewayError


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class _Envelope(msgspec.Struct):
    error: _Error


_encode = msgspec.json.Encoder().encode


def error_body(error: GatewayError) -> bytes:
    """The JSON body that tells a caller of ``error``; holds its public text only."""
    return _encode(_Envelope(_Error(error.message, error.kind, error.param, error.code)))


def error_event(error: GatewayError) -> bytes:
    """The same as one server-sent event: how an error is told after a stream has begun."""
    return b"data: " + error_body(error) + b"\n\n"


class OpenAIErrors:
    """Both, as an ``ErrorDialect``: statuses, and names of header fields, are as they are."""

    error_body = staticmethod(error_body)
    error_event = staticmethod(error_event)

    @staticmethod
    def status(error: GatewayError) -> int:
        """The status as it is."""
        return error.status

    @staticmethod
    def header_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields as they are."""
        return list(fields)


OPENAI_ERRORS = OpenAIErrors()
