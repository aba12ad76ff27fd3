"""A streamed chat completion: server-sent events passed on byte for byte, read on the way.

Invariants:
- What ``feed`` and ``end`` return, joined, is what came in, byte for byte, except for one kind of event: the one that
  reports usage, where the gateway asked for it and the caller did not.
- Only whole events are passed on, so that an error event can always follow. An event longer than ``max_event_bytes``
  is an error; nothing else is held back.

Event framing: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from gateway.dialects.openai.errors import error_event
from gateway.dialects.openai.usage import ABSENT, ERROR_OBJECT, read_usage, text_bytes
from gateway.errors import AttemptFailed, GatewayError
from gateway.model import Usage

_EVENT_END = re.compile(rb"\n\r?\n|\r\r")
_DATA_LINE = re.compile(rb"(?:^|[\r\n])data:[ ]?([^\r\n]*)")
_OVERLAP = 2  # bytes of an event's end that may lie in the piece before


_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    object: msgspec.Raw = ABSENT


class _Delta(msgspec.Struct):
    content: msgspec.Raw = ABSENT
    reasoning_content: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_choice = msgspec.json.Decoder(_Choice).decode


class ChatStream:
    """The state of one stream.

    ``started`` is set by the first event with data, ``done`` by ``[DONE]``, ``failed`` by an event that reports an
    error; ``usage`` is the last usage reported; ``events`` counts what was streamed.

    Events are decoded only where they may matter: those up to the first that says something (Azure's first ones hold
    what its filter thinks of the prompt, and no choices), and those that hold usage, an error or the end.
    """

    __slots__ = (
        "_bytes",
        "_drop_usage",
        "_envelope_bytes",
        "_held",
        "_is_measured",
        "_max_event_bytes",
        "begun_usage",
        "done",
        "events",
        "failed",
        "started",
        "usage",
    )

    def __init__(self, *, drop_usage: bool, max_event_bytes: int) -> None:
        self._drop_usage = drop_usage
        self._max_event_bytes = max_event_bytes
        self._held = bytearray()
        self.started = False
        self.done = False
        self.failed = False
        self.usage: Usage | None = None
        self.begun_usage: Usage | None = None
        self.events = 0
        self._bytes = 0
        self._envelope_bytes = 0
        self._is_measured = False  # the first event that says something has told how large an envelope is

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; returns the whole events to pass on, maybe none. Raises AttemptFailed."""
        if not self._held and data.endswith(b"\n\n"):
            if self._is_measured and not _may_be_notable(data):  # nearly every piece of a stream
                self._count(data, 0, len(data))
                return data
            return self._pass_on(data)
        seam = bytes(self._held[-_OVERLAP:])
        end = _last_event_end(seam + data, 0, len(seam) + len(data)) - len(seam)
        if end <= 0:
            self._hold(data)
            return b""
        whole = bytes(self._held) + data[:end]
        self._held.clear()
        self._hold(data[end:])
        return self._pass_on(whole)

    def end(self) -> bytes:
        """The stream came to its end; returns what was held back."""
        rest = bytes(self._held)
        self._held.clear()
        return self._pass_on(rest)

    def error_event(self, error: GatewayError) -> bytes:
        """How ``error`` is told after the stream has begun."""
        return error_event(error)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._max_event_bytes:
            raise AttemptFailed("protocol_error", f"an event of more than {self._max_event_bytes} bytes")

    @property
    def output_bytes(self) -> int:
        """About how many bytes of text were streamed: what came, less an envelope the size of the first event's.

        The first event of most chat streams carries the role and no text; what text it does carry is no envelope.
        """
        return max(self._bytes - self.events * self._envelope_bytes, 0)

    def _pass_on(self, whole: bytes) -> bytes:
        kept: list[bytes] = []
        dropped = False
        notable = _Notable(whole)
        start = 0
        while start < len(whole):
            event_at = notable.event_from(start) if self._is_measured else start
            if event_at > start:
                self._count(whole, start, event_at)
                kept.append(whole[start:event_at])
            if event_at == len(whole):
                break
            match = _EVENT_END.search(whole, event_at)
            start = match.end() if match else len(whole)
            event = whole[event_at:start]
            payload = b"\n".join(_DATA_LINE.findall(event))
            if payload and self._read(payload, len(event)):
                dropped = True
            else:
                kept.append(event)
        return b"".join(kept) if dropped else whole

    def _count(self, whole: bytes, start: int, end: int) -> None:
        """Take note of events that are passed on unread; comments are none. Text never holds a line break as it is."""
        self.events += whole.count(b"\ndata:", start, end) + whole.startswith(b"data:", start)
        self._bytes += end - start

    def _read(self, payload: bytes, size: int) -> bool:
        """Read one event's data; True if the event is to be dropped."""
        first = not self.started
        self.started = True
        if payload.startswith(b"[DONE]"):
            self.done = True
            return False
        self.events += 1
        self._bytes += size
        try:
            chunk = _decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            if first:
                raise AttemptFailed("protocol_error", f"the first event is no completion chunk: {error}") from None
            return False  # not ours to judge once the stream runs: the caller gets what the backend sent
        if not self._is_measured:
            if chunk.choices:
                self._is_measured = True
                self._envelope_bytes = size - _text_of(chunk.choices)
            else:  # nothing was said yet
                self.events -= 1
                self._bytes -= size
        if chunk.error != ABSENT or chunk.object == ERROR_OBJECT:
            self.failed = True
        if chunk.usage == ABSENT:
            return False
        self.usage = read_usage(chunk.usage) or self.usage
        return self._drop_usage and not chunk.choices


