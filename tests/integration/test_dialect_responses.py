"""The official ``openai`` client's Responses, over backends of the chat dialect."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseFunctionToolCall, ResponseInputParam

from tests.support.gateway import GatewayProcess
from tests.support.openai_api import KINDS, Api
from tests.support.responses_api import (
    KEY,
    OTHER_KEY,
    WEATHER,
    call_of,
    chunks,
    completion,
    create,
    events_of,
    more_of,
)
from tests.support.scripts import Reset, error_reply, event, stream
from tests.support.upstream import ScriptedUpstream


@pytest.fixture
def gateway(responses_pair: tuple[GatewayProcess, ScriptedUpstream]) -> GatewayProcess:
    """The gateway."""
    return responses_pair[0]


@pytest.fixture
def upstream(responses_pair: tuple[GatewayProcess, ScriptedUpstream]) -> ScriptedUpstream:
    """Its backend, with nothing asked of it yet."""
    responses_pair[1].forget()
    return responses_pair[1]


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Api:
    """The client."""
    return Api(request.param, gateway)


def test_a_text_is_answered(api: Api, upstream: ScriptedUpstream) -> None:
    """As a response with the usage in its own words; the backend got a chat completion and nothing else."""
    upstream.enqueue(completion({"content": "Hello"}))
    answer = create(
        api, model="chat", input="Good morning", instructions="Be kind.", temperature=0.5, max_output_tokens=50,
        metadata={"trip": "7"},
    )  # fmt: skip
    assert answer.output_text == "Hello"
    assert (answer.status, answer.model, answer.instructions) == ("completed", "chat", "Be kind.")
    assert (answer.temperature, answer.max_output_tokens, answer.metadata) == (0.5, 50, {"trip": "7"})
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (20, 9, 29)
    assert answer.usage.input_tokens_details.cached_tokens == 8
    assert answer.usage.output_tokens_details.reasoning_tokens == 4
    [request] = upstream.requests
    assert request.target == "/v1/chat/completions"
    assert request.json() == {
        "model": "upstream-model",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Good morning"}],
        "temperature": 0.5,
        "metadata": {"trip": "7"},
        "max_completion_tokens": 50,
    }


def test_a_text_is_streamed(api: Api, upstream: ScriptedUpstream) -> None:
    """Piece by piece as it comes; the client's accumulator takes every event, and the last one says it all."""
    upstream.enqueue(chunks({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}))
    events, response = events_of(api, model="chat", input="Good morning")
    assert [each.delta for each in events if each.type == "response.output_text.delta"] == ["Hel", "lo"]
    assert [each.sequence_number for each in events] == list(range(len(events)))
    assert response.output_text == "Hello"
    assert response.usage is not None
    assert response.usage.input_tokens == 20
    asked = upstream.requests[0].json()
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})
    kinds = [each.type for each in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


def test_images_and_files_reach_the_backend(api: Api, upstream: ScriptedUpstream) -> None:
    """As parts of a chat message."""
    upstream.enqueue(completion({"content": "A cat"}))
    said: ResponseInputParam = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            ],
        }
    ]
    create(api, model="chat", input=said)
    [request] = upstream.requests
    assert request.json()["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
    ]


