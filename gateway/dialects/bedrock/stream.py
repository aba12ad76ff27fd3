"""A streamed answer of Converse as events of a chat completion, message by message.

Invariants:
- Each message is told as soon as it has come; nothing is kept but the numbers of the calls of tools.
- Once the answer has ended, usage is told and then the end. A stream that ends before its ``messageStop`` is a failure.
- What an exception says in words is told only where the request was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET

from gateway.clock import wall
from gateway.dialects import form
from gateway.dialects.bedrock import schema
from gateway.dialects.bedrock.errors import stream_error, stream_failure
from gateway.dialects.bedrock.eventstream import Message, MessageReader
from gateway.dialects.bedrock.reply import MALFORMED, SERVER_TOOL_USE, finish_reason, new_id, stop_sequence, usage_form
from gateway.dialects.openai.errors import error_event
from gateway.errors import AttemptFailed, UpstreamFailed


class _Call:
    """A call of a tool that is being told."""

    __slots__ = ("has_arguments", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.has_arguments = False


class ConverseTranslator:
    """The state of one stream; a ``Translator``."""

    def __init__(self, model: str, max_event_bytes: int) -> None:
        self._reader = MessageReader(max_event_bytes)
        self._model = model
        self._id = new_id()
        self._created = int(wall())
        self._calls: dict[int, _Call] = {}  # by the number of their block
        self._calls_count = 0
        self._has_begun = False
        self._has_stopped = False
        self._is_broken = False
        self._has_ended = False  # with [DONE] or with an error
        self._tell: Mapping[str, Callable[[bytes], bytes]] = {
            "contentBlockDelta": self._delta,
            "contentBlockStart": self._block_start,
            "contentBlockStop": self._block_stop,
            "messageStart": self._start,
            "messageStop": self._stop,
            "metadata": self._metadata,
        }

    def feed(self, data: bytes) -> bytes:
        """See Translator."""
        return b"".join([self._told(message) for message in self._reader.feed(data)])

    def end(self) -> bytes:
        """See Translator."""
        if self._has_ended:
            return b""
        self._reader.end()
        if not self._has_stopped:
            raise AttemptFailed("reset", "the stream ended before its messageStop")
        self._has_ended = True
        return b"" if self._is_broken else form.DONE

    def _told(self, message: Message) -> bytes:
        if self._has_ended:
            return b""
        if message.kind != "event":
            return self._failed(message)
        tell = self._tell.get(message.name)
        if tell is None:
            return b""
        try:
            return tell(message.payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AttemptFailed("protocol_error", f"a {message.name} that cannot be read: {error}") from None

    def _failed(self, message: Message) -> bytes:
        if not self._has_begun:
            raise stream_failure(message.name)
        self._has_ended = True
        return error_event(stream_error(message.name, message.payload))

    def _start(self, _payload: bytes) -> bytes:
        return self._event(form.Told(role="assistant", content=""))

    def _block_start(self, payload: bytes) -> bytes:
        begun = schema.decode_block_start(payload)
        use = begun.start.tool_use
        if use is None or use.type == SERVER_TOOL_USE:
            return b""
        call = self._calls[begun.content_block_index] = _Call(self._calls_count)
        self._calls_count += 1
        function = form.ToldFunction(name=use.name, arguments="")
        told = form.ToldCall(index=call.index, id=use.tool_use_id, type="function", function=function)
        return self._event(form.Told(tool_calls=[told]))

    def _delta(self, payload: bytes) -> bytes:
        came = schema.decode_delta(payload)
        delta = came.delta
        if delta.text is not None:
            return self._event(form.Told(content=delta.text))
        if delta.tool_use is not None:
            return self._arguments(came.content_block_index, delta.tool_use.input)
        if delta.reasoning_content is not None:
            return self._reasoning(delta.reasoning_content)
        return b""

    def _arguments(self, block: int, piece: str) -> bytes:
        call = self._calls.get(block)
        if call is None or not piece:
            return b""
        call.has_arguments = True
        told = form.ToldCall(index=call.index, function=form.ToldFunction(arguments=piece))
        return self._event(form.Told(tool_calls=[told]))

    def _reasoning(self, delta: schema.ReasoningDelta) -> bytes:
        if delta.text is not None:
            block = form.Thinking(thinking=delta.text)
            return self._event(form.Told(reasoning_content=delta.text, thinking_blocks=[block]))
        if delta.signature is not None:
            return self._event(form.Told(thinking_blocks=[form.Thinking(thinking="", signature=delta.signature)]))
        if delta.redacted_content is not None:
            return self._event(form.Told(thinking_blocks=[form.RedactedThinking(data=delta.redacted_content)]))
        return b""

    def _block_stop(self, payload: bytes) -> bytes:
        """A call without arguments is told to have none: clients parse what was told as JSON."""
        block = schema.decode_block_stop(payload).content_block_index
        call = self._calls.pop(block, None)
        if call is None or call.has_arguments:
            return b""
        told = form.ToldCall(index=call.index, function=form.ToldFunction(arguments="{}"))
        return self._event(form.Told(tool_calls=[told]))

    def _stop(self, payload: bytes) -> bytes:
        stop = schema.decode_stop(payload)
        self._has_stopped = True
        if stop.stop_reason in MALFORMED:
            self._is_broken = True
            return error_event(UpstreamFailed("The model's answer cannot be used."))
        self._has_begun = True
        choice = form.Choice(
            delta=form.Told(),
            finish_reason=finish_reason(stop.stop_reason),
            stop_sequence=stop_sequence(stop.additional_model_response_fields),
        )
        return form.encode_event(self._completion([choice]))

    def _metadata(self, payload: bytes) -> bytes:
        usage = schema.decode_metadata(payload).usage
        told = b"" if usage is None else form.encode_event(self._completion([], usage_form(usage)))
        if not self._has_stopped:
            return told
        self._has_ended = True
        return told if self._is_broken else told + form.DONE

    def _event(self, delta: form.Told) -> bytes:
        self._has_begun = True
        return form.encode_event(self._completion([form.Choice(delta=delta)]))

    def _completion(self, choices: list[form.Choice], usage: form.UsageForm | None = None) -> form.Completion:
        return form.Completion(
            id=self._id,
            object=form.CHUNK,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=UNSET if usage is None else usage,
        )
