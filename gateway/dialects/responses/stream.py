"""The events of a streamed response, made of a streamed chat completion as it comes. Pure.

Invariants:
- Every event has the next sequence number; what is added is done before the response ends, whatever its end.
- One message or reasoning is open at a time; calls stay open to the end, since their pieces may come in turns.
- What was said is kept once, for the last events, which say it again; ``max_bytes`` bounds it.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.dialects import form
from gateway.dialects.openai.usage import ABSENT
from gateway.dialects.responses.answer import Envelope, Item, logprobs_of, refusal_part, text_part, usage_of
from gateway.dialects.responses.items import PackedReasoning
from gateway.dialects.sse import EventReader

_PIECE_BYTES_MAX: Final = 1 << 40  # what comes is whole events, and bounded by whoever passes them on
_TOO_LARGE: Final = "The answer is larger than a response may be."


class _Chunk(form.Completion, kw_only=True):
    error: msgspec.Raw = ABSENT


class _Error(msgspec.Struct):
    message: str = "The model backend failed to answer."
    type: str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_error = msgspec.json.Decoder(_Error).decode
_encode = msgspec.json.Encoder().encode


class _Open:
    """An item that is being said."""

    __slots__ = ("call", "kind", "part", "place", "reasoning", "said")

    def __init__(self, kind: str, place: int) -> None:
        self.kind = kind
        self.place = place
        self.said: list[str] = []
        self.part = ""  # of a message: which part is open
        self.call: form.ToldCall | None = None
        self.reasoning = PackedReasoning()


class ResponseEvents:
    """The state of one stream; ``on_end`` is called with the items of an answer that is complete."""

    def __init__(self, envelope: Envelope, max_bytes: int, on_end: Callable[[list[Item]], None]) -> None:
        self._envelope = envelope
        self._reader = EventReader(_PIECE_BYTES_MAX)
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._number = 0
        self._bytes = 0
        self._out: list[bytes] = []
        self._items: list[Item] = []
        self._open: _Open | None = None
        self._calls: dict[int, _Open] = {}
        self._logprobs: list[Any] = []
        self._parts: list[Item] = []
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._has_begun = False
        self._has_ended = False

    def feed(self, data: bytes) -> bytes:
        """See ``Translator``."""
        for event in self._reader.feed(data):
            self._take(event.data)
        return self._told()

    def end(self) -> bytes:
        """See ``Translator``."""
        for event in self._reader.end():
            self._take(event.data)
        if not self._has_ended:
            self._complete()
        return self._told()

    def _told(self) -> bytes:
        told, self._out = b"".join(self._out), []
        return told

    def _emit(self, kind: str, **members: Any) -> None:
        payload = _encode({"type": kind, "sequence_number": self._number, **members})
        self._number += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), payload))

    def _take(self, data: bytes) -> None:
        if self._has_ended:
            return
        if data.startswith(b"[DONE]"):
            self._complete()
            return
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, RecursionError):
            return  # what no client of the chat dialect could read either
        self._begin()
        if chunk.error != ABSENT:
            self._fail(chunk.error)
            return
        if self._bytes > self._max_bytes:
            self._break_off("server_error", _TOO_LARGE)
            return
        if isinstance(chunk.usage, form.UsageForm):
            self._usage = usage_of(chunk.usage)
        for choice in chunk.choices:
            if choice.index == 0 and isinstance(choice.delta, form.Told):
                self._say(choice, choice.delta)
            self._finish = choice.finish_reason or self._finish

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, response=self._envelope.response("in_progress", []))

    def _say(self, choice: form.Choice, delta: form.Told) -> None:
        if delta.reasoning_content or delta.thinking_blocks:
            self._say_reasoning(delta)
        if delta.content:
            self._say_text(delta.content, logprobs_of(choice.logprobs) if self._envelope.include_logprobs else [])
        if delta.refusal:
            self._say_refusal(delta.refusal)
        for call in delta.tool_calls or ():
            self._say_call(call)

    # Reasoning

    def _say_reasoning(self, delta: form.Told) -> None:
        item = self._opened("reasoning")
        text = delta.reasoning_content or ""
        item.reasoning.text += text
        for block in delta.thinking_blocks or ():
            if isinstance(block, form.Thinking) and not delta.reasoning_content:
                text += block.thinking
            _join(item.reasoning.blocks, block)
        if text:
            if not item.said:
                self._emit(
                    "response.reasoning_summary_part.added",
                    item_id=self._id(item),
                    output_index=item.place,
                    summary_index=0,
                    part={"type": "summary_text", "text": ""},
                )
            self._keep(item, text)
            self._emit(
                "response.reasoning_summary_text.delta",
                item_id=self._id(item),
                output_index=item.place,
                summary_index=0,
                delta=text,
            )

    def _end_reasoning(self, item: _Open) -> Item:
        text = "".join(item.said)
        if text:
            place = {"item_id": self._id(item), "output_index": item.place, "summary_index": 0}
            self._emit("response.reasoning_summary_text.done", **place, text=text)
            part = {"type": "summary_text", "text": text}
            self._emit("response.reasoning_summary_part.done", **place, part=part)
        return self._envelope.reasoning(item.place, item.reasoning)

    # Messages

    def _say_text(self, text: str, logprobs: list[Any]) -> None:
        item = self._message("text")
        self._keep(item, text)
        self._logprobs += logprobs
        self._emit("response.output_text.delta", **self._part(item), delta=text, logprobs=logprobs)

    def _say_refusal(self, text: str) -> None:
        item = self._message("refusal")
        self._keep(item, text)
        self._emit("response.refusal.delta", **self._part(item), delta=text)

    def _message(self, part: str) -> _Open:
        item = self._opened("message")
        if item.part != part:
            self._end_part(item)
            item.part = part
            self._emit(
                "response.content_part.added",
                **self._part(item),
                part=text_part("") if part == "text" else refusal_part(""),
            )
        return item

    def _end_part(self, item: _Open) -> None:
        if not item.part:
            return
        said = "".join(item.said)
        if item.part == "text":
            done = text_part(said, self._logprobs)
            self._emit("response.output_text.done", **self._part(item), text=said, logprobs=self._logprobs)
        else:
            done = refusal_part(said)
            self._emit("response.refusal.done", **self._part(item), refusal=said)
        self._emit("response.content_part.done", **self._part(item), part=done)
        self._parts.append(done)
        self._logprobs = []
        item.part, item.said = "", []

    def _part(self, item: _Open) -> dict[str, Any]:
        return {"item_id": self._id(item), "output_index": item.place, "content_index": len(self._parts)}

    # Calls

    def _say_call(self, call: form.ToldCall) -> None:
        index = call.index if isinstance(call.index, int) else 0
        item = self._calls.get(index)
        function = call.function if isinstance(call.function, form.ToldFunction) else form.ToldFunction()
        if item is None:
            self._close()
            item = self._calls[index] = self._add("function_call")
            item.call = call
            self._added(item, self._envelope.call(item.place, call, "", "in_progress"))
        elif call.extra_content is not msgspec.UNSET and item.call is not None:
            item.call.extra_content = call.extra_content
        if function.arguments:
            self._keep(item, function.arguments)
            self._emit(
                "response.function_call_arguments.delta",
                item_id=self._id(item),
                output_index=item.place,
                delta=function.arguments,
            )

    def _end_call(self, item: _Open) -> Item:
        arguments = "".join(item.said)
        assert item.call is not None, "a call begins with one"
        done = self._envelope.call(item.place, item.call, arguments)
        self._emit(
            "response.function_call_arguments.done",
            item_id=self._id(item),
            output_index=item.place,
            name=done["name"],
            arguments=arguments,
        )
        return done

    # Items

    def _keep(self, item: _Open, text: str) -> None:
        """What was said is told again at the end."""
        item.said.append(text)
        self._bytes += len(text)

    def _id(self, item: _Open) -> str:
        return self._envelope.item_id({"message": "msg", "reasoning": "rs"}.get(item.kind, "fc"), item.place)

    def _opened(self, kind: str) -> _Open:
        """The open item of this kind; one of another kind is closed for it."""
        if self._open is not None and self._open.kind == kind:
            return self._open
        self._close()
        item = self._open = self._add(kind)
        if kind == "message":
            self._added(item, self._envelope.message(item.place, [], "in_progress"))
        else:
            added = {"id": self._id(item), "type": "reasoning", "summary": [], "status": "in_progress"}
            self._added(item, added)
        return item

    def _add(self, kind: str) -> _Open:
        item = _Open(kind, len(self._items))
        self._items.append({})
        return item

    def _added(self, item: _Open, shown: Item) -> None:
        self._emit("response.output_item.added", output_index=item.place, item=shown)

    def _close(self) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if item.kind == "reasoning":
            self._done(item, self._end_reasoning(item))
        else:
            self._end_part(item)
            parts, self._parts = self._parts, []
            self._done(item, self._envelope.message(item.place, parts))

    def _done(self, item: _Open, done: Item) -> None:
        self._items[item.place] = done
        (shown,) = self._envelope.shown([done])
        self._emit("response.output_item.done", output_index=item.place, item=shown)

    def _complete(self) -> None:
        self._begin()
        self._close()
        for call in self._calls.values():
            self._done(call, self._end_call(call))
        if not self._items:
            self._opened("message")
            self._close()
        self._has_ended = True
        response = self._envelope.ended(self._envelope.shown(self._items), self._finish, self._usage)
        self._on_end(self._items)
        self._emit(f"response.{response['status']}", response=response)

    def _fail(self, raw: msgspec.Raw) -> None:
        try:
            error = _decode_error(raw)
        except (msgspec.DecodeError, RecursionError):
            error = _Error()
        self._break_off("rate_limit_exceeded" if error.type == "rate_limit_error" else "server_error", error.message)

    def _break_off(self, code: str, message: str) -> None:
        self._has_ended = True
        output = self._envelope.shown([item for item in self._items if item])
        self._emit("response.failed", response=self._envelope.failed(output, code, message))


def _join(blocks: list[form.ThinkingBlock], block: form.ThinkingBlock) -> None:
    """Add a piece of reasoning: text goes on in the last block until that is signed."""
    last = blocks[-1] if blocks else None
    if isinstance(block, form.Thinking) and isinstance(last, form.Thinking) and not last.signature:
        last.thinking += block.thinking
        last.signature = block.signature
    else:
        blocks.append(block)
