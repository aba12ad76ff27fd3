"""Errors of Bedrock: what the caller is told of them, and which of them are not the caller's to see.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html (errors) and
https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html. The name of an error is in the header field
``x-amzn-errortype``, followed by a colon and a URL where an older service says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.dialects.bedrock import schema
from gateway.dialects.openai.errors import error_body
from gateway.errors import AttemptFailed, GatewayError, InvalidRequest, Outcome, Overloaded, UpstreamFailed

_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "ServiceQuotaExceededException": "rate_limited",
    "ThrottlingException": "rate_limited",
    "ModelNotReadyException": "rate_limited",
    "ServiceUnavailableException": "server_error",
    "InternalServerException": "server_error",
    "ModelErrorException": "server_error",
    "ModelStreamErrorException": "server_error",
    "ModelTimeoutException": "server_error",
    "ResourceNotFoundException": "misconfigured",
    "AccessDeniedException": "unauthorized",
    "ExpiredTokenException": "unauthorized",
    "IncompleteSignature": "unauthorized",
    "IncompleteSignatureException": "unauthorized",
    "InvalidClientTokenId": "unauthorized",
    "InvalidSignatureException": "unauthorized",
    "MissingAuthenticationToken": "unauthorized",
    "MissingAuthenticationTokenException": "unauthorized",
    "NotAuthorized": "unauthorized",
    "OptInRequired": "unauthorized",
    "RequestExpired": "unauthorized",
    "UnrecognizedClientException": "unauthorized",
}
"""Of errors that are no caller's fault, whatever their status is: some come with 400, which callers are shown."""

_ERROR_TYPE = b"x-amzn-errortype"
_MESSAGE_CHARS_MAX = 4096
_OVERLOAD = "The model is overloaded. Please try again later."
_ARN = re.compile(r"\barn:aws[^\s\"'`,;)]*")  # it holds the account's number


def failure(status: int, headers: Sequence[tuple[bytes, bytes]]) -> AttemptFailed | None:
    """What an answer with an error means for the attempt; None where its status says it."""
    for name, value in headers:
        if name == _ERROR_TYPE:
            kind = value.decode("latin-1").partition(":")[0].strip()
            outcome = _OUTCOMES.get(kind)
            return None if outcome is None else AttemptFailed(outcome, f"status {status}, {kind}", status=status)
    return None


def refusal(body: bytes) -> bytes:
    """The body that tells the caller why its request was refused."""
    try:
        told = schema.decode_failure(body)
        message = told.message or told.text
    except (msgspec.DecodeError, RecursionError):
        message = None
    return error_body(_refused(message))


def stream_error(kind: str, payload: bytes) -> GatewayError:
    """The error that an exception within a stream is; ``kind`` is its name as the stream has it."""
    name = kind[:1].upper() + kind[1:]
    if name == "ValidationException":
        try:
            return _refused(schema.decode_failure(payload).message)
        except (msgspec.DecodeError, RecursionError):
            return _refused(None)
    if _OUTCOMES.get(name) == "rate_limited" or name == "ServiceUnavailableException":
        return Overloaded(_OVERLOAD)
    return UpstreamFailed("The model backend broke off its answer.")


def stream_failure(kind: str) -> AttemptFailed:
    """The same where nothing of the answer was told yet, so that another backend may answer."""
    name = kind[:1].upper() + kind[1:]
    shown = name if name in _OUTCOMES else "unknown"
    return AttemptFailed(_OUTCOMES.get(name, "error_in_body"), f"an exception in the stream: {shown}")


def _refused(message: str | None) -> InvalidRequest:
    text = _ARN.sub("(a resource)", message or "The model backend refused the request.")[:_MESSAGE_CHARS_MAX]
    return InvalidRequest(text, code="upstream_refused")
