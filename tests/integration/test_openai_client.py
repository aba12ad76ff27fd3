"""What the official ``openai`` client can do, it can do through the gateway: sync and async, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ParsedChatCompletion

from tests.support.gateway import GatewayProcess
from tests.support.openai_api import KINDS, Api, text_of
from tests.support.scripts import DONE, event, json_reply, stream
from tests.support.surface import MESSAGES
from tests.support.upstream import ScriptedUpstream

Pair = tuple[GatewayProcess, ScriptedUpstream]

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Good morning"}]
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, shared_pair: Pair) -> Api:
    """The client in front of the shared gateway."""
    return Api(request.param, shared_pair[0])


def completion(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A whole completion with these choices, numbered."""
    numbered = [{"index": index, "finish_reason": "stop"} | choice for index, choice in enumerate(choices)]
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "upstream-model"}
    return envelope | {"choices": numbered, "usage": usage} | fields


def chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    """One event of a stream."""
    filled = [{"index": 0, "delta": {}, "finish_reason": None} | choice for choice in choices]
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000, "model": "upstream-model"}
    return event(envelope | {"choices": filled} | fields)


def test_completion(api: Api, shared_pair: Pair) -> None:
    """A completion comes back as the backend gave it, and the backend is asked for its own model."""
    answer = api.complete(model="chat", messages=MESSAGES, temperature=0.5)
    assert answer.choices[0].message.content == "Hello from upstream"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 3)
    [request] = shared_pair[1].requests
    assert request.json() == {"model": "upstream-model", "messages": MESSAGES, "temperature": 0.5}


def test_stream(api: Api, shared_pair: Pair) -> None:
    """A stream yields the backend's chunks and no usage, although the backend was asked for it to meter the call."""
    chunks = api.stream(model="chat", messages=MESSAGES)
    assert text_of(chunks) == "Hello from upstream"
    assert [one.choices[0].finish_reason for one in chunks] == [None, None, None, None, "stop"]
    assert all(one.usage is None for one in chunks)
    [request] = shared_pair[1].requests
    assert request.json()["stream_options"] == {"include_usage": True}


def test_stream_with_usage(api: Api) -> None:
    """A caller who asks for usage gets exactly one usage chunk: the last one, without choices."""
    chunks = api.stream(model="chat", messages=MESSAGES, stream_options={"include_usage": True})
    assert text_of(chunks) == "Hello from upstream"
    assert [one.usage is not None for one in chunks] == [False] * 5 + [True]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14


def test_other_stream_options_are_kept(api: Api, shared_pair: Pair) -> None:
    """Asking for usage keeps the caller's other stream options; an explicit no to usage is heard."""
    options = {"include_usage": False, "include_obfuscation": False}
    chunks = api.stream(model="chat", messages=MESSAGES, stream_options=options)
    assert all(one.usage is None for one in chunks)
    [request] = shared_pair[1].requests
    assert request.json()["stream_options"] == {"include_usage": True, "include_obfuscation": False}


def test_usage_beside_choices_is_passed_on(api: Api, shared_pair: Pair) -> None:
    """A backend that reports usage in every chunk loses none of its text: only a chunk of usage alone is taken out."""
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    pieces = [chunk({"delta": {"content": piece}}, usage=usage) for piece in ("one", " two")]
    shared_pair[1].enqueue(stream([*pieces, chunk(usage=usage), DONE]))
    chunks = api.stream(model="chat", messages=MESSAGES)
    assert text_of(chunks) == "one two"
    assert len(chunks) == 2