def test_tools_are_called_in_a_loop_by_the_id_of_the_last_response(api: Api, upstream: ScriptedUpstream) -> None:
    """Two calls at once, their results, and an answer: each turn says only what is new."""
    calls = [
        {
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": f'{{"city":"{city}"}}'},
        }
        for city in ("Bonn", "Rome")
    ]
    upstream.enqueue(completion({"tool_calls": calls}, "tool_calls"), completion({"content": "Rain and sun"}))
    first = create(api, model="chat", input="Weather?", tools=[WEATHER])
    asked = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert [(item.call_id, json.loads(item.arguments)["city"]) for item in asked] == [
        ("call_Bonn", "Bonn"),
        ("call_Rome", "Rome"),
    ]
    results: ResponseInputParam = [
        {"type": "function_call_output", "call_id": item.call_id, "output": f"weather of {item.call_id}"}
        for item in asked
    ]
    second = create(api, model="chat", input=results, previous_response_id=first.id, tools=[WEATHER])
    assert (second.output_text, second.previous_response_id) == ("Rain and sun", first.id)
    request = upstream.requests[1].json()
    assert request["tools"] == [
        {
            "type": "function",
            "function": {"name": "get_weather", "parameters": WEATHER["parameters"], "strict": False},
        }
    ]
    assert request["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "weather of call_Bonn", "tool_call_id": "call_Bonn"},
        {"role": "tool", "content": "weather of call_Rome", "tool_call_id": "call_Rome"},
    ]


def test_calls_are_streamed_as_they_come(api: Api, upstream: ScriptedUpstream) -> None:
    """Also where their pieces come in turns, after a text."""
    upstream.enqueue(
        chunks(
            {"content": "Let me see."},
            call_of(0, "call_a", "get_weather", ""),
            call_of(1, "call_b", "get_weather", '{"city"'),
            more_of(0, '{"city":"Bonn"}'),
            more_of(1, ':"Rome"}'),
            finish="tool_calls",
        )
    )
    events, response = events_of(api, model="chat", input="Weather?", tools=[WEATHER])
    pieces = [
        (each.output_index, each.delta) for each in events if each.type == "response.function_call_arguments.delta"
    ]
    assert pieces == [(2, '{"city"'), (1, '{"city":"Bonn"}'), (2, ':"Rome"}')]
    message, *calls = response.output
    assert message.type == "message"
    assert [(each.call_id, each.arguments) for each in calls if each.type == "function_call"] == [
        ("call_a", '{"city":"Bonn"}'),
        ("call_b", '{"city":"Rome"}'),
    ]


def test_reasoning_goes_back_to_its_backend(api: Api, upstream: ScriptedUpstream) -> None:
    """Told as a summary; on the next turn the backend is given what it said, from what was kept or from the client."""
    thought = {"reasoning_content": "They want", "content": "Yes"}
    upstream.enqueue(
        chunks({"reasoning_content": "They "}, {"reasoning_content": "want"}, {"content": "Yes"}),
        completion({"content": "kept"}),
        completion(thought),
        completion({"content": "sent"}),
    )
    events, first = events_of(api, model="chat", input="May I?")
    assert [each.delta for each in events if each.type == "response.reasoning_summary_text.delta"] == ["They ", "want"]
    create(api, model="chat", input="So?", previous_response_id=first.id)
    told = create(api, model="chat", input="May I?", store=False, include=["reasoning.encrypted_content"])
    again: Any = [
        {"role": "user", "content": "May I?"},
        *(item.model_dump(exclude_none=True) for item in told.output),
        {"role": "user", "content": "So?"},
    ]
    create(api, model="chat", input=again, store=False)
    for number in (1, 3):
        assert upstream.requests[number].json()["messages"] == [
            {"role": "user", "content": "May I?"},
            {"role": "assistant"} | thought,
            {"role": "user", "content": "So?"},
        ]


class Weather(pydantic.BaseModel):
    """What is asked for."""

    city: str


def test_an_answer_of_a_schema(api: Api, upstream: ScriptedUpstream) -> None:
    """``text.format`` is the chat dialect's ``response_format``."""
    upstream.enqueue(completion({"content": '{"city":"Bonn"}'}))

    async def coroutine(client: AsyncOpenAI) -> Weather | None:
        return (await client.responses.parse(model="chat", input="Where?", text_format=Weather)).output_parsed

    parsed = api.run(
        lambda client: client.responses.parse(model="chat", input="Where?", text_format=Weather).output_parsed,
        coroutine,
    )
    assert parsed == Weather(city="Bonn")
    wanted = upstream.requests[0].json()["response_format"]
    assert (wanted["type"], wanted["json_schema"]["name"]) == ("json_schema", "Weather")


