"""Chat streams of any content for property tests: events in every spelling, and where they are cut."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
TEXTS = st.text(max_size=8) | st.sampled_from(
    ['"usage":{', '"error"', "\\", "\n\n", "\r\n\r\n", "data: [DONE]", "[DONE]", '{"usage": {}}', "\r\r", "\u2028"]
)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@dataclass(frozen=True)
class Event:
    """One event as sent; ``reports_usage`` where it is the one that is removed."""

    sent: bytes
    reports_usage: bool = False
    reports_error: bool = False


def chunk(text: str | None = "", **more: Any) -> dict[str, Any]:
    """A chunk with one choice, or none where ``text`` is None."""
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return {"id": "c", "object": "chat.completion.chunk", "choices": choices} | more


def encoded(document: object, end: str = "\n", prefix: str = "data: ", **options: Any) -> bytes:
    """An event with a JSON payload."""
    return (prefix + json.dumps(document, **options) + end + end).encode()


@st.composite
def events(draw: st.DrawFn, end: str) -> Event:
    """Any event of a chat stream: text, comments, named events, usage in its forms."""
    kind = draw(
        st.sampled_from(["text", "text", "text", "comment", "named", "usage", "usage with text", "null", "raw"])
    )
    prefix = draw(st.sampled_from(["data: ", "data:", f"id: 7{end}data: "]))
    options: dict[str, Any] = {
        "ensure_ascii": draw(st.booleans()),
        "separators": draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    }
    if kind == "comment":
        return Event(f": keep-alive{end}{end}".encode())
    if kind == "raw":
        return Event(f"data: not json \u00e4 {draw(st.integers())}{end}{end}".encode())
    if kind == "named":
        return Event(encoded(chunk(draw(TEXTS)), end, f"event: message{end}data: "))
    if kind == "usage":
        return Event(encoded(chunk(None, usage=USAGE), end, prefix, **options), reports_usage=True)
    extras: dict[str, dict[str, Any]] = {"usage with text": {"usage": USAGE}, "null": {"usage": None}}
    extra = extras.get(kind, {})
    return Event(encoded(chunk(draw(TEXTS), **extra), end, prefix, **options))


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A first chunk, then any events, then maybe ``[DONE]``; one kind of line ending."""
    end = draw(LINE_ENDS)
    found = [Event(encoded(chunk(""), end)), *draw(st.lists(events(end), max_size=8))]
    return [*found, Event(f"data: [DONE]{end}{end}".encode())] if draw(st.booleans()) else found


def split(data: bytes, points: list[int]) -> list[bytes]:
    """``data`` cut at ``points``."""
    cuts = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(cuts) if start < stop]
