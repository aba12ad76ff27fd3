"""The provider ``anthropic``: one call of a backend that speaks Messages. Pure.

Source: https://platform.claude.com/docs/en/api/versioning and .../docs/en/api/beta-headers
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.dialects.anthropic.errors import error_told
from gateway.dialects.anthropic.from_messages import completion_of, facts_of, read_message
from gateway.dialects.anthropic.passing import passed_body
from gateway.dialects.anthropic.refusals import check_refusal, error_of, refusal_of
from gateway.dialects.anthropic.request import DEFAULTS, body_of
from gateway.dialects.anthropic.stream_in import MessagesTranslator
from gateway.dialects.anthropic.stream_passed import PassedEvents
from gateway.dialects.ask import Ask
from gateway.dialects.contract import EventStream, Outgoing, Translation, Translator
from gateway.dialects.form import encode_completion
from gateway.dialects.openai.reply import ReplyFacts
from gateway.dialects.openai.stream import ChatStream

if TYPE_CHECKING:
    from gateway.model import Backend, ChatRequest, Dialect

PATH = "/messages"
BETAS = "anthropic-beta"


def translate(request: ChatRequest, backend: Backend) -> Translation:
    """See ``Translate``."""
    if request.native is not None and request.native.dialect == "messages":
        return PassedCall(request, backend)
    return TranslatedCall(request, backend)


def header_lines(backend: Backend, asked: Iterable[str] = ()) -> tuple[bytes, bool]:
    """The version of the API and what of it is in beta; and whether any of what the caller asks for is left out."""
    options = backend.anthropic or DEFAULTS
    allowed = options.caller_betas
    betas = [*options.betas, *(name for name in asked if name in allowed or "*" in allowed)]
    is_all = set(betas).issuperset(asked)
    lines = b"anthropic-version: %b\r\n" % options.version.encode()
    if betas:
        lines += b"anthropic-beta: %b\r\n" % ",".join(dict.fromkeys(betas)).encode()
    return lines, not is_all


class TranslatedCall:
    """A chat request to a backend of Anthropic's."""

    dialect: Dialect = "chat"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        ask = Ask(request, backend)
        body = body_of(ask)
        self.outgoing = Outgoing(path=PATH, body=body, lines=header_lines(backend)[0], dropped=ask.done())
        self._drop_usage = not request.include_usage
        self._stream: ChatStream | None = None

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """See Translation."""
        message = read_message(body)
        return encode_completion(completion_of(message)), facts_of(message)

    def refusal(self, status: int, body: bytes) -> bytes:
        """See Translation."""
        return refusal_of(status, body)

    def events(self, max_event_bytes: int) -> EventStream:
        """See Translation."""
        self._stream = ChatStream(drop_usage=self._drop_usage, max_event_bytes=max_event_bytes)
        return self._stream

    def translator(self, max_event_bytes: int) -> Translator | None:
        """See Translation."""
        assert self._stream is not None, "asked for after the stream that it is for"
        return MessagesTranslator(max_event_bytes, self._stream)


class PassedCall:
    """A Messages request to a backend of Anthropic's: the answer passes as it comes."""

    dialect: Dialect = "messages"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        assert request.native is not None, "of a caller of Messages"
        body, dropped = passed_body(request, backend)
        lines, is_reduced = header_lines(backend, request.native.betas)
        if is_reduced:
            dropped += (BETAS,)
        self.outgoing = Outgoing(path=PATH, body=body, lines=lines, dropped=dropped)

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """See Translation."""
        return body, facts_of(read_message(body))

    def refusal(self, status: int, body: bytes) -> bytes:
        """See Translation."""
        detail = check_refusal(status, body)
        return body if detail.type else error_told(error_of(status, detail))

    def events(self, max_event_bytes: int) -> EventStream:
        """See Translation."""
        return PassedEvents(max_event_bytes)

    def translator(self, max_event_bytes: int) -> None:
        """Nothing is translated."""