def test_an_answer_that_was_cut_is_incomplete(api: Api, upstream: ScriptedUpstream) -> None:
    """And says why; a refusal is told as one."""
    upstream.enqueue(completion({"content": "Once"}, "length"), completion({"refusal": "I will not."}))
    cut = create(api, model="chat", input="Tell me a story", max_output_tokens=1)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    refused = create(api, model="chat", input="Do harm")
    assert refused.output[0].type == "message"
    assert refused.output[0].content[0].type == "refusal"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": [{"type": "computer_call", "id": "c"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, "input[0]"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"previous_response_id": "resp_never_made"}, "previous_response_id"),
        ({"model": 7}, "model"),
    ],
)
def test_what_cannot_be_done_is_named(gateway: GatewayProcess, fields: dict[str, Any], param: str) -> None:
    """A 400 with the field, in OpenAI's envelope; nothing is asked of the backend."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(Api("sync", gateway), **({"model": "chat", "input": "x"} | fields))
    assert caught.value.param == param


def test_a_lenient_scenario_leaves_it_out(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """And answers."""
    upstream.enqueue(completion({"content": "ok"}))
    answer = create(Api("sync", gateway), model="lenient", input="x", truncation="auto", tools=[{"type": "web_search"}])
    assert answer.output_text == "ok"
    assert set(upstream.requests[0].json()) == {"model", "messages"}


def test_errors_are_those_of_openai(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """Status by status; a backend's refusal comes with its body."""
    api = Api("sync", gateway)
    with pytest.raises(openai.NotFoundError):
        create(api, model="nothing", input="x")
    with pytest.raises(openai.AuthenticationError):
        create(Api("sync", gateway, key="wrong" * 5), model="chat", input="x")
    upstream.enqueue(error_reply(400, "no such parameter"), error_reply(429, headers=[("retry-after", "7")]))
    with pytest.raises(openai.BadRequestError, match="no such parameter"):
        create(api, model="chat", input="x")
    with pytest.raises(openai.InternalServerError) as caught:
        create(api, model="chat", input="x")
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "7")


def test_a_stream_that_breaks_ends_as_a_failed_response(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """Nothing after the first byte changes the status: the last event says what happened."""
    upstream.enqueue(stream([event({"choices": [{"index": 0, "delta": {"content": "Hel"}}]})], ending=[Reset()]))
    with OpenAI(base_url=f"{gateway.base_url}/v1", api_key=KEY, max_retries=0) as client:
        events = list(client.responses.create(model="chat", input="x", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "server_error"


def test_another_tenant_cannot_go_on(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """What was said is the tenant's; and with ``store: false`` nobody's."""
    upstream.enqueue(completion({"content": "secret"}), completion({"content": "gone"}))
    mine = create(Api("sync", gateway), model="chat", input="x")
    gone = create(Api("sync", gateway), model="chat", input="x", store=False)
    for key, response in ((OTHER_KEY, mine), (KEY, gone)):
        with pytest.raises(openai.BadRequestError) as caught:
            create(Api("sync", gateway, key=key), model="chat", input="y", previous_response_id=response.id)
        assert caught.value.code == "previous_response_not_found"
    assert len(upstream.requests) == 2


def test_input_tokens_are_counted_without_a_call(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """About; more text is more tokens, and access is as for a call."""
    with OpenAI(base_url=f"{gateway.base_url}/v1", api_key=KEY, max_retries=0) as client:
        few = client.responses.input_tokens.count(model="chat", input="Good morning")
        many = client.responses.input_tokens.count(model="chat", input="Good morning " * 100)
        assert 0 < few.input_tokens < many.input_tokens
        with pytest.raises(openai.NotFoundError):
            client.responses.input_tokens.count(model="nothing", input="x")
    assert upstream.requests == []
