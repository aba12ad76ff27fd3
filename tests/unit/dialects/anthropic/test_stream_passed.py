"""A stream of Messages that passes as it comes."""

from __future__ import annotations

import pytest

from gateway.dialects.anthropic.stream_passed import PassedEvents
from gateway.errors import AttemptFailed, UpstreamFailed
from gateway.model import Usage
from tests.support.anthropic_api import error_event, events_of, message, sse, text, thinking, tool_use

ANSWER = message(thinking("So"), text('An "error" is said'), tool_use("f", {"message_stop": "error"}))
EVENTS = [sse(event) for event in events_of(ANSWER)]
STREAM = b"".join(EVENTS)
USED = Usage(
    input_tokens=327, cached_input_tokens=300, cache_written_input_tokens=20, output_tokens=40, reasoning_tokens=11
)


def test_it_passes_byte_for_byte_however_it_is_cut() -> None:
    """At every byte, whole events only, and the same is read of it."""
    for at in range(len(STREAM)):
        stream = PassedEvents(100_000)
        first = stream.feed(STREAM[:at])
        assert first == b"" or first.endswith(b"\n\n")
        assert first + stream.feed(STREAM[at:]) + stream.end() == STREAM
        assert (stream.done, stream.failed, stream.usage, stream.events) == (True, False, USED, len(EVENTS) - 3)
    stream = PassedEvents(100_000)
    assert b"".join(stream.feed(bytes([byte])) for byte in STREAM) == STREAM
    assert stream.usage == USED


def test_with_other_line_ends_it_passes_too() -> None:
    """As the standard has them."""
    told = STREAM.replace(b"\n", b"\r\n")
    stream = PassedEvents(100_000)
    assert stream.feed(told[:-3]) + stream.feed(told[-3:]) + stream.end() == told
    assert stream.usage == USED


def test_a_stream_that_is_cut_has_its_input_and_about_its_output() -> None:
    """What was said at the start, and the bytes of text."""
    stream = PassedEvents(100_000)
    for event in EVENTS[:-2]:
        stream.feed(event)
    assert stream.usage is None
    assert stream.begun_usage is not None
    assert (stream.begun_usage.input_tokens, stream.begun_usage.cached_input_tokens) == (327, 300)
    said = len('SoAn "error" is said{"message_stop": "error"}')
    assert said <= stream.output_bytes <= 12 * said
    with pytest.raises(AttemptFailed) as caught:
        stream.end()
    assert caught.value.outcome == "reset"


def test_an_error_is_the_end_and_passes() -> None:
    """Unless it speaks of the account: then the caller is told in the gateway's words."""
    stream = PassedEvents(100_000)
    broken = error_event("overloaded_error", "Overloaded")
    assert stream.feed(EVENTS[0]) + stream.feed(broken) + stream.end() == EVENTS[0] + broken
    assert stream.failed
    stream = PassedEvents(100_000)
    stream.feed(EVENTS[0])
    with pytest.raises(AttemptFailed):
        stream.feed(error_event("api_error", "your organization has no credit balance"))
    told = stream.error_event(UpstreamFailed("The model backend broke off its answer."))
    assert told.startswith(b"event: error\ndata: {")


@pytest.mark.parametrize(
    ("begins", "status"),
    [
        (error_event("overloaded_error", "Overloaded"), 529),
        (b"data: hello\n\n", None),
        (EVENTS[-1], None),
    ],
)
def test_what_begins_wrong_fails_the_attempt(begins: bytes, status: int | None) -> None:
    """So that another backend can be asked."""
    with pytest.raises(AttemptFailed) as caught:
        PassedEvents(100_000).feed(begins)
    assert caught.value.status == status


def test_an_event_has_a_bound() -> None:
    """What is held is no more."""
    with pytest.raises(AttemptFailed):
        PassedEvents(100).feed(b"data: " + b"x" * 200)
