"""Streams of chat completions: byte for byte at every split, less the usage event where it was not asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.stream import ChatStream
from gateway.errors import AttemptFailed
from tests.support.sse import Event, chunk, encoded, split, streams

MAX_EVENT_BYTES = 65_536


def passed_on(stream: ChatStream, pieces: list[bytes]) -> bytes:
    """Everything that a caller would get."""
    return b"".join([stream.feed(piece) for piece in pieces] + [stream.end()])


@settings(max_examples=600, deadline=None)
@given(streams(), st.booleans(), st.lists(st.integers(0, 100_000), max_size=12), st.booleans())
def test_output_is_input_less_the_usage_event(
    sent: list[Event], drop_usage: bool, points: list[int], byte_by_byte: bool
) -> None:
    """At any split, in any line ending, what comes out is what came in; only a usage event may be missing."""
    data = b"".join(event.sent for event in sent)
    pieces = [data[at : at + 1] for at in range(len(data))] if byte_by_byte else split(data, points)
    stream = ChatStream(drop_usage=drop_usage, max_event_bytes=MAX_EVENT_BYTES)
    expected = b"".join(event.sent for event in sent if not (drop_usage and event.reports_usage))
    assert passed_on(stream, pieces) == expected
    assert stream.started
    assert not stream.failed
    assert stream.done == sent[-1].sent.startswith(b"data: [DONE]")
    with_usage = any(event.reports_usage or b'"usage": {"pro' in event.sent for event in sent)
    with_usage = with_usage or any(b'"usage":{"pro' in event.sent for event in sent)
    assert (stream.usage is not None) == with_usage
    if stream.usage is not None:
        assert (stream.usage.input_tokens, stream.usage.output_tokens) == (11, 3)


@settings(max_examples=200, deadline=None)
@given(streams(), st.lists(st.integers(0, 100_000), max_size=12), st.integers(1, 40))
def test_only_whole_events_are_passed_on(sent: list[Event], points: list[int], stop_after: int) -> None:
    """Wherever a stream breaks, what was passed on ends with a whole event, so an error event can follow."""
    data = b"".join(event.sent for event in sent)
    stream = ChatStream(drop_usage=False, max_event_bytes=MAX_EVENT_BYTES)
    out = b"".join(stream.feed(piece) for piece in split(data, points)[:stop_after])
    whole = [b"".join(event.sent for event in sent[:count]) for count in range(len(sent) + 1)]
    assert out in whole


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_leave_as_soon_as_they_are_whole(end: str) -> None:
    """Nothing is held back but an unfinished event."""
    stream = ChatStream(drop_usage=True, max_event_bytes=MAX_EVENT_BYTES)
    one, two = encoded(chunk(""), end), encoded(chunk("word"), end)
    assert stream.feed(one) == one
    assert stream.feed(two[:-1]) == b""
    assert stream.feed(two[-1:]) == two
    assert stream.feed(one + two[:5]) == one
    assert stream.end() == two[:5]


def test_an_event_beyond_its_bound_is_an_error() -> None:
    """An unfinished event may be as long as the bound and no longer, however it is split."""
    stream = ChatStream(drop_usage=False, max_event_bytes=1000)
    stream.feed(encoded(chunk("")))
    assert stream.feed(b"data: " + b"x" * 994) == b""
    with pytest.raises(AttemptFailed) as failure:
        stream.feed(b"x")
    assert failure.value.outcome == "protocol_error"


def test_an_error_event_marks_the_stream() -> None:
    """An event that reports an error is passed on and remembered; null or the word in a text is none."""
    stream = ChatStream(drop_usage=True, max_event_bytes=MAX_EVENT_BYTES)
    stream.feed(encoded(chunk("", error=None)))
    stream.feed(encoded(chunk('an "error": {}')))
    assert not stream.failed
    broken = encoded({"error": {"message": "CUDA out of memory"}})
    assert stream.feed(broken) == broken
    assert stream.failed


def test_an_error_object_marks_the_stream() -> None:
    """The form in which older servers tell of an error, as the first event and later."""
    broken = encoded({"object": "error", "message": "CUDA out of memory", "type": "x", "param": None, "code": 500})
    for before in ([], [encoded(chunk(""))]):
        stream = ChatStream(drop_usage=True, max_event_bytes=MAX_EVENT_BYTES)
        assert passed_on(stream, [*before, broken]) == b"".join([*before, broken])
        assert stream.failed


@pytest.mark.parametrize("first", [b"data: <html>\n\n", b"data: [1]\n\n", b'data: {"choices":1}\n\n'])
def test_a_stream_that_begins_with_something_else_is_refused(first: bytes) -> None:
    """As long as nothing was passed on, what is no completion chunk fails the attempt."""
    with pytest.raises(AttemptFailed) as failure:
        ChatStream(drop_usage=False, max_event_bytes=MAX_EVENT_BYTES).feed(first)
    assert failure.value.outcome == "protocol_error"


def test_comments_do_not_start_a_stream() -> None:
    """A keep-alive comment before the first data is passed on, and is no answer yet."""
    stream = ChatStream(drop_usage=False, max_event_bytes=MAX_EVENT_BYTES)
    assert stream.feed(b": waiting\n\n") == b": waiting\n\n"
    assert not stream.started
    stream.feed(encoded(chunk("")))
    assert stream.started


def test_output_is_estimated_from_what_was_streamed() -> None:
    """Without reported usage, the text's size is known up to the envelope of an event."""
    stream = ChatStream(drop_usage=True, max_event_bytes=MAX_EVENT_BYTES)
    stream.feed(encoded(chunk("")))
    for _ in range(10):
        stream.feed(encoded(chunk("12345678")))
    assert (stream.events, stream.output_bytes, stream.usage) == (11, 80, None)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "tool_calls"])
def test_text_in_the_first_event_is_no_envelope(field: str) -> None:
    """Backends that make a tool call send all of it in one event; it counts like any other text."""
    text: Any = "x" * 4000 if field != "tool_calls" else [{"function": {"name": "f", "arguments": "x" * 4000}}]
    first = {"choices": [{"index": 0, "delta": {"role": "assistant", field: text}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    stream = ChatStream(drop_usage=True, max_event_bytes=MAX_EVENT_BYTES)
    for each in (first, last):
        stream.feed(b"data: %b\n\n" % json.dumps(each).encode())
    assert 3900 <= stream.output_bytes <= 4100


def test_senseless_usage_is_no_usage() -> None:
    """A usage event whose figures make no sense is removed like any other and counts for nothing."""
    stream = ChatStream(drop_usage=True, max_event_bytes=MAX_EVENT_BYTES)
    stream.feed(encoded(chunk("")))
    assert stream.feed(encoded(chunk(None, usage={"prompt_tokens": -1}))) == b""
    assert stream.feed(encoded(chunk(None, usage={"prompt_tokens": "many"}))) == b""
    assert stream.usage is None
