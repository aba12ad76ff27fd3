"""What the official ``anthropic`` client can do, it can do through the gateway in front of an OpenAI-compatible server.

What the scripted server is sent is held against the types of OpenAI's own client; what it answers follows
https://platform.openai.com/docs/api-reference/chat/object and its streaming page, with ``reasoning_content`` as
https://docs.vllm.ai/en/latest/features/reasoning_outputs.html has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest

from tests.support.documents import api_key, backend, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.messages_api import KINDS, MessagesApi
from tests.support.openai_schema import faults_of
from tests.support.scripts import DONE, event, json_reply, stream
from tests.support.upstream import ScriptedUpstream

Pair = tuple[GatewayProcess, ScriptedUpstream]

HELLO = [{"role": "user", "content": "Good morning"}]
ASK: dict[str, Any] = {"model": "chat", "max_tokens": 100, "messages": HELLO}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def running() -> Iterator[Pair]:
    """A gateway with scenarios of every kind that these tests need."""
    key = new_key()
    with ScriptedUpstream() as upstream:
        documents = [
            backend("main", f"{upstream.url}/v1", model="upstream-model"),
            backend("newer", f"{upstream.url}/v1", model="o", unsupportedFields=["max_tokens", "reasoning_content"]),
            echo_backend("echo"),
            scenario("chat", "main"),
            scenario("newer", "newer"),
            scenario("echo", "echo"),
            scenario("lenient", "main", lenient=True),
            scenario("kept", "main", cache={"mode": "exact"}),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        with GatewayProcess(documents, key=key, env={"LLM_GATEWAY_REDIS_URL": "embedded"}) as gateway:
            yield gateway, upstream


@pytest.fixture
def pair(running: Pair) -> Iterator[Pair]:
    """The same, as new; what was sent to the server must have been what its schema allows."""
    running[1].forget()
    yield running
    for request in running[1].requests:
        assert faults_of(request.json()) == []


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, pair: Pair) -> MessagesApi:
    """The client in front of the gateway."""
    return MessagesApi(request.param, pair[0])


def completion(message: dict[str, Any], finish: str = "stop", **fields: Any) -> dict[str, Any]:
    """A whole completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    details = {"cached_tokens": 4}
    usage = {"prompt_tokens": 15, "completion_tokens": 7, "total_tokens": 22, "prompt_tokens_details": details}
    envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "upstream-model"}
    return envelope | {"choices": [choice | fields], "usage": usage}


def chunks(*deltas: dict[str, Any], finish: str = "stop", **fields: Any) -> list[bytes]:
    """The events of a stream with these deltas, its usage last."""
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000, "model": "upstream-model"}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish} | fields)
    usage = {
        "prompt_tokens": 15,
        "completion_tokens": 7,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    events = [event(envelope | {"choices": [choice]}) for choice in choices]
    return [*events, event(envelope | {"choices": [], "usage": usage}), DONE]


def call_piece(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    """A delta with a piece of a call; the first one has the name."""
    begun = {"id": f"call_{index}", "type": "function"} if name else {}
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function} | begun]}


def test_a_message(api: MessagesApi, pair: Pair) -> None:
    """A message goes as a chat completion, and its answer comes back with what was used."""
    pair[1].enqueue(json_reply(completion({"content": "Good morning to you"})))
    answer = api.create(**ASK, system="Be kind", extra_body={"temperature": 0.5}, metadata={"user_id": "u-1"})
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "Good morning to you"}]
    assert (answer.id, answer.model, answer.role, answer.stop_reason) == (
        "msg_1",
        "upstream-model",
        "assistant",
        "end_turn",
    )
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (11, 4, 7)
    [request] = pair[1].requests
    assert request.json() == {
        "model": "upstream-model",
        "messages": [{"role": "system", "content": "Be kind"}, *HELLO],
        "max_tokens": 100,
        "temperature": 0.5,
        "user": "u-1",
    }
    assert request.header("x-api-key") is None


