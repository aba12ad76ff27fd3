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

import msgspec

from gateway.dialects.openai.usage import ABSENT, read_usage
from gateway.errors import AttemptFailed
from gateway.model import Usage

_EVENT_END = re.compile(rb"\n\r?\n|\r\r")
_DATA_LINE = re.compile(rb"(?:^|[\r\n])data:[ ]?([^\r\n]*)")
_OVERLAP = 2  # bytes of an event's end that may lie in the piece before


_NOTABLE = re.compile(rb'"usage"\s*:\s*\{')


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_decode = msgspec.json.Decoder(_Chunk).decode


class ChatStream:
    """The state of one stream.

    ``started`` is set by the first event with data, ``done`` by ``[DONE]``, ``failed`` by an event that reports an
    error; ``usage`` is the last usage reported; ``events`` counts what was streamed.

    Events are decoded only where they may matter: the first one, and those that hold usage, an error or the end.
    """

    __slots__ = (
        "_bytes",
        "_drop_usage",
        "_envelope_bytes",
        "_held",
        "_max_event_bytes",
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
        self.events = 0
        self._bytes = 0
        self._envelope_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; returns the whole events to pass on, maybe none. Raises AttemptFailed."""
        if not self._held and data.endswith(b"\n\n"):
            return self._pass_on(data)
        seam = bytes(self._held[-_OVERLAP:])
        end = _last_event_end(seam + data) - len(seam)
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

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._max_event_bytes:
            raise AttemptFailed("protocol_error", f"an event of more than {self._max_event_bytes} bytes")

    @property
    def output_bytes(self) -> int:
        """About how many bytes of text were streamed: what came, less an envelope the size of the first event's.

        The first event of a chat stream carries the role and no text, so it is envelope and nothing else.
        """
        return max(self._bytes - self.events * self._envelope_bytes, 0)

    def _pass_on(self, whole: bytes) -> bytes:
        if self.started and not self._is_notable(whole):
            self.events += whole.count(b"\n\n") or whole.count(b"\n\r\n")
            self._bytes += len(whole)
            return whole
        kept: list[bytes] = []
        dropped = False
        start = 0
        while start < len(whole):
            match = _EVENT_END.search(whole, start)
            end = match.end() if match else len(whole)
            event = whole[start:end]
            payload = b"\n".join(_DATA_LINE.findall(event))
            if payload and self._read(payload, len(event)):
                dropped = True
            else:
                kept.append(event)
            start = end
        return b"".join(kept) if dropped else whole

    @staticmethod
    def _is_notable(whole: bytes) -> bool:
        """May ``whole`` hold usage, an error or the end? Quotes within JSON strings are escaped, so text never hits."""
        return b"[DONE]" in whole or b'"error"' in whole or _NOTABLE.search(whole) is not None

    def _read(self, payload: bytes, size: int) -> bool:
        """Read one event's data; True if the event is to be dropped."""
        first = not self.started
        self.started = True
        if payload.startswith(b"[DONE]"):
            self.done = True
            return False
        self.events += 1
        self._bytes += size
        if first:
            self._envelope_bytes = size
        try:
            chunk = _decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            if first:
                raise AttemptFailed("protocol_error", f"the first event is no completion chunk: {error}") from None
            return False  # not ours to judge once the stream runs: the caller gets what the backend sent
        if chunk.error != ABSENT:
            self.failed = True
        if chunk.usage == ABSENT:
            return False
        self.usage = read_usage(chunk.usage) or self.usage
        return self._drop_usage and not chunk.choices


def _last_event_end(data: bytes) -> int:
    """Where the last whole event in ``data`` ends; 0 if there is none."""
    end = 0
    for mark in (b"\n\n", b"\n\r\n", b"\r\r"):
        at = data.rfind(mark)
        if at >= 0:
            end = max(end, at + len(mark))
    return end
