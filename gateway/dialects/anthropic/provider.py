"""The provider ``anthropic``: one call of a backend that speaks Messages. Pure.

Source: https://platform.claude.com/docs/en/api/versioning and .../docs/en/api/beta-headers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.dialects.anthropic.from_messages import completion_of, facts_of, read_message
from gateway.dialects.anthropic.refusals import refusal_of
from gateway.dialects.anthropic.request import DEFAULTS, body_of
from gateway.dialects.anthropic.stream_in import MessagesTranslator
from gateway.dialects.ask import Ask
from gateway.dialects.contract import EventStream, Outgoing, Translation, Translator
from gateway.dialects.form import encode_completion
from gateway.dialects.openai.reply import ReplyFacts
from gateway.dialects.openai.stream import ChatStream

if TYPE_CHECKING:
    from gateway.model import Backend, ChatRequest, Dialect

PATH = "/messages"


def translate(request: ChatRequest, backend: Backend) -> Translation:
    """See ``Translate``."""
    return TranslatedCall(request, backend)


def header_lines(backend: Backend) -> bytes:
    """The version of the API, and what of it is in beta."""
    options = backend.anthropic or DEFAULTS
    lines = b"anthropic-version: %b\r\n" % options.version.encode()
    return lines + b"anthropic-beta: %b\r\n" % ",".join(options.betas).encode() if options.betas else lines


class TranslatedCall:
    """A chat request to a backend of Anthropic's."""

    dialect: Dialect = "chat"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        ask = Ask(request, backend)
        body = body_of(ask)
        self.outgoing = Outgoing(path=PATH, body=body, lines=header_lines(backend), dropped=ask.done())
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
