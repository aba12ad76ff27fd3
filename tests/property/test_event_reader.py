"""Server-sent events are the same however the bytes that hold them are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.sse import Event, EventReader
from gateway.errors import AttemptFailed

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12).map(str.encode)
NAMES = st.sampled_from([b"", b"message_start", b"ping"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A stream, and the events that it holds; each stream has line ends of one kind, as real ones do."""
    end = draw(LINE_ENDS)
    written, events = b"", []
    for _ in range(draw(st.integers(0, 5))):
        name, data = draw(NAMES), draw(st.lists(TEXTS, max_size=3))
        lines = [b"event: " + name] if name else []
        lines += [b"data: " + each for each in data]
        if draw(st.booleans()):
            lines.append(b": a comment")
        if not lines:
            continue
        written += b"".join(line + end for line in lines) + end
        if data:
            events.append(Event(name, b"\n".join(data)))
    return written, events


@given(streams(), st.data())
def test_events_are_the_same_however_they_are_cut(stream: tuple[bytes, list[Event]], data: st.DataObject) -> None:
    """Cut anywhere, at every byte too."""
    written, events = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=6)))
    for places in ([0, *cuts, len(written)], list(range(len(written) + 1))):
        reader = EventReader(4096)
        found: list[Event] = []
        for start, stop in itertools.pairwise(places):
            found += reader.feed(written[start:stop])
        assert found + reader.end() == events


def test_an_event_without_its_end_is_read_at_the_end() -> None:
    """Of a server that closes right after its last line."""
    reader = EventReader(64)
    assert reader.feed(b"data: a") == []
    assert reader.end() == [Event(b"", b"a")]
    assert reader.end() == []


def test_an_event_has_a_bound() -> None:
    """Nobody makes the gateway keep more than that."""
    reader = EventReader(64)
    with pytest.raises(AttemptFailed, match="more than 64 bytes"):
        reader.feed(b"data: " + b"x" * 64)
