"""Streams of chats as events of Messages, as the official client's accumulator reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.anthropic.stream_out import MessagesEvents
from tests.support.messages_stream import accumulated, deltas, events_of
from tests.support.scripts import DONE, event

ENVELOPE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 2}}


def told(*chunks: bytes, stops: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The events of a stream of these events and its end."""
    stream = MessagesEvents("r-1", frozenset(stops))
    return events_of(stream.feed(b"".join(chunks)) + stream.end())


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    """An event of a chat's stream."""
    return event(ENVELOPE | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def call(index: int | None, arguments: str | None = None, name: str | None = None, id_: str | None = None) -> bytes:
    """A piece of a call."""
    function = {"arguments": arguments, "name": name}
    piece = {
        "index": index,
        "id": id_,
        "function": {key: value for key, value in function.items() if value is not None},
    }
    return chunk(tool_calls=[piece])


END = (chunk("stop"), event(ENVELOPE | {"choices": [], "usage": USAGE}), DONE)


def content_of(*chunks: bytes) -> list[dict[str, Any]]:
    """The blocks that the official client makes of such a stream."""
    return accumulated(told(*chunks, *END)).to_dict()["content"]  # type: ignore[return-value]


def test_each_event_is_told_as_soon_as_it_comes() -> None:
    """Nothing of a text waits for what follows it."""
    stream = MessagesEvents("r-1", frozenset())
    first = stream.feed(chunk(role="assistant", content=""))
    assert [each["type"] for each in events_of(first)] == ["message_start"]
    second = stream.feed(chunk(content="a"))
    assert [each["type"] for each in events_of(second)] == ["content_block_start", "content_block_delta"]
    assert [each["type"] for each in events_of(stream.feed(chunk(content="b")))] == ["content_block_delta"]
    assert stream.feed(chunk("stop")) == b""
    assert [each["type"] for each in events_of(stream.feed(b"".join(END[1:])))] == [
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert stream.end() == b""


def test_the_frame_of_events() -> None:
    """Each event has its type as its name, too; the first one has no tokens, and the last but one all of them."""
    stream = MessagesEvents("r-1", frozenset())
    data = stream.feed(chunk(content="a") + b"".join(END))
    for block in data.decode().strip().split("\n\n"):
        name, payload = block.split("\n")
        assert name == f"event: {json.loads(payload.removeprefix('data: '))['type']}"
    events = events_of(data)
    assert events[0]["message"]["usage"]["input_tokens"] == 0
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 7,
            "output_tokens": 5,
            "cache_read_input_tokens": 2,
            "cache_creation_input_tokens": 0,
        },
    }


def test_reasoning_and_text() -> None:
    """Reasoning, its signature, what is redacted, text, and reasoning again are blocks one after the other."""
    thinking = {"type": "thinking", "thinking": "a", "signature": ""}
    signed = {"type": "thinking", "thinking": "", "signature": "s"}
    redacted = {"type": "redacted_thinking", "data": "d"}
    assert content_of(
        chunk(thinking_blocks=[thinking], reasoning_content="a"),
        chunk(thinking_blocks=[signed, thinking]),
        chunk(thinking_blocks=[signed, redacted]),
        chunk(content="t"),
        chunk(reasoning_content="b"),
        chunk(reasoning="c"),
    ) == [
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "thinking", "thinking": "a", "signature": "s"},
        redacted,
        {"type": "text", "text": "t"},
        {"type": "thinking", "thinking": "bc", "signature": ""},
    ]


