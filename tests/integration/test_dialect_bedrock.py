"""Bedrock behind the gateway, called with the official OpenAI client: what is asked arrives, what is answered is told.

Each request is held against AWS's own model of the service and its signature against AWS's own signer
(``tests.support.bedrock``). The answers follow
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and its ConverseStream.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.bedrock import (
    CACHED_USAGE,
    Event,
    encode_event,
    end_events,
    text_events,
    tool_events,
)
from tests.support.bedrock_gateway import HELLO, Running, serving
from tests.support.openai_api import KINDS, Api, Kind, text_of

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n-pixels").decode()
PDF = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7 pages").decode()
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "now"}}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """See ``serving``."""
    with serving() as running:
        yield running


@pytest.fixture
def world(running: Running) -> Iterator[Running]:
    """The same, as new; afterwards nothing was asked that the service does not allow."""
    running.upstream.forget()
    yield running
    assert running.bedrock.faults == []


def sent(world: Running) -> Any:
    """The body of the last request that arrived."""
    return world.upstream.requests[-1].json()


@pytest.mark.parametrize("kind", KINDS)
def test_text_of_a_conversation(world: Running, kind: Kind) -> None:
    """Instructions go before it, sides that speak twice speak once, settings have their place."""
    world.upstream.enqueue(world.bedrock.answers([{"text": "Good "}, {"text": "day"}], usage=CACHED_USAGE))
    answer = Api(kind, world.gateway).complete(
        model="claude",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "there"}]},
            {"role": "assistant", "content": "Yes?"},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "What day is it?"},
        ],
        max_tokens=99,
        temperature=0.5,
        top_p=0.9,
        stop=["END", "STOP"],
        extra_body={"top_k": 40},
    )
    assert answer.choices[0].message.content == "Good day"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "claude"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (1103, 7, 1110)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1000
    assert world.upstream.requests[0].target == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    assert sent(world) == {
        "messages": [
            {"role": "user", "content": [{"text": "Hello"}, {"text": "there"}]},
            {"role": "assistant", "content": [{"text": "Yes?"}]},
            {"role": "user", "content": [{"text": "What day is it?"}]},
        ],
        "system": [{"text": "Be brief."}, {"text": "Be kind."}],
        "inferenceConfig": {"maxTokens": 99, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END", "STOP"]},
        "additionalModelRequestFields": {"top_k": 40},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_text_as_a_stream(world: Running, kind: Kind) -> None:
    """Piece by piece, with usage where it was asked for, and charged where not."""
    world.upstream.enqueue(world.bedrock.streams(*text_events("Good", " day", usage=CACHED_USAGE)))
    api = Api(kind, world.gateway, default_headers={"x-request-id": f"bedrock-stream-{kind}"})
    chunks = api.stream(model="claude", messages=HELLO, stream_options={"include_usage": True})
    assert text_of(chunks) == "Good day"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (1103, 7)
    world.upstream.enqueue(world.bedrock.streams(*text_events("Good", " day", stop="max_tokens")))
    chunks = api.stream(model="claude", messages=HELLO)
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    line = world.gateway.wait_for_log(lambda line: line.get("request_id") == f"bedrock-stream-{kind}")
    assert line["provider"] == "bedrock"
    tokens = {"input": 1103, "cached": 1000, "output": 7, "estimated": False, "cache_written": 100}
    assert line["tokens"] == tokens


def test_a_stream_cut_anywhere_is_the_same(world: Running) -> None:
    """Messages that come in small writes, cut within their lengths, headers and checksums."""
    events = text_events("Grüße", " und ", "mehr")
    length = sum(len(encode_event(*each)) for each in events)
    for step in (1, 7, 64):
        world.upstream.enqueue(world.bedrock.streams(*events, pieces=range(step, length, step)))
        assert text_of(Api("sync", world.gateway).stream(model="claude", messages=HELLO)) == "Grüße und mehr"


def test_a_model_named_by_its_arn_with_a_bearer_key(world: Running) -> None:
    """The ARN is one segment of the path; the account in it is nobody's business who asks."""
    world.upstream.enqueue(world.bedrock.answers([{"text": "Yes"}]))
    answer = Api("sync", world.gateway).raw(model="profile", messages=HELLO)
    assert answer.completion.model == "profile"
    assert "123456789012" not in answer.completion.model_dump_json()
    path = "arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3d4e5f6"
    assert world.upstream.requests[0].target == f"/model/{path}/converse"
    assert world.bedrock.signed_by[-1] == "bearer"


