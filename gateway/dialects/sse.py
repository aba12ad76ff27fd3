"""Server-sent events cut out of a stream of bytes that arrives in pieces.

Invariant: however the bytes are cut into pieces, the events are the same.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.errors import AttemptFailed

_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_END_BYTES_MAX = 4


class Event(NamedTuple):
    """One event; ``name`` is empty where it has none."""

    name: bytes
    data: bytes


_COMMENT = Event(b"", b"")


class EventReader:
    """Reads one stream. What is held of an event that is not complete is bounded by ``max_event_bytes``.

    With ``tells_comments`` a comment that stands alone is an event without name and data.
    """

    __slots__ = ("_held", "_max_event_bytes", "_tells_comments")

    def __init__(self, max_event_bytes: int, *, tells_comments: bool = False) -> None:
        self._max_event_bytes = max_event_bytes
        self._tells_comments = tells_comments
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes; those that hold no data, such as comments, are left out.

        Raises AttemptFailed (protocol_error).
        """
        held = self._held
        search_from = max(len(held) - _END_BYTES_MAX + 1, 0)
        held += data
        known = len(held) - held.endswith(b"\r")  # which may be half of a line's end
        events: list[Event] = []
        at = 0
        while (end := _EVENT_END.search(held, search_from, known)) is not None:
            event = _parse(bytes(held[at : end.start()]))
            if event is not None:
                events.append(event)
            elif self._tells_comments and held.startswith(b":", at):
                events.append(_COMMENT)
            at = search_from = end.end()
        del held[:at]
        if len(held) > self._max_event_bytes:
            raise AttemptFailed("protocol_error", f"an event of more than {self._max_event_bytes} bytes")
        return events

    @property
    def held_bytes(self) -> int:
        """How many bytes at the end of what was fed belong to an event that is not complete."""
        return len(self._held)

    def end(self) -> list[Event]:
        """The last event, where the stream ended without the empty line after it."""
        event = _parse(bytes(self._held))
        self._held.clear()
        return [] if event is None else [event]


def _parse(text: bytes) -> Event | None:
    name = b""
    data: list[bytes] = []
    for line in _LINE_END.split(text):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name, b"\n".join(data)) if data else None