def test_a_streamed_message(api: MessagesApi, pair: Pair) -> None:
    """A stream is told event by event, in the order that the client wants, with all usage at its end."""
    pair[1].enqueue(stream(chunks({"role": "assistant", "content": ""}, {"content": "Good"}, {"content": " morning"})))
    streamed = api.stream(**ASK)
    wire = [kind for kind in streamed.kinds if kind != "text"]
    delta = "content_block_delta"
    assert wire == [
        "message_start", "content_block_start", delta, delta, "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    message = streamed.message
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Good morning"}]
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 11, 7)
    assert message.usage.cache_read_input_tokens == 4
    assert pair[1].requests[0].json()["stream_options"] == {"include_usage": True}


def test_tools_in_a_loop(api: MessagesApi, pair: Pair) -> None:
    """Several calls of tools, their results (one failed, one with an image) and what follows keep their meaning."""
    calls = [
        {
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": f'{{"city":"{city}"}}'},
        }
        for city in ("Oslo", "Rome")
    ]
    pair[1].enqueue(json_reply(completion({"content": "Let me see", "tool_calls": calls}, "tool_calls")))
    asked = {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": False}}
    answer = api.create(**ASK, **asked)
    assert answer.stop_reason == "tool_use"
    text, *uses = answer.content
    assert text.type == "text"
    assert [(use.id, use.input) for use in uses if use.type == "tool_use"] == [
        ("call_Oslo", {"city": "Oslo"}),
        ("call_Rome", {"city": "Rome"}),
    ]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    results = [
        {"type": "tool_result", "tool_use_id": "call_Oslo", "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "call_Rome", "content": [{"type": "text", "text": "sunny"}, image]},
        {"type": "text", "text": "Go on"},
    ]
    turns = [*HELLO, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert api.create(**ASK | {"messages": turns}, **asked).content
    first, second = (request.json() for request in pair[1].requests)
    function = {"name": TOOL["name"], "description": TOOL["description"], "parameters": TOOL["input_schema"]}
    assert first["tools"] == [{"type": "function", "function": function}]
    assert first["tool_choice"] == "required"
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert second["messages"][1:] == [
        {"role": "assistant", "content": "Let me see", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_Oslo", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "call_Rome", "content": "sunny"},
        {"role": "user", "content": [picture]},
        {"role": "user", "content": "Go on"},
    ]


def test_tool_arguments_stream_as_they_come(api: MessagesApi, pair: Pair) -> None:
    """Calls whose pieces come mixed become blocks one after the other, each whole."""
    pieces = [
        {"content": "Hm"},
        call_piece(0, "", "get_weather"),
        call_piece(0, '{"city":'),
        call_piece(1, '{"ci', "get_weather"),
        call_piece(0, '"Oslo"}'),
        call_piece(1, 'ty":"Rome"}'),
    ]
    pair[1].enqueue(stream(chunks(*pieces, finish="tool_calls")))
    message = api.stream(**ASK, tools=[TOOL]).message
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [
        {"city": "Oslo"},
        {"city": "Rome"},
    ]


def test_images_and_documents(api: MessagesApi, pair: Pair) -> None:
    """Images by address and in base64, a PDF, a text document and a search result reach the server."""
    blocks = [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
        {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "found"}]},
    ]
    api.create(**ASK | {"messages": [{"role": "user", "content": blocks}]})
    [turn] = pair[1].requests[0].json()["messages"]
    assert turn["content"] == [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "text", "text": "plain"},
        {"type": "text", "text": "T\ns\n\nfound"},
    ]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_stop_sequences(api: MessagesApi, pair: Pair, *, is_streamed: bool) -> None:
    """A server that says which sequence ended the answer is believed."""
    ended = {"stop_reason": "###"}
    if is_streamed:
        pair[1].enqueue(stream(chunks({"content": "a"}, **ended)))
    else:
        pair[1].enqueue(json_reply(completion({"content": "a"}, **ended)))
    asked = ASK | {"stop_sequences": ["###", "END"]}
    answer = api.stream(**asked).message if is_streamed else api.create(**asked)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "###")
    assert pair[1].requests[0].json()["stop"] == ["###", "END"]


