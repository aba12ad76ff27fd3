"""One call of Gemini: a chat request as ``generateContent``, and the way back of its answer.

Source: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from urllib.parse import quote

from gateway.dialects.ask import Ask
from gateway.dialects.contract import Outgoing, Translator
from gateway.dialects.gemini.config import config_of, thinks_in_budgets
from gateway.dialects.gemini.contents import Conversation
from gateway.dialects.gemini.errors import refusal_body
from gateway.dialects.gemini.reply import read_whole
from gateway.dialects.gemini.schema import Request, encode_request
from gateway.dialects.gemini.stream import GeminiStream
from gateway.dialects.gemini.tools import tools_of
from gateway.dialects.openai.reply import ReplyFacts
from gateway.dialects.openai.stream import ChatStream
from gateway.model import Backend, ChatRequest, Dialect


class GeminiCall:
    """A ``Translation``."""

    dialect: Dialect = "chat"

    def __init__(self, outgoing: Outgoing, *, include_usage: bool) -> None:
        self.outgoing = outgoing
        self._include_usage = include_usage
        self._chat: ChatStream | None = None

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """See Translation."""
        return read_whole(body)

    def refusal(self, status: int, body: bytes) -> bytes:
        """See Translation."""
        return refusal_body(status, body)

    def events(self, max_event_bytes: int) -> ChatStream:
        """See Translation."""
        self._chat = ChatStream(drop_usage=not self._include_usage, max_event_bytes=max_event_bytes)
        return self._chat

    def translator(self, max_event_bytes: int) -> Translator:
        """See Translation."""
        return GeminiStream(max_event_bytes, self._chat or self.events(max_event_bytes))


def translate(request: ChatRequest, backend: Backend) -> GeminiCall:
    """See ``Translate``. Raises InvalidRequest."""
    ask = Ask(request, backend)
    conversation = Conversation(ask, signs=not thinks_in_budgets(ask.model))
    tools, tool_config = tools_of(ask)
    body = encode_request(
        Request(
            contents=conversation.contents,
            system_instruction=conversation.system,
            tools=tools,
            tool_config=tool_config,
            generation_config=config_of(ask),
        )
    )
    outgoing = Outgoing(path=_path(ask.model, stream=request.stream), body=body, dropped=ask.done(several=True))
    return GeminiCall(outgoing, include_usage=request.include_usage)


def _path(model: str, *, stream: bool) -> str:
    """A model's name, or a resource such as ``tunedModels/NAME``, with the method."""
    resource = quote(model if "/" in model else f"models/{model}", safe="/-._~@")
    return f"/{resource}:streamGenerateContent?alt=sse" if stream else f"/{resource}:generateContent"
