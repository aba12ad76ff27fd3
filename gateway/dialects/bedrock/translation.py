"""One call of a backend that speaks Converse: see ``gateway.dialects.contract``."""

from __future__ import annotations

from gateway.dialects.ask import Ask
from gateway.dialects.bedrock.errors import refusal
from gateway.dialects.bedrock.reply import read_answer
from gateway.dialects.bedrock.request import write_request
from gateway.dialects.bedrock.stream import ConverseTranslator
from gateway.dialects.contract import Translator
from gateway.dialects.openai.reply import ReplyFacts
from gateway.dialects.openai.stream import ChatStream
from gateway.model import Backend, ChatRequest, Dialect


class ConverseTranslation:
    """A ``Translation``. Answers name the model as the caller did: the backend's name may hold an account's number."""

    dialect: Dialect = "chat"

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        self._model = request.model
        self._drop_usage = not request.include_usage
        self.outgoing = write_request(Ask(request, backend))

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """See Translation."""
        return read_answer(body, self._model)

    def refusal(self, status: int, body: bytes) -> bytes:  # noqa: ARG002  # the body says it
        """See Translation."""
        return refusal(body)

    def events(self, max_event_bytes: int) -> ChatStream:
        """See Translation."""
        return ChatStream(drop_usage=self._drop_usage, max_event_bytes=max_event_bytes)

    def translator(self, max_event_bytes: int) -> Translator:
        """See Translation."""
        return ConverseTranslator(self._model, max_event_bytes)