def test_parallel_tool_calls(api: Api, shared_pair: Pair) -> None:
    """Tools and tool choice reach the backend as they were given, its parallel tool calls come back, and so on."""
    calls = [
        {
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": f'{{"city":"{city}"}}'},
        }
        for city in ("Oslo", "Rome")
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    shared_pair[1].enqueue(json_reply(completion({"message": message, "finish_reason": "tool_calls"})))
    choice = {"type": "function", "function": {"name": "get_weather"}}
    asked = {"tools": [WEATHER_TOOL], "tool_choice": choice, "parallel_tool_calls": True}
    answer = api.complete(model="chat", messages=MESSAGES, **asked)
    tool_calls = answer.choices[0].message.tool_calls
    assert tool_calls is not None
    assert [call.id for call in tool_calls] == ["call_Oslo", "call_Rome"]
    assert answer.choices[0].message.content is None

    results = [{"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls]
    conversation = [*MESSAGES, answer.choices[0].message.to_dict(), *results]
    assert api.complete(model="chat", messages=conversation, **asked).choices[0].message.content
    first, second = shared_pair[1].requests
    assert {name: first.json()[name] for name in asked} == asked
    assert second.json()["messages"] == conversation


def test_streamed_tool_arguments(api: Api, shared_pair: Pair) -> None:
    """The arguments of tool calls arrive piece by piece, each piece with its index."""
    pieces = [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
    ]
    events = [chunk({"delta": {"tool_calls": [piece]}}) for piece in pieces]
    shared_pair[1].enqueue(stream([*events, chunk({"finish_reason": "tool_calls"}), DONE]))
    chunks = api.stream(model="chat", messages=MESSAGES, tools=[WEATHER_TOOL])
    arguments = ["", ""]
    for one in chunks:
        for call in one.choices[0].delta.tool_calls or []:
            assert call.function is not None
            arguments[call.index] += call.function.arguments or ""
    assert arguments == ['{"city":"Oslo"}', "{}"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_json_schema_response_format(api: Api, shared_pair: Pair) -> None:
    """A JSON schema as response format reaches the backend unchanged."""
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    message = {"role": "assistant", "content": '{"answer":42}'}
    shared_pair[1].enqueue(json_reply(completion({"message": message})))
    answer = api.complete(model="chat", messages=MESSAGES, response_format=wanted)
    assert json.loads(answer.choices[0].message.content or "") == {"answer": 42}
    assert shared_pair[1].requests[0].json()["response_format"] == wanted


def test_parse_into_a_pydantic_model(api: Api, shared_pair: Pair) -> None:
    """``chat.completions.parse`` with a pydantic model yields an instance of it."""

    class Event(pydantic.BaseModel):
        name: str
        guests: list[str]

    content = '{"name":"lunch","guests":["Ada","Grace"]}'
    shared_pair[1].enqueue(json_reply(completion({"message": {"role": "assistant", "content": content}})))
    answer = api.parse(model="chat", messages=MESSAGES, response_format=Event)
    assert answer.choices[0].message.parsed == Event(name="lunch", guests=["Ada", "Grace"])
    assert shared_pair[1].requests[0].json()["response_format"]["json_schema"]["name"] == "Event"


def test_stream_helper(api: Api) -> None:
    """The client's stream helper puts the events together to the same completion."""

    def blocking(client: OpenAI) -> ParsedChatCompletion[None]:
        with client.chat.completions.stream(model="chat", messages=QUESTION) as events:
            return events.get_final_completion()

    async def coroutine(client: AsyncOpenAI) -> ParsedChatCompletion[None]:
        async with client.chat.completions.stream(model="chat", messages=QUESTION) as events:
            return await events.get_final_completion()

    answer = api.run(blocking, coroutine)
    assert answer.choices[0].message.content == "Hello from upstream"
    assert answer.choices[0].finish_reason == "stop"


def test_vision_content_parts(api: Api, shared_pair: Pair) -> None:
    """Image parts, a data URL of some size included, reach the backend unchanged."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 20_000, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://images.example/cat.png"}},
    ]
    messages = [{"role": "user", "content": parts}]
    assert api.complete(model="chat", messages=messages).choices[0].message.content
    assert shared_pair[1].requests[0].json()["messages"] == messages


def test_logprobs(api: Api, shared_pair: Pair) -> None:
    """Log probabilities are asked for and come back, to the last digit."""
    token = {"token": "Hi", "logprob": -0.00012345678901234567, "bytes": [72, 105], "top_logprobs": []}
    choice = {"message": {"role": "assistant", "content": "Hi"}, "logprobs": {"content": [token], "refusal": None}}
    shared_pair[1].enqueue(json_reply(completion(choice)))
    answer = api.complete(model="chat", messages=MESSAGES, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].logprob == -0.00012345678901234567
    sent = shared_pair[1].requests[0].json()
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)


def test_several_choices(api: Api, shared_pair: Pair) -> None:
    """With ``n`` above one every choice comes back, whole and streamed with the choices interleaved."""
    messages = [{"message": {"role": "assistant", "content": f"answer {number}"}} for number in range(3)]
    streamed = [
        chunk({"index": index, "delta": {"content": f"{index}{piece}"}}) for piece in "ab" for index in range(3)
    ]
    shared_pair[1].enqueue(json_reply(completion(*messages)), stream([*streamed, DONE]))
    answer = api.complete(model="chat", messages=MESSAGES, n=3)
    assert [choice.message.content for choice in answer.choices] == ["answer 0", "answer 1", "answer 2"]
    chunks = api.stream(model="chat", messages=MESSAGES, n=3)
    assert [one.choices[0].delta.content for one in chunks] == ["0a", "1a", "2a", "0b", "1b", "2b"]
    assert [request.json()["n"] for request in shared_pair[1].requests] == [3, 3]


def test_models_list(api: Api) -> None:
    """``models.list`` names what this key may use."""
    assert api.models() == ["chat"]


@pytest.mark.parametrize("kind", KINDS)
def test_echo_backend(echo_gateway: GatewayProcess, kind: Any) -> None:
    """The in-process backend answers with the user's words, whole and streamed, with matching usage and ``n``."""
    api = Api(kind, echo_gateway)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two three"}]
    answer = api.complete(model="chat", messages=messages, n=2, max_tokens=2)
    assert [(choice.message.content, choice.finish_reason) for choice in answer.choices] == [("one two", "length")] * 2
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 4)
    chunks = api.stream(model="chat", messages=messages, stream_options={"include_usage": True})
    assert text_of(chunks) == "one two three"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