def test_other_ends(api: MessagesApi, pair: Pair) -> None:
    """An answer that was cut, and one that was refused, say so."""
    pair[1].enqueue(json_reply(completion({"content": "a"}, "length")), json_reply(completion({}, "content_filter")))
    assert [api.create(**ASK).stop_reason for _ in range(2)] == ["max_tokens", "refusal"]


class City(pydantic.BaseModel):
    """What is asked for."""

    name: str


def test_structured_output(api: MessagesApi, pair: Pair) -> None:
    """The client's own parsing works: the schema reaches the server as that of a chat completion."""
    pair[1].enqueue(json_reply(completion({"content": '{"name":"Oslo"}'})))
    answer = api.same(lambda client: client.messages.parse(output_format=City, **ASK))
    assert answer.parsed_output == City(name="Oslo")
    asked = pair[1].requests[0].json()["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["schema"]["required"] == ["name"]


def test_thinking(api: MessagesApi, pair: Pair) -> None:
    """A budget becomes an effort; reasoning comes as a block, and goes back by the name that it came by."""
    pair[1].enqueue(stream(chunks({"reasoning_content": "I "}, {"reasoning_content": "think"}, {"content": "Hi"})))
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 5000}}
    message = api.stream(**ASK | {"max_tokens": 9000}, **thinking).message
    thought, said = message.content
    assert (thought.type, said.type) == ("thinking", "text")
    turns = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": "More"}]
    api.create(**ASK | {"messages": turns})
    api.create(**ASK | {"messages": turns, "model": "newer"})
    first, second, third = (request.json() for request in pair[1].requests)
    assert first["reasoning_effort"] == "medium"
    assert second["messages"][1] == {"role": "assistant", "content": "Hi", "reasoning_content": "I think"}
    assert third["messages"][1] == {"role": "assistant", "content": "Hi"}
    assert (third["max_completion_tokens"], "max_tokens" in third) == (100, False)


def test_the_echo_backend(api: MessagesApi) -> None:
    """The built-in backend speaks to these callers too."""
    assert api.create(**ASK | {"model": "echo"}).content[0].to_dict() == {"type": "text", "text": "Good morning"}
    assert api.stream(**ASK | {"model": "echo"}).message.content[0].to_dict() == {
        "type": "text",
        "text": "Good morning",
    }


def test_kept_answers(pair: Pair) -> None:
    """A scenario that keeps answers tells a kept one in this dialect, whole or as a stream."""
    api = MessagesApi("sync", pair[0])
    asked = ASK | {"model": "kept"}
    whole = [api.create(**asked).to_dict() for _ in range(2)]
    assert whole[0] == whole[1]
    streamed = api.stream(**asked).message
    assert streamed.to_dict()["content"] == whole[0]["content"]
    assert len(pair[1].requests) == 1


def test_a_kept_answer_is_not_given_to_what_would_be_refused(pair: Pair) -> None:
    """Where answers are kept nothing passes as it was written, so what a chat cannot say is refused before."""
    api = MessagesApi("sync", pair[0])
    asked = ASK | {"model": "kept", "system": "of its own"}
    api.create(**asked)
    with pytest.raises(anthropic.BadRequestError):
        api.create(**asked, extra_body={"mcp_servers": [{"url": "https://example.com"}]})


def test_what_a_chat_cannot_say_is_refused_by_name(api: MessagesApi, pair: Pair) -> None:
    """A field or block that only Messages has is a 400 with its name; a lenient scenario leaves it out."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    beyond: dict[str, Any] = {"tools": [TOOL, search], "extra_body": {"context_management": {"edits": [1]}}}
    with pytest.raises(anthropic.BadRequestError) as caught:
        api.create(**ASK, **beyond)
    error = caught.value
    assert isinstance(error.body, dict)
    assert (error.type, error.body["error"]["details"]["param"]) == ("invalid_request_error", "tools.1")
    assert pair[1].requests == []
    api.create(**ASK | {"model": "lenient"}, **beyond)
    [request] = pair[1].requests
    assert len(request.json()["tools"]) == 1
    assert "context_management" not in request.json()
