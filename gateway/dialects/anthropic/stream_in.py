"""A streamed answer of Messages as the events of a chat completion; pure.

Invariants:
- Each event is told when it comes; of a stream nothing is kept but its head, its usage and the place of its calls.
- What is told ends with usage and ``[DONE]``, or with an error, or not at all: a stream that is cut raises.

Texts and pieces of arguments are passed on as the JSON strings that they come as, without being decoded.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET

from gateway.clock import wall
from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.from_messages import FINISH_REASONS, SERVICE_TIERS, explanation_of
from gateway.dialects.anthropic.refusals import failure_of_first, public_error
from gateway.dialects.anthropic.usage import counted, merged, told
from gateway.dialects.openai.errors import error_event
from gateway.dialects.openai.stream import ChatStream
from gateway.dialects.sse import Event, EventReader
from gateway.errors import AttemptFailed

_NOTHING = msgspec.Raw(b'""')
_NO_INPUT = msgspec.Raw(b"{}")


class Delta(msgspec.Struct, gc=False):
    """What an event adds: to a block, or to the message."""

    type: str = ""
    text: msgspec.Raw = _NOTHING
    thinking: msgspec.Raw = _NOTHING
    signature: msgspec.Raw = _NOTHING
    partial_json: msgspec.Raw = _NOTHING
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: schema.StopDetails | None = None


class StreamEvent(msgspec.Struct, gc=False):
    """The data of an event, whatever its type."""

    type: str = ""
    index: int = 0
    delta: Delta | None = None
    content_block: schema.ToldBlock | None = None
    message: schema.Message | None = None
    usage: schema.Usage | None = None
    error: schema.ErrorDetail | None = None


decode_event = msgspec.json.Decoder(StreamEvent).decode
_encode = msgspec.json.Encoder().encode


class MessagesTranslator:
    """See ``Translator``. ``stream`` is where its events go, and is told of the usage that the start reports."""

    def __init__(self, max_event_bytes: int, stream: ChatStream) -> None:
        self._reader = EventReader(max_event_bytes)
        self._stream = stream
        self._head: schema.Message | None = None
        self._completion = form.Completion(object=form.CHUNK)  # with no choices
        self._before = self._after = b""  # of an event whose choice has a delta and no end
        self._usage: schema.Usage | None = None
        self._calls: dict[int, _Call] = {}  # those that are under way, by the index of their block
        self._call_count = 0
        self._thought_count = 0
        self._is_over = False
        self._has_finished = False
        self._tellers: Mapping[str, Callable[[StreamEvent], bytes]] = {
            "content_block_delta": self._delta,
            "content_block_start": self._block,
            "content_block_stop": self._block_end,
            "message_start": self._start,
            "message_delta": self._message,
            "message_stop": self._stop,
            "error": self._error,
        }

    def feed(self, data: bytes) -> bytes:
        """See Translator."""
        return b"".join(map(self._told, self._reader.feed(data)))

    def end(self) -> bytes:
        """See Translator."""
        rest = b"".join(map(self._told, self._reader.end()))
        if not self._is_over:
            raise AttemptFailed("reset", "the stream ended before its message_stop")
        return rest

    def _told(self, event: Event) -> bytes:
        if self._is_over:
            return b""
        try:
            read = decode_event(event.data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AttemptFailed("protocol_error", f"an event that is none of Messages: {error}") from None
        tell = self._tellers.get(read.type)
        if tell is None:  # ping, and what may come one day
            return b""
        if self._head is None and read.type not in ("message_start", "error"):
            raise AttemptFailed("protocol_error", "a stream that does not begin with its message_start")
        return tell(read)

    def _start(self, event: StreamEvent) -> bytes:
        message = event.message
        if message is None or self._head is not None:
            raise AttemptFailed("protocol_error", "a message_start without a message, or a second one")
        self._head = message
        self._usage = message.usage
        self._stream.begun_usage = counted(message.usage)
        head = form.Completion(id=message.id, object=form.CHUNK, created=int(wall()), model=message.model)
        tier = SERVICE_TIERS.get((message.usage and message.usage.service_tier) or "")
        if tier is not None:
            head.service_tier = tier
        self._completion = head
        start = _encode(head)
        at = start.index(b'"choices":[]') + len(b'"choices":[')
        self._before = b"data: " + start[:at] + b'{"index":0,"delta":{'
        self._after = b'},"finish_reason":null}' + start[at:] + b"\n\n"
        return self._chunk(b'"role":"assistant","content":""')

    def _chunk(self, delta: bytes) -> bytes:
        return self._before + delta + self._after

    def _delta(self, event: StreamEvent) -> bytes:
        delta = event.delta
        if delta is None:
            return b""
        kind = delta.type
        if kind == "text_delta":
            return self._chunk(b'"content":' + bytes(delta.text))
        if kind == "input_json_delta":
            return self._arguments(event.index, delta.partial_json)
        if kind == "thinking_delta":
            return self._thought(delta.thinking)
        if kind == "signature_delta":
            return self._signature(delta.signature)
        return b""

    def _block(self, event: StreamEvent) -> bytes:
        block = event.content_block
        if block is None:
            return b""
        if block.type == "text" and block.text:
            return self._chunk(b'"content":' + _encode(block.text))
        if block.type == "tool_use":
            return self._call(event.index, block)
        if block.type == "thinking":
            self._thought_count += 1
            said = self._thought(_raw(block.thinking)) if block.thinking else b""
            return said + (self._signature(_raw(block.signature)) if block.signature else b"")
        if block.type == "redacted_thinking" and block.data:
            self._thought_count += 1
            return self._chunk(
                b'"thinking_blocks":[{"type":"redacted_thinking","index":%d,"data":%b}]'
                % (self._thought_count - 1, _encode(block.data))
            )
        return b""

    def _thought(self, text: msgspec.Raw) -> bytes:
        return self._chunk(
            b'"reasoning_content":%b,"thinking_blocks":[{"type":"thinking","index":%d,"thinking":%b,"signature":""}]'
            % (bytes(text), max(self._thought_count - 1, 0), bytes(text))
        )

    def _signature(self, signature: msgspec.Raw) -> bytes:
        return self._chunk(
            b'"thinking_blocks":[{"type":"thinking","index":%d,"thinking":"","signature":%b}]'
            % (max(self._thought_count - 1, 0), bytes(signature))
        )

    def _call(self, index: int, block: schema.ToldBlock) -> bytes:
        call = _Call(self._call_count, _NO_INPUT if block.input is UNSET else block.input)
        self._calls[index] = call
        self._call_count += 1
        return self._chunk(
            b'"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]'
            % (call.place, _encode(block.id or ""), _encode(block.name or ""))
        )

    def _arguments(self, index: int, piece: msgspec.Raw) -> bytes:
        call = self._calls.get(index)
        if call is None or len(piece) <= len(_NOTHING):  # of a tool that runs at the provider, or nothing
            return b""
        call.has_arguments = True
        return self._chunk(b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (call.place, bytes(piece)))

    def _block_end(self, event: StreamEvent) -> bytes:
        call = self._calls.pop(event.index, None)
        if call is None or call.has_arguments:
            return b""
        return self._chunk(
            b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]'
            % (call.place, _encode(bytes(call.input).decode()))
        )

    def _message(self, event: StreamEvent) -> bytes:
        self._usage = merged(self._usage, event.usage)
        delta = event.delta
        if delta is None or delta.stop_reason is None or self._has_finished:
            return b""
        self._has_finished = True
        said = form.Told()
        explanation = explanation_of(delta.stop_details)
        if delta.stop_reason == "refusal" and explanation:
            said.refusal = explanation
        choice = form.Choice(delta=said, finish_reason=FINISH_REASONS.get(delta.stop_reason, "stop"))
        if delta.stop_sequence is not None:
            choice.stop_sequence = delta.stop_sequence
        return form.encode_event(msgspec.structs.replace(self._completion, choices=[choice]))

    def _stop(self, _: StreamEvent) -> bytes:
        self._is_over = True
        usage = counted(self._usage)
        if usage is None:
            return form.DONE
        return form.encode_event(msgspec.structs.replace(self._completion, usage=told(usage))) + form.DONE

    def _error(self, event: StreamEvent) -> bytes:
        detail = event.error or schema.ErrorDetail()
        if self._head is None:
            raise failure_of_first(detail)
        self._is_over = True
        return error_event(public_error(detail.type))


class _Call:
    """A call of a tool that is under way: its place among the calls, and what it was started with."""

    __slots__ = ("has_arguments", "input", "place")

    def __init__(self, place: int, given: msgspec.Raw) -> None:
        self.place = place
        self.input = given
        self.has_arguments = False


def _raw(text: str | schema.Unset | None) -> msgspec.Raw:
    return msgspec.Raw(_encode(text or ""))
