"""A streamed chat completion as the events of Messages, each as soon as it can be told. Pure.

    message_start, (content_block_start, content_block_delta..., content_block_stop)..., message_delta, message_stop

Invariants:
- After ``message_stop`` or an error comes nothing.
- Nothing waits for the end but what a chat itself says last: why it ended, and what was used. A chat tells of its
  input only then, so ``message_start`` has no tokens and ``message_delta`` has all: its figures are sums, and clients
  take them over those of the start.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.blocks import Blocks
from gateway.dialects.anthropic.errors import Detail, Envelope, as_event
from gateway.dialects.anthropic.tell import (
    ChatError,
    chat_error,
    decode_answer,
    message_id,
    read_usage,
    stop_of,
    thoughts_of,
    usage_of,
)
from gateway.dialects.sse import EventReader

_encode = msgspec.json.Encoder().encode

_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_FAILED: Final = "The model backend failed while it answered."
_KINDS: Final = frozenset(
    {"invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
     "rate_limit_error", "timeout_error", "api_error", "overloaded_error"}
)  # fmt: skip


class MessagesEvents:
    """Translates one stream; see ``Translator``. ``stops`` are the stop sequences that were asked for."""

    def __init__(self, request_id: str, stops: frozenset[str]) -> None:
        self._request_id = request_id
        self._stops = stops
        self._reader = EventReader(sys.maxsize, tells_comments=True)  # whole events come, and bounded
        self._out: list[bytes] = []
        self._blocks = Blocks(self._out)
        self._id = self._model = ""
        self._is_answered = False  # something came
        self._has_begun = False
        self._is_over = False
        self._ended: form.Choice | None = None
        self._usage = form.UsageForm()

    def feed(self, data: bytes) -> bytes:
        """See Translator."""
        for event in self._reader.feed(data):
            self._event(event.data)
        return self._told()

    def end(self) -> bytes:
        """See Translator."""
        for event in self._reader.end():
            self._event(event.data)
        self._finish()
        return self._told()

    def _told(self) -> bytes:
        told = b"".join(self._out)
        self._out.clear()
        return told

    def _event(self, data: bytes) -> None:
        if self._is_over:
            return
        if not data:  # a comment, by which the backend keeps the connection alive
            if self._has_begun:
                self._out.append(_PING)
            return
        if data.startswith(b"[DONE]"):
            self._finish()
            return
        try:
            chunk = decode_answer(data)
        except (msgspec.DecodeError, RecursionError):
            self._fail(ChatError())
            return
        error = chat_error(chunk.error)
        if error is not None:
            self._fail(error)
            return
        usage = read_usage(chunk.usage)
        if usage is not None:
            self._usage = usage
        self._is_answered = True
        if not self._has_begun:
            self._id, self._model = chunk.id or self._id, chunk.model or self._model
            if chunk.choices:  # those before, of content filters, do not name the answer
                self._begin()
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._choice(choice)

    def _choice(self, choice: form.Choice) -> None:
        told = choice.delta
        if isinstance(told, form.Told):
            for thought in thoughts_of(told):
                self._blocks.say(thought)
            if told.content:
                self._blocks.say(told.content)
            if told.refusal:
                self._blocks.say(told.refusal)
            for piece in told.tool_calls or ():
                self._blocks.call(piece, self._id)
        if choice.finish_reason is not None:
            self._ended = choice

    def _begin(self) -> None:
        self._has_begun = True
        message = schema.Message(id=message_id(self._id), model=self._model, usage=usage_of(self._usage))
        self._out.append(b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % _encode(message))

    def _finish(self) -> None:
        """The end, as far as it is one: nothing where nothing came, or all is over."""
        if not self._is_answered or self._is_over:
            return
        if not self._has_begun:
            self._begin()
        self._is_over = True
        self._blocks.end()
        ended = self._ended or form.Choice()
        reason, sequence = stop_of(ended, called=self._blocks.has_calls, stops=self._stops)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        told = {"type": "message_delta", "delta": delta, "usage": usage_of(self._usage)}
        self._out += (b"event: message_delta\ndata: %b\n\n" % _encode(told), _STOP)

    def _fail(self, error: ChatError) -> None:
        self._is_over = True
        kind = error.type if error.type in _KINDS else "api_error"
        detail = Detail(type=kind, message=error.message or _FAILED)
        self._out.append(as_event(_encode(Envelope(detail, self._request_id))))