def test_images_documents_and_marks_of_a_cache(world: Running) -> None:
    """Data goes as it is; documents get names that the service takes, each its own."""
    world.upstream.enqueue(world.bedrock.answers([{"text": "A cat"}]))
    marked = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    content: Any = [
        {"type": "text", "text": "Compare"} | marked,
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "file", "file": {"file_data": PDF, "filename": "Q3_report: final (2).pdf"}},
        {"type": "file", "file": {"file_data": PDF, "filename": "Q3 report - final (2).pdf"}},
        {"type": "file", "file": {"file_data": PDF}},
    ]
    system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": content}]
    Api("sync", world.gateway).complete(model="claude", messages=messages, tools=[WEATHER | marked])
    data = {"bytes": PDF.partition(",")[2]}
    assert sent(world)["system"] == [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}]
    assert sent(world)["messages"][0]["content"] == [
        {"text": "Compare"},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
        {"image": {"format": "png", "source": {"bytes": PNG.partition(",")[2]}}},
        {"document": {"format": "pdf", "name": "Q3 report final (2)", "source": data}},
        {"document": {"format": "pdf", "name": "Q3 report - final (2)", "source": data}},
        {"document": {"format": "pdf", "name": "document", "source": data}},
    ]
    assert sent(world)["toolConfig"]["tools"][1] == {"cachePoint": {"type": "default", "ttl": "1h"}}


@pytest.mark.parametrize("kind", KINDS)
def test_tools_in_a_loop(world: Running, kind: Kind) -> None:
    """The model calls two at once; both results, one of a tool that failed, are one turn; then it answers."""
    api = Api(kind, world.gateway)
    uses: list[dict[str, Any]] = [
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "tooluse_a", "name": "get_weather", "input": {"city": "Bonn"}}},
        {"toolUse": {"toolUseId": "tooluse_b", "name": "now", "input": {}}},
    ]
    world.upstream.enqueue(world.bedrock.answers(uses, stop="tool_use"))
    first = api.complete(model="claude", messages=HELLO, tools=[WEATHER, CLOCK], tool_choice="required")
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    assert [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("tooluse_a", "get_weather", {"city": "Bonn"}),
        ("tooluse_b", "now", {}),
    ]
    tools = sent(world)["toolConfig"]
    assert tools["toolChoice"] == {"any": {}}
    assert tools["tools"][1]["toolSpec"]["inputSchema"]["json"] == {"type": "object", "properties": {}}
    results: Any = [
        {"role": "tool", "tool_call_id": "tooluse_a", "content": "rain"},
        {"role": "tool", "tool_call_id": "tooluse_b", "content": "no clock", "is_error": True},
        {"role": "user", "content": "Go on"},
    ]
    world.upstream.enqueue(world.bedrock.answers([{"text": "It rains."}]))
    messages: Any = [*HELLO, message.model_dump(exclude_none=True), *results]
    second = api.complete(
        model="claude",
        messages=messages,
        tools=[WEATHER, CLOCK],
        tool_choice={"type": "function", "function": {"name": "now"}},
    )
    assert second.choices[0].message.content == "It rains."
    assert sent(world)["messages"][1] == {"role": "assistant", "content": uses}
    assert sent(world)["messages"][2] == {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "tooluse_a", "content": [{"text": "rain"}]}},
            {"toolResult": {"toolUseId": "tooluse_b", "content": [{"text": "no clock"}], "status": "error"}},
            {"text": "Go on"},
        ],
    }
    assert sent(world)["toolConfig"]["toolChoice"] == {"tool": {"name": "now"}}