def use(id_: str, name: str, **input_: Any) -> dict[str, Any]:
    """A block that calls a tool."""
    return {"type": "tool_use", "id": id_, "name": name, "input": input_}


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [
        ((call(0, "", "f", "1"), call(0, '{"a":'), call(0, "1}")), [use("1", "f", a=1)]),
        ((call(0, "", "f", "1"), call(1, "", "g", "2")), [use("1", "f"), use("2", "g")]),
        ((call(0, "{}", "f", "1"), call(1, '{"a":1}', "g", "2")), [use("1", "f"), use("2", "g", a=1)]),
        # Pieces of two calls mixed, text between them, and a third that comes while both are open.
        (
            (
                call(0, '{"a":', "f", "1"),
                call(1, '{"b":', "g", "2"),
                chunk(content="t"),
                call(2, "{}", "h", "3"),
                call(0, "1}"),
                call(1, "2}"),
            ),
            [use("1", "f", a=1), use("2", "g", b=2), {"type": "text", "text": "t"}, use("3", "h")],
        ),
        # Every call at the same place, or at none, each whole.
        ((call(0, "{}", "f", "1"), call(0, "{}", "g", "2")), [use("1", "f"), use("2", "g")]),
        ((call(None, "{}", "f", "1"), call(None, "{}", "g", "2")), [use("1", "f"), use("2", "g")]),
        # Id and name with every piece; no id at all; a piece of a call that never began.
        ((call(0, '{"a":', "f", "1"), call(0, "1}", "f", "1")), [use("1", "f", a=1)]),
        ((call(0, '{"a":', "f"), call(0, "1}")), [use("toolu_1_0", "f", a=1)]),
        ((call(3, "1}"), call(0, "{}", "f", "1"), call(0, " ")), [use("1", "f")]),
    ],
)
def test_calls(chunks: tuple[bytes, ...], blocks: list[dict[str, Any]]) -> None:
    """However a server streams its calls, each is one whole block."""
    events = told(*chunks, *END)
    message = accumulated(events)
    assert message.to_dict()["content"] == blocks
    assert message.stop_reason == "tool_use"


def test_arguments_are_told_piece_by_piece() -> None:
    """Of the call that is open; those of the next wait only while the first is not complete."""
    stream = MessagesEvents("r-1", frozenset())
    stream.feed(call(0, "", "f", "1"))
    assert deltas(events_of(stream.feed(call(0, '{"a"')))) == ['{"a"']
    assert stream.feed(call(1, '{"b"', "g", "2")) == b""
    assert deltas(events_of(stream.feed(call(0, ":1}")))) == [":1}", '{"b"']
    assert deltas(events_of(stream.feed(call(1, ":2}")))) == [":2}"]


def test_an_error_ends_it() -> None:
    """It is told with its text, and nothing follows; a type that the dialect does not know is a failure of the API."""
    error = event({"error": {"message": "m", "type": "overloaded_error", "code": "c"}})
    events = told(chunk(content="a"), error, chunk(content="b"), *END)
    assert [each["type"] for each in events] == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert events[-1]["error"] == {"type": "overloaded_error", "message": "m"}
    assert events[-1]["request_id"] == "r-1"
    assert told(event({"error": "m"}))[-1]["error"] == {"type": "api_error", "message": "m"}
    assert told(b"data: {]\n\n")[-1]["error"]["type"] == "api_error"


def test_an_end_without_its_marks() -> None:
    """A stream that ends without usage and ``[DONE]`` is ended all the same; one in which nothing came says nothing."""
    assert [each["type"] for each in told(chunk("length", content="a"))][-2:] == ["message_delta", "message_stop"]
    assert told() == []
    assert accumulated(told(*END)).content == []


def test_what_comes_before_the_answer() -> None:
    """Results of a content filter that name no answer (Azure), and other answers than the first, are passed over."""
    before = event({"id": "", "model": "", "choices": [], "prompt_filter_results": []})
    other = event(ENVELOPE | {"choices": [{"index": 1, "delta": {"content": "x"}}]})
    message = accumulated(told(before, chunk(content="a"), other, *END))
    assert (message.id, message.model, message.to_dict()["content"]) == ("msg_1", "m", [{"type": "text", "text": "a"}])


def test_a_sign_of_life() -> None:
    """A comment becomes a ping once the message has begun; before that and after its end it becomes nothing."""
    stream = MessagesEvents("r-1", frozenset())
    assert stream.feed(b": wait\n\n") == b""
    stream.feed(chunk(content="a"))
    assert events_of(stream.feed(b": wait\n\n")) == [{"type": "ping"}]
    stream.feed(b"".join(END))
    assert stream.feed(b": wait\n\n") == b""


def test_the_stop_sequence() -> None:
    """As the server says it with the end."""
    ended = event(ENVELOPE | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "#"}]})
    message = accumulated(told(chunk(content="a"), ended, *END[1:], stops=("#",)))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "#")
