"""One call of a caller who speaks Responses. Pure.

Source: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.dialects.openai.errors import error_body
from gateway.dialects.responses.answer import Envelope, Item, whole_response
from gateway.dialects.responses.read import Asked, read_request
from gateway.dialects.responses.stream import ResponseEvents
from gateway.errors import GatewayError
from gateway.model import ChatRequest, Dialect

_encode = msgspec.json.Encoder().encode


class ResponsesErrors:
    """Errors of the gateway's own, as an ``ErrorDialect``: bodies and header fields are those of OpenAI's chat."""

    name: Final[Dialect] = "responses"
    error_body = staticmethod(error_body)

    @staticmethod
    def status(error: GatewayError) -> int:
        """The status as it is."""
        return error.status

    @staticmethod
    def error_event(error: GatewayError) -> bytes:
        """The event ``error``, for a stream of which the gateway does not know how far it has come."""
        members = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: %b\n\n" % _encode({**members, "sequence_number": 0})

    @staticmethod
    def header_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields as they are."""
        return list(fields)


RESPONSES: Final = ResponsesErrors()


class ResponsesCall:
    """See ``ClientCall``; its body has been read before, since the conversation so far had to be fetched.

    ``keep`` is called with the items of a complete answer.
    """

    def __init__(
        self,
        asked: Asked,
        earlier: Sequence[msgspec.Raw],
        envelope: Envelope,
        max_bytes: int,
        keep: Callable[[list[Item]], None],
    ) -> None:
        self._request = read_request(asked, earlier)
        self._envelope = envelope
        self._max_bytes = max_bytes
        self._keep = keep

    def read(self, body: bytes) -> ChatRequest:  # noqa: ARG002  # it was read before
        """See ``ClientCall``."""
        return self._request

    def whole(self, body: bytes) -> bytes:
        """See ``ClientCall``."""
        response = whole_response(self._envelope, body)
        self._keep(response["output"])
        response["output"] = self._envelope.shown(response["output"])
        return _encode(response)

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002  # one form for all
        """See ``ClientCall``; errors look alike in both dialects."""
        return body

    def events(self) -> ResponseEvents:
        """See ``ClientCall``."""
        return ResponseEvents(self._envelope, self._max_bytes, self._keep)