@pytest.mark.parametrize("kind", KINDS)
def test_tools_as_a_stream(world: Running, kind: Kind) -> None:
    """Arguments come as the model writes them, of several calls each its own; one without any has an empty object."""
    events: list[Event] = [
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"delta": {"text": "Looking"}, "contentBlockIndex": 0}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        *tool_events(1, "tooluse_a", "get_weather", "", '{"ci', 'ty":"Bonn"}'),
        *tool_events(2, "tooluse_b", "now"),
        *end_events("tool_use"),
    ]
    world.upstream.enqueue(world.bedrock.streams(*events))
    chunks = Api(kind, world.gateway).stream(model="claude", messages=HELLO, tools=[WEATHER, CLOCK])
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            parts = calls.setdefault(call.index, [call.id or "", call.function.name or "", ""])
            parts[2] += call.function.arguments or ""
    assert calls == {0: ["tooluse_a", "get_weather", '{"city":"Bonn"}'], 1: ["tooluse_b", "now", "{}"]}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_reasoning_goes_there_and_back(world: Running) -> None:
    """With its signature, and what only its provider can read; whole and as a stream."""
    hidden = base64.b64encode(b"hidden").decode()
    thoughts: list[dict[str, Any]] = [
        {"reasoningContent": {"reasoningText": {"text": "I think", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": hidden}},
    ]
    blocks = [
        {"type": "thinking", "thinking": "I think", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": hidden},
    ]
    api = Api("sync", world.gateway)
    world.upstream.enqueue(world.bedrock.answers([*thoughts, {"text": "so I am"}]))
    message = api.complete(model="claude", messages=HELLO, reasoning_effort="high").choices[0].message
    assert sent(world)["outputConfig"] == {"effort": "high"}
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == "I think"
    assert message.model_extra["thinking_blocks"] == blocks
    world.upstream.enqueue(world.bedrock.answers([{"text": "Indeed"}]))
    messages: Any = [*HELLO, message.model_dump(exclude_none=True), *HELLO]
    api.complete(model="claude", messages=messages)
    assert sent(world)["messages"][1] == {"role": "assistant", "content": [*thoughts, {"text": "so I am"}]}
    deltas = [{"text": "I "}, {"text": "think"}, {"signature": "c2ln"}, {"redactedContent": hidden}]
    world.upstream.enqueue(
        world.bedrock.streams(
            ("messageStart", {"role": "assistant"}),
            *(("contentBlockDelta", {"delta": {"reasoningContent": d}, "contentBlockIndex": 0}) for d in deltas),
            *text_events("so I am")[1:],
        )
    )
    extras = [chunk.choices[0].delta.model_extra or {} for chunk in api.stream(model="claude", messages=HELLO)]
    assert "".join(extra.get("reasoning_content", "") for extra in extras) == "I think"
    pieces = [block for extra in extras for block in extra.get("thinking_blocks", [])]
    assert pieces == [
        {"type": "thinking", "thinking": "I "},
        {"type": "thinking", "thinking": "think"},
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        blocks[1],
    ]


def test_an_answer_of_a_schema(world: Running) -> None:
    """The schema goes along as a text."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    world.upstream.enqueue(world.bedrock.answers([{"text": '{"a": 1}'}]))
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema, "strict": True}}
    Api("sync", world.gateway).complete(model="claude", messages=HELLO, response_format=wanted)
    text_format = sent(world)["outputConfig"]["textFormat"]
    assert text_format["type"] == "json_schema"
    assert json.loads(text_format["structure"]["jsonSchema"]["schema"]) == schema


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"tools": [CLOCK], "parallel_tool_calls": False}, "parallel_tool_calls"),
    ],
)
def test_what_it_cannot_do_is_refused_or_left_out(world: Running, fields: dict[str, Any], param: str) -> None:
    """By its name; a scenario may leave it out instead."""
    api = Api("sync", world.gateway)
    with pytest.raises(openai.BadRequestError) as caught:
        api.complete(model="claude", messages=HELLO, **fields)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_field")
    assert world.upstream.requests == []
    world.upstream.enqueue(world.bedrock.answers([{"text": "Fine"}]))
    assert api.complete(model="lenient", messages=HELLO, **fields).choices[0].message.content == "Fine"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,aaaa"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,a?"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,plain"}}, "image_url.url"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_place(world: Running, part: Any, param: str) -> None:
    """Nothing is fetched, and nothing is guessed."""
    with pytest.raises(openai.BadRequestError) as caught:
        Api("sync", world.gateway).complete(model="claude", messages=[{"role": "user", "content": [part]}])
    assert caught.value.param == f"messages[0].content[0].{param}"


def test_a_tool_choice_of_none_leaves_the_tools_out(world: Running) -> None:
    """Where nothing in the conversation needs them; else it cannot be."""
    api = Api("sync", world.gateway)
    world.upstream.enqueue(world.bedrock.answers([{"text": "Fine"}]))
    api.complete(model="claude", messages=HELLO, tools=[CLOCK], tool_choice="none")
    assert "toolConfig" not in sent(world)
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": ""}}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        api.complete(model="claude", messages=messages, tools=[CLOCK], tool_choice="none")
    assert caught.value.param == "tool_choice"
