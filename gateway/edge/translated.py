"""Completions in other dialects than chat: the same call, told in the words of its caller.

Invariants:
- Whoever speaks what the backend speaks gets the backend's own bytes.
- Whatever goes wrong is told in the caller's dialect: as a body before the answer has begun, as an event after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.dialects.contract import ClientCall, ClientDialect, NamedDialect, Translator
from gateway.dialects.openai.replay import EVENT_STREAM
from gateway.edge.call import Call, Frontdesk
from gateway.edge.chat import ChatCompletions, Pieces, reply_headers, send_stream
from gateway.edge.wire import header_fields
from gateway.errors import MethodNotAllowed
from gateway.pipeline import Incoming, Pipeline
from gateway.reply import Reply


class Telling(ChatCompletions):
    """An endpoint whose answers are told in ``dialect``."""

    def __init__(
        self, frontdesk: Frontdesk, pipeline: Pipeline, dialect: NamedDialect, *, expose_backend: bool
    ) -> None:
        super().__init__(frontdesk, pipeline, expose_backend=expose_backend)
        self._dialect = dialect

    async def translate(self, call: Call, client: ClientCall, incoming: Incoming | None = None) -> None:
        """Answer a call that ``client`` reads; from ``incoming`` where its body was taken before."""
        reply = await self._pipeline.chat(call.head.credentials, incoming or call, client.read, call.record)
        try:
            fields = reply_headers(reply, expose_backend=self._expose_backend) + header_fields(reply.lines)
            headers = call.dialect.header_fields(fields)
            passes = reply.dialect == self._dialect.name
            if reply.stream is not None:
                events = self.passed_events(client) if passes else client.events()
                pieces = reply.stream if events is None else TranslatedPieces(reply.stream, events)
                await send_stream(call, reply.status, pieces, headers)
            else:
                body = reply.body or b""
                if not passes:
                    body = _told(client, reply, body)
                elif reply.status == 200:
                    self.passed_whole(client, body)
                await call.answer(reply.status, body, headers)
        finally:
            reply.close()

    def passed_events(self, client: ClientCall) -> Translator | None:
        """What looks at the events of a stream that passes as it is; None: nobody does."""

    def passed_whole(self, client: ClientCall, body: bytes) -> None:
        """Look at a whole answer that passes as it is."""


class TranslatedCompletions(Telling):
    """An endpoint whose callers speak ``dialect``."""

    def __init__(
        self, frontdesk: Frontdesk, pipeline: Pipeline, dialect: ClientDialect, *, expose_backend: bool
    ) -> None:
        super().__init__(frontdesk, pipeline, dialect, expose_backend=expose_backend)
        self._client = dialect.call

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        call.dialect = self._dialect
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use POST here.", allow="POST")
        return self.translate(call, self._client(self.max_fields))


def _told(client: ClientCall, reply: Reply, body: bytes) -> bytes:
    if reply.status != 200:
        return client.refusal(reply.status, body)
    if reply.content_type == EVENT_STREAM:  # a kept answer, told as a stream
        events = client.events()
        return events.feed(body) + events.end()
    return client.whole(body)


class TranslatedPieces:
    """A stream of chat events, read as events of another dialect."""

    __slots__ = ("_has_ended", "_left", "_stream", "_translator")

    def __init__(self, stream: Pieces, translator: Translator) -> None:
        self._stream = stream
        self._translator = translator
        self._left = b""
        self._has_ended = False

    def take(self) -> bytes | None:
        """See Pieces."""
        while not self._has_ended:
            piece = self._stream.take()
            if piece is None:
                return None
            if told := self._told(piece):
                return told
        return b""

    async def relay(self, push: Callable[[bytes], bool]) -> bytes | None:
        """See Pieces."""

        def push_told(piece: bytes) -> bool:
            told = self._translator.feed(piece)
            if not told or push(told):
                return True
            self._left = told
            return False

        piece = await self._stream.relay(push_told)
        if piece is None:
            return None
        if piece:
            left, self._left = self._left, b""
            return left
        return self._told(piece)

    def _told(self, piece: bytes) -> bytes:
        if piece:
            return self._translator.feed(piece)
        self._has_ended = True
        return self._translator.end()
