"""Responses as a caller's dialect: requests read, and streams told; pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.dialects import form
from gateway.dialects.responses.answer import Envelope, Item
from gateway.dialects.responses.items import PackedReasoning, pack_reasoning, unpack_reasoning
from gateway.dialects.responses.read import read_asked, read_request
from gateway.dialects.responses.stream import ResponseEvents
from gateway.dialects.sse import Event, EventReader
from gateway.errors import InvalidRequest
from gateway.model import ChatRequest
from tests.support.scripts import DONE, event

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def read(**fields: Any) -> ChatRequest:
    """The chat request of these fields."""
    body = json.dumps({"model": "m", "input": "hello"} | fields).encode()
    return read_request(read_asked(body, 64))


def messages(*items: dict[str, Any]) -> Any:
    """The messages of a conversation of these items."""
    return json.loads(bytes(read(input=list(items)).fields["messages"]))


def test_a_turn_of_the_assistant_is_one_message() -> None:
    """What it thought, said and called, up to the next turn of somebody else; a further text is a further message."""
    packed = pack_reasoning(PackedReasoning(blocks=[form.Thinking(thinking="hm", signature="s")]))
    assert messages(
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": packed},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b", "annotations": []}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}", "extra_content": {"google": {}}},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    ) == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "b",
            "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": "{}"}, "type": "function"},
                {
                    "id": "2",
                    "function": {"name": "g", "arguments": "{}"},
                    "type": "function",
                    "extra_content": {"google": {}},
                },
            ],
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        },
        {"role": "tool", "content": "x", "tool_call_id": "1"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]


def test_reasoning_of_another_origin_is_left_out() -> None:
    """Whatever its ``encrypted_content`` is, and though nothing follows it."""
    for content in (None, "opaque", "gw1.!!!", "gw1.e30"):
        item: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": content}
        assert messages({"role": "user", "content": "a"}, item) == [{"role": "user", "content": "a"}]
    assert unpack_reasoning("gw1." + "A" * 9) is None


def test_what_chat_has_no_place_for_is_named() -> None:
    """By its place, and the request is still read: a backend of the same dialect may take it."""
    request = read(
        truncation="auto",
        a_later_field=1,
        include=["file_search_call.results"],
        tools=[{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
        tool_choice={"type": "mcp"},
        input=[{"role": "user", "content": [{"type": "input_video"}]}, {"role": "user", "content": "a"}],
        text={"format": {"type": "grammar"}},
        reasoning={"effort": "low", "mode": "x"},
    )
    assert request.native is not None
    assert set(request.native.beyond) == {
        "truncation",
        "a_later_field",
        "include[file_search_call.results]",
        "tools[1]",
        "tool_choice",
        "input[0].content[0].type",
        "text.format",
        "reasoning",
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"m","model":"n","input":"x"}', "model"),
        (b'{"model":"m","Input":"y","input":"x"}', "Input"),
        (b'{"model":"m"}', "input"),
        (b'{"input":"x"}', "model"),
        (b'{"model":"m","input":7}', "input"),
        (b'{"model":"m","input":[1]}', "input"),
        (b'{"model":"m","input":"x","stream":1}', "stream"),
        (b'{"model":"m","input":"x","include":"all"}', "include"),
        (b'{"model":"m","input":"x","instructions":["a"]}', "instructions"),
        (b'{"model":"m","input":"x","tools":{}}', "tools"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str) -> None:
    """As on the chat endpoint."""
    with pytest.raises(InvalidRequest) as caught:
        read_request(read_asked(body, 64))
    assert caught.value.param == param


def events_of(written: bytes) -> list[Event]:
    """The events of a stream."""
    reader = EventReader(1 << 20)
    return reader.feed(written) + reader.end()


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        {"input": [{"type": "novel", "deep": [{"file_ids": ["file-1"]}]}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        {"prompt": {"id": "pmpt_1"}},
    ],
)
def test_nothing_reaches_what_a_provider_keeps_for_all_tenants(fields: dict[str, Any]) -> None:
    """However it is written: with escapes, too."""
    body = json.dumps({"model": "m", "input": "x"} | fields)
    escaped = body.replace("item_reference", "item\\u005freference").replace("file_id", "file\\u005fid")
    for each in {body, escaped}:
        with pytest.raises(InvalidRequest) as caught:
            read_asked(each.encode(), 64)
        assert caught.value.code == "unsupported_field"


def test_a_long_answer_is_told_to_its_end() -> None:
    """What counts is what is said, not the frames that it comes in."""
    asked = read_asked(b'{"model":"m","input":"x"}', 64)
    stream = ResponseEvents(Envelope(asked, "resp_1", 0), 5000, lambda _: None)
    written = b"".join(stream.feed(delta(content="word ")) for _ in range(900)) + stream.end()
    assert json.loads(events_of(written)[-1].data)["type"] == "response.completed"


def delta(finish: str | None = None, **told: Any) -> bytes:
    """One event of a streamed chat completion."""
    return event({"choices": [{"index": 0, "delta": told, "finish_reason": finish}]})


def call_delta(index: int, **call: Any) -> bytes:
    """A piece of a call."""
    return delta(tool_calls=[{"index": index} | call])


STREAM = b"".join(
    [
        delta(role="assistant", content=""),
        delta(reasoning_content="think"),
        delta(thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "sig"}]),
        delta(content="Hel"),
        delta(content="lo \u00e4"),
        delta(refusal="no"),
        call_delta(0, id="a", type="function", function={"name": "f", "arguments": ""}),
        call_delta(1, id="b", type="function", function={"name": "g", "arguments": "{}"}),
        call_delta(0, function={"arguments": '{"x":1}'}),
        delta(content="more"),
        delta(finish="tool_calls"),
        event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}),
        DONE,
    ]
)


def told(pieces: list[bytes]) -> tuple[list[Any], list[list[Item]]]:
    """The events that these pieces become, and what was kept."""
    kept: list[list[Item]] = []
    asked = read_asked(b'{"model":"m","input":"x"}', 64)
    stream = ResponseEvents(Envelope(asked, "resp_1", 1760000000), 1 << 20, kept.append)
    written = b"".join(stream.feed(piece) for piece in pieces) + stream.end()
    return [json.loads(each.data) for each in events_of(written)], kept


def test_every_event_is_one_that_the_client_knows_and_takes() -> None:
    """By its own types and its own accumulator, for a stream with everything in it."""
    events, kept = told([STREAM])
    state = ResponseStreamState[None](input_tools=[], text_format=omit)
    for each in events:
        state.handle_event(EVENTS.validate_python(each))
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    assert [part["type"] for part in response["output"][1]["content"]] == ["output_text", "refusal"]
    assert (response["output"][1]["content"][0]["text"], response["output"][2]["arguments"]) == (
        "Hello \u00e4",
        '{"x":1}',
    )
    assert response["output"][0]["encrypted_content"] is None
    assert unpack_reasoning(kept[0][0]["encrypted_content"]) == PackedReasoning(
        text="think", blocks=[form.Thinking(thinking="", signature="sig")]
    )
    opened = [each["output_index"] for each in events if each["type"] == "response.output_item.added"]
    closed = [each["output_index"] for each in events if each["type"] == "response.output_item.done"]
    assert opened == sorted(opened)
    assert sorted(opened) == sorted(closed) == [0, 1, 2, 3, 4]


def test_the_events_are_the_same_however_the_stream_is_cut() -> None:
    """At every byte."""
    expected = told([STREAM])
    assert told([STREAM[at : at + 1] for at in range(len(STREAM))]) == expected
    for at in range(0, len(STREAM), 97):
        assert told([STREAM[:at], STREAM[at:]]) == expected


def test_a_stream_of_nothing_is_an_empty_message() -> None:
    """As a whole answer of nothing is."""
    events, _ = told([delta(finish="stop"), DONE])
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message"]
    assert events[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "m", "type": "upstream_error"}, "server_error"),
        ({"message": "m", "type": "rate_limit_error"}, "rate_limit_exceeded"),
        ("odd", "server_error"),
    ],
)
def test_an_error_ends_it_as_failed(error: Any, code: str) -> None:
    """With what was complete before; nothing comes after it, and nothing is kept."""
    events, kept = told(
        [delta(reasoning_content="r"), delta(content="Hel"), event({"error": error}), delta(content="lo")]
    )
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == code
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning"]
    assert kept == []


def test_a_response_has_a_bound() -> None:
    """What was said is kept for the last event, so there is an end to it."""
    asked = read_asked(b'{"model":"m","input":"x"}', 64)
    stream = ResponseEvents(Envelope(asked, "resp_1", 0), 1000, lambda _: None)
    written = b"".join(stream.feed(delta(content="x" * 100)) for _ in range(20))
    assert json.loads(events_of(written)[-1].data)["type"] == "response.failed"