def _text_of(choices: Iterable[msgspec.Raw]) -> int:
    """Bytes of text in the choices of one event; of a form that is not known, none."""
    try:
        deltas = [_decode_choice(choice).delta for choice in choices]
    except (msgspec.DecodeError, RecursionError):
        return 0
    return sum(
        text_bytes(delta.content, delta.reasoning_content, delta.tool_calls) for delta in deltas if delta is not None
    )


def _may_be_notable(data: bytes) -> bool:
    """Whether there may be usage, an error or the end in it; where this is False, there is none."""
    return b"[DONE]" in data or b'"error"' in data or (b'"usage"' in data and _USAGE.search(data) is not None)


class _Notable:
    """Finds the events of ``whole`` that may hold usage, an error or the end, each mark searched for only once.

    Quotes within JSON strings are escaped, so generated text never looks like one of the first two.
    """

    __slots__ = ("_marks", "_whole")

    def __init__(self, whole: bytes) -> None:
        self._whole = whole
        self._marks = [-1, -1, -1]  # where each mark was found last; the length of ``whole`` where it is not

    def event_from(self, start: int) -> int:
        """Where the next such event begins, at ``start`` or later; the length of ``whole`` if there is none."""
        whole, marks = self._whole, self._marks
        if marks[0] < start:
            marks[0] = _found(whole, b"[DONE]", start)
        if marks[1] < start:
            marks[1] = _found(whole, b'"error"', start)
        if marks[2] < start:
            match = _USAGE.search(whole, start)
            marks[2] = match.start() if match else len(whole)
        nearest = min(marks)
        return nearest if nearest == len(whole) else max(_last_event_end(whole, start, nearest), start)


def _found(whole: bytes, mark: bytes, start: int) -> int:
    at = whole.find(mark, start)
    return at if at >= 0 else len(whole)


def _last_event_end(data: bytes, start: int, end: int) -> int:
    """Where the last whole event in a part of ``data`` ends; 0 if there is none."""
    last = 0
    for mark in (b"\n\n", b"\n\r\n", b"\r\r"):
        at = data.rfind(mark, start, end)
        if at >= 0:
            last = max(last, at + len(mark))
    return last
