"""Streams of Converse as events of a chat completion: whatever comes, however it is cut."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.bedrock.stream import ConverseTranslator
from gateway.dialects.openai.stream import ChatStream
from gateway.errors import AttemptFailed
from gateway.model import Usage
from tests.support.bedrock import (
    CACHED_USAGE,
    Event,
    allowed_event,
    encode_event,
    encode_exception,
    encode_message,
    end_events,
    text_events,
    tool_events,
)

DONE = b"data: [DONE]\n\n"
TEXTS = st.text('aé"\\\n\u2028{}', min_size=1, max_size=6)


def told(*pieces: bytes, ended: bool = True) -> bytes:
    """What is told of a stream that comes in these pieces, without what is new each time."""
    translator = ConverseTranslator("m", 4096)
    said = b"".join([translator.feed(piece) for piece in pieces])
    said += translator.end() if ended else b""
    return said.replace(translator._id.encode(), b"chatcmpl-1").replace(
        b'"created":%d' % translator._created, b'"created":1'
    )


def events_of(said: bytes) -> list[Any]:
    """The events, decoded; the end as it is."""
    lines = [line.removeprefix(b"data: ") for line in said.split(b"\n\n") if line]
    return [line if line == b"[DONE]" else msgspec.json.decode(line) for line in lines]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Event], str, list[tuple[str, str]], str]:
    """A stream of blocks of all kinds; the text, the calls and the reasoning that it holds."""
    events: list[Event] = [("messageStart", {"role": "assistant"})]
    text, thought, calls = "", "", []
    for index, kind in enumerate(draw(st.lists(st.sampled_from(["text", "tool", "thought", "other"]), max_size=4))):
        pieces = draw(st.lists(TEXTS, max_size=3))
        if kind == "tool":
            calls.append((f"tooluse_{index}", "".join(pieces) or "{}"))
            events += tool_events(index, f"tooluse_{index}", "now", *pieces)
            continue
        for piece in pieces:
            delta: dict[str, Any] = {"text": piece}
            if kind == "thought":
                thought += piece
                delta = {"reasoningContent": {"text": piece}}
            elif kind == "other":
                delta = {"citation": {"title": piece}}
            else:
                text += piece
            events.append(("contentBlockDelta", {"delta": delta, "contentBlockIndex": index}))
        events.append(("contentBlockStop", {"contentBlockIndex": index}))
    return [*events, *end_events("tool_use" if calls else "end_turn")], text, calls, thought


@settings(max_examples=40)
@given(streams(), st.data())
def test_a_stream_says_the_same_however_it_is_cut(
    stream: tuple[list[Event], str, list[tuple[str, str]], str], data: st.DataObject
) -> None:
    """Its text, its calls and its reasoning, each whole; first who speaks, then why it ended, usage and the end."""
    events, text, calls, thought = stream
    written = b"".join(encode_event(name, allowed_event(name, payload)) for name, payload in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=5)))
    whole = told(written)
    for places in ([0, *cuts, len(written)], range(len(written) + 1)):
        assert told(*(written[a:b] for a, b in itertools.pairwise(places))) == whole
    *chunks, usage, end = events_of(whole)
    assert end == b"[DONE]"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == thought
    found: dict[int, list[str]] = {}
    for call in [call for delta in deltas for call in delta.get("tool_calls", [])]:
        parts = found.setdefault(call["index"], [call.get("id", ""), ""])
        parts[1] += call["function"]["arguments"]
    assert [(parts[0], parts[1]) for _, parts in sorted(found.items())] == calls
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["tool_calls" if calls else "stop"]


def test_usage_is_all_input_and_is_dropped_for_those_who_did_not_ask() -> None:
    """What was read from a cache and written to it counts; the gateway sees it in any case."""
    stream = ChatStream(drop_usage=True, max_event_bytes=4096)
    written = b"".join(encode_event(*each) for each in text_events("Hi", usage=CACHED_USAGE))
    passed = stream.feed(told(written))
    assert b'"usage"' not in passed
    assert stream.done
    expected = Usage(input_tokens=1103, cached_input_tokens=1000, output_tokens=7, cache_written_input_tokens=100)
    assert stream.usage == expected


def test_what_is_not_known_is_nothing() -> None:
    """Events, blocks, deltas and reasons of later versions of the service; calls that are the service's own."""
    server = {"toolUse": {"toolUseId": "t", "name": "search", "type": "server_tool_use"}}
    written = b"".join(
        [
            encode_event("messageStart", {"role": "assistant"}),
            encode_event("somethingNew", {"a": [1]}),
            encode_event("contentBlockStart", {"start": {"image": {"format": "png"}}, "contentBlockIndex": 0}),
            encode_event("contentBlockDelta", {"delta": {"image": {"source": {}}}, "contentBlockIndex": 0}),
            encode_event("contentBlockStart", {"start": server, "contentBlockIndex": 1}),
            encode_event("contentBlockDelta", {"delta": {"toolUse": {"input": "{}"}}, "contentBlockIndex": 1}),
            encode_event("contentBlockStop", {"contentBlockIndex": 1}),
            encode_event("contentBlockDelta", {"delta": {"reasoningContent": {}}, "contentBlockIndex": 2}),
            encode_event("contentBlockDelta", {"delta": {"text": "Hi"}, "contentBlockIndex": 3}),
            encode_event("messageStop", {"stopReason": "pause_turn"}),
        ]
    )
    *chunks, end = events_of(told(written))
    assert end == b"[DONE]"
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "Hi", None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_redacted_reasoning_is_told_as_it_came() -> None:
    """Base64, as the service writes it."""
    data = base64.b64encode(b"hidden").decode()
    delta = {"reasoningContent": {"redactedContent": data}}
    [chunk] = events_of(told(encode_event("contentBlockDelta", {"delta": delta}), ended=False))
    assert chunk["choices"][0]["delta"] == {"thinking_blocks": [{"type": "redacted_thinking", "data": data}]}


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (encode_exception("throttlingException", "hush"), "rate_limited"),
        (encode_exception("internalServerException", "hush"), "server_error"),
        (encode_exception("somethingNewException", "hush"), "error_in_body"),
        (encode_message({":message-type": "error", ":error-code": "InternalFailure"}, b""), "error_in_body"),
        (encode_message({":message-type": "event", ":event-type": "messageStop"}, b"[]"), "protocol_error"),
        (encode_message({":message-type": "event", ":event-type": "messageStop"}, b"{"), "protocol_error"),
    ],
)
def test_a_failure_before_anything_was_said_fails_the_attempt(failure: bytes, outcome: str) -> None:
    """In words that hold nothing of what came."""
    with pytest.raises(AttemptFailed) as caught:
        told(failure)
    assert caught.value.outcome == outcome
    assert "hush" not in caught.value.detail


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"message":null}', b'{"message":"say it"}'])
def test_a_wrong_request_is_told_in_a_stream(payload: bytes) -> None:
    """With what the service says of it, where that can be read; nothing follows an error."""
    failure = encode_message({":message-type": "exception", ":exception-type": "validationException"}, payload)
    start = encode_event("messageStart", {"role": "assistant"})
    _, event = events_of(told(start, failure, start))
    assert event["error"]["type"] == "invalid_request_error"
    expected = "say it" if b"say it" in payload else "The model backend refused the request."
    assert event["error"]["message"] == expected


def test_a_stream_must_come_to_its_end() -> None:
    """Usage before the answer's end is none; a stream without its last event has said all that a caller needs."""
    start = encode_event("messageStart", {"role": "assistant"})
    usage = encode_event(*end_events()[1])
    with pytest.raises(AttemptFailed, match="before its messageStop"):
        told(start, usage)
    stop = encode_event(*end_events()[0])
    assert told(start, stop).endswith(DONE)
    assert told(start, stop, usage[:20], ended=False)
    with pytest.raises(AttemptFailed, match="within a message"):
        told(start, stop, usage[:20])


def test_malformed_output_is_an_error_and_is_counted() -> None:
    """The caller learns that it is of no use; what it cost is known all the same."""
    written = b"".join(encode_event(*each) for each in text_events("{", stop="malformed_tool_use"))
    *_, error, usage = events_of(told(written))
    assert error["error"]["type"] == "upstream_error"
    assert usage["usage"]["completion_tokens"] == 5
