"""The official ``openai`` client before Gemini: every feature of a chat completion that both have.

What the scripted upstream takes is checked by the types of Google's own SDK; what it says follows
https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from tests.support.documents import Document, api_key, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.gemini import Gemini, answer, call, candidate, response, usage
from tests.support.openai_api import KINDS, Api, text_of
from tests.support.upstream import ScriptedUpstream

Trio = tuple[GatewayProcess, ScriptedUpstream, Gemini]

MESSAGES = [{"role": "user", "content": "Good morning"}]
PNG = "iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather now",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False},
    },
}
CALLED = call("get_weather", {"city": "Bonn"}, call_id="c1", signature="c2ln")


def gemini(name: str, url: str, **spec: Any) -> Document:
    """The Gemini API."""
    auth = {"type": "header", "name": "x-goog-api-key", "secret": {"env": "LLM_GATEWAY_SECRET_GEMINI"}}
    return document(
        "Backend", name, {"provider": "gemini", "url": f"{url}/v1beta", "model": "gemini-3-flash", "auth": auth} | spec
    )


@pytest.fixture(scope="module")
def running() -> Iterator[Trio]:
    """Scenarios ``chat`` (Gemini 3), ``old`` (2.5) and ``lenient``."""
    key = new_key()
    behaviour = Gemini()
    with ScriptedUpstream(behaviour) as upstream:
        documents = [
            gemini("chat", upstream.url, fileUris=["gs://shared/"]),
            gemini("old", upstream.url, model="gemini-2.5-flash"),
            scenario("chat", "chat"),
            scenario("old", "old"),
            scenario("lenient", "chat", lenient=True),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        env = {"LLM_GATEWAY_SECRET_GEMINI": "google-key", "LLM_GATEWAY_EXPOSE_BACKEND": "true"}
        with GatewayProcess(documents, key=key, env=env) as gateway:
            yield gateway, upstream, behaviour


@pytest.fixture
def trio(running: Trio) -> Iterator[Trio]:
    """The same, as new; no request was one that Gemini does not allow."""
    running[1].forget()
    running[2].forget()
    yield running
    assert running[2].problems == []


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, trio: Trio) -> Api:
    """The client, sync and async."""
    return Api(request.param, trio[0])


def test_completion(api: Api, trio: Trio) -> None:
    """A question and its answer, with the key in its header and nothing of the caller's credential."""
    got = api.complete(model="chat", messages=MESSAGES)
    assert got.choices[0].message.content == "Hello from Gemini"
    assert (got.choices[0].finish_reason, got.object, got.model) == ("stop", "chat.completion", "gemini-3-flash-001")
    assert got.id == "chatcmpl-resp-1"
    assert got.usage is not None
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens) == (11, 3, 14)
    [request] = trio[1].requests
    assert request.target == "/v1beta/models/gemini-3-flash:generateContent"
    assert (request.header("x-goog-api-key"), request.header("authorization")) == ("google-key", None)
    assert request.json() == {"contents": [{"parts": [{"text": "Good morning"}], "role": "user"}]}


def test_stream(api: Api, trio: Trio) -> None:
    """Pieces come as pieces, and usage only where the caller asks for it."""
    used = usage(11, 1), usage(11, 2, thoughtsTokenCount=4, cachedContentTokenCount=5)
    trio[2].reply = [
        response(candidate("Hel", finish=None), used=used[0]),
        response(candidate("lo", finish=None), used=used[0]),
        response(candidate(), used=used[1]),
    ]
    chunks = api.stream(model="chat", messages=MESSAGES)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["Hel", "lo", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert trio[1].requests[0].target == "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
    *_, last = api.stream(model="chat", messages=MESSAGES, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (11, 6)
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == 5
    assert last.usage.completion_tokens_details is not None
    assert last.usage.completion_tokens_details.reasoning_tokens == 4
    log = trio[0].wait_for_log(lambda line: line.get("scenario") == "chat" and line.get("status") == 200)
    assert log["backend"] == "chat"


def test_sampling(api: Api, trio: Trio) -> None:
    """Each of them has its name in ``generationConfig``."""
    api.complete(
        model="chat",
        messages=MESSAGES,
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=99,
        stop=["a", "b"],
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        user="someone",
        extra_body={"top_k": 40},
    )
    assert trio[2].bodies[0]["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "maxOutputTokens": 99,
        "stopSequences": ["a", "b"],
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
    }


def test_several_answers(api: Api, trio: Trio) -> None:
    """As many candidates as choices, whole and streamed side by side."""
    trio[2].reply = response(candidate("one"), candidate("two", index=1, finish="MAX_TOKENS"))
    got = api.complete(model="chat", messages=MESSAGES, n=2)
    assert [choice.message.content for choice in got.choices] == ["one", "two"]
    assert [choice.finish_reason for choice in got.choices] == ["stop", "length"]
    assert trio[2].bodies[0]["generationConfig"] == {"candidateCount": 2}
    chunks = api.stream(model="chat", messages=MESSAGES, n=2)
    told = [(choice.index, choice.delta.content, choice.finish_reason) for chunk in chunks for choice in chunk.choices]
    assert told == [(0, "one", None), (1, "two", None), (0, None, "stop"), (1, None, "length")]


def test_system_prompts(api: Api, trio: Trio) -> None:
    """Those before the conversation instruct; a later one is said in its place. Turns of one side are one."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "system", "content": "Now in German."},
        {"role": "user", "content": "And you?"},
    ]
    api.complete(model="chat", messages=messages)
    api.complete(model="chat", messages=messages[:1])
    assert trio[2].bodies[0] == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello."}]},
            {"role": "user", "parts": [{"text": "Now in German."}, {"text": "And you?"}]},
        ],
    }
    assert trio[2].bodies[1] == {"contents": [{"role": "user", "parts": [{"text": "Be brief."}]}]}


def test_images_sound_and_documents(api: Api, trio: Trio) -> None:
    """Data as data, addresses as addresses with the type that their path tells."""
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.jpg?size=2"}},
        {"type": "image_url", "image_url": {"url": "gs://shared/cat.webp"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    api.complete(model="chat", messages=[{"role": "user", "content": parts}])
    assert trio[2].bodies[0]["contents"][0]["parts"] == [
        {"text": "Look:"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"fileUri": "https://pictures.example/cat.jpg?size=2", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "gs://shared/cat.webp", "mimeType": "image/webp"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
    ]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", None),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"mode": "ANY", "allowedFunctionNames": ["get_weather"]},
        ),
    ],
)
def test_tools_and_the_choice_among_them(api: Api, trio: Trio, choice: Any, config: Document | None) -> None:
    """Schemas go as they are."""
    api.complete(model="chat", messages=MESSAGES, tools=[WEATHER], tool_choice=choice)
    [body] = trio[2].bodies
    function = WEATHER["function"]
    assert isinstance(function, dict)
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "get_weather",
                    "description": "Weather now",
                    "parametersJsonSchema": function["parameters"],
                }
            ]
        }
    ]
    assert body.get("toolConfig") == (None if config is None else {"functionCallingConfig": config})


def test_a_conversation_with_tools(api: Api, trio: Trio) -> None:
    """Parallel calls go back and forth: ids, signatures, results in one turn in the order of their calls."""
    trio[2].reply = answer("Let me see.", CALLED, call("get_weather", {"city": "Kiel"}, call_id="c2"))
    got = api.complete(model="chat", messages=MESSAGES, tools=[WEATHER])
    message = got.choices[0].message
    assert got.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    assert [one.id for one in message.tool_calls] == ["c1", "c2"]
    assert [json.loads(one.function.arguments)["city"] for one in message.tool_calls if one.type == "function"] == [
        "Bonn",
        "Kiel",
    ]
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": '{"degrees": 12}'},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    trio[2].reply = None
    said = [*MESSAGES, message.model_dump(), *results, {"role": "user", "content": "And?"}]
    api.complete(model="chat", messages=said, tools=[WEATHER])
    assert trio[2].bodies[1]["contents"][1:] == [
        {
            "role": "model",
            "parts": [{"text": "Let me see."}, CALLED, call("get_weather", {"city": "Kiel"}, call_id="c2")],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "get_weather", "response": {"output": "sunny"}}},
                {"functionResponse": {"id": "c2", "name": "get_weather", "response": {"degrees": 12}}},
            ],
        },
        {"role": "user", "parts": [{"text": "And?"}]},
    ]


def test_calls_without_ids(api: Api, trio: Trio) -> None:
    """Older models give none: the gateway makes ids that are unique, and sends none of them back."""
    bare = call("get_weather", {"city": "Bonn"})
    trio[2].reply = answer(bare, bare)
    message = api.complete(model="old", messages=MESSAGES, tools=[WEATHER]).choices[0].message
    assert message.tool_calls is not None
    ids = [one.id for one in message.tool_calls]
    assert len(set(ids)) == 2
    trio[2].reply = None
    results = [{"role": "tool", "tool_call_id": each, "content": "sunny"} for each in ids]
    api.complete(model="old", messages=[*MESSAGES, message.model_dump(), *results], tools=[WEATHER])
    result = {"functionResponse": {"name": "get_weather", "response": {"output": "sunny"}}}
    assert trio[2].bodies[1]["contents"][1:] == [
        {"role": "model", "parts": [bare, bare]},
        {"role": "user", "parts": [result, result]},
    ]


def test_a_conversation_that_another_model_began(api: Api, trio: Trio) -> None:
    """Its calls have no signatures: Gemini 3 is told that they are missing, and takes them."""
    made = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    said: list[dict[str, Any]] = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [made], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ]
    api.complete(model="chat", messages=said)
    [part] = trio[2].bodies[0]["contents"][1]["parts"]
    assert part == {
        "functionCall": {"id": "call_1", "name": "get_weather", "args": {}},
        "thoughtSignature": "skip_thought_signature_validator",
    }
    api.complete(model="old", messages=said)
    assert "thoughtSignature" not in trio[2].bodies[1]["contents"][1]["parts"][0]


def test_streamed_tool_calls(api: Api, trio: Trio) -> None:
    """Each call is one piece, with its place, id, name, arguments and signature."""
    trio[2].reply = [
        response(candidate(CALLED, finish=None)),
        response(candidate(call("get_weather", {"city": "Kiel"}))),
    ]
    chunks = api.stream(model="chat", messages=MESSAGES, tools=[WEATHER])
    calls = [one for chunk in chunks for choice in chunk.choices for one in choice.delta.tool_calls or ()]
    assert [(one.index, one.function.name, one.function.arguments) for one in calls if one.function is not None] == [
        (0, "get_weather", '{"city":"Bonn"}'),
        (1, "get_weather", '{"city":"Kiel"}'),
    ]
    assert calls[0].id == "c1"
    assert calls[1].id
    assert (calls[0].model_extra or {})["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_thoughts(api: Api, trio: Trio) -> None:
    """Thoughts are told where effort is asked for; the signature of an answer goes back with it."""
    thought = {"text": "Let me think.", "thought": True}
    trio[2].reply = answer(thought, {"text": "42", "thoughtSignature": "dGV4dA=="})
    message = api.complete(model="chat", messages=MESSAGES, reasoning_effort="low").choices[0].message
    assert message.content == "42"
    assert (message.model_extra or {})["reasoning_content"] == "Let me think."
    assert trio[2].bodies[0]["generationConfig"] == {
        "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "LOW"}
    }
    chunks = api.stream(model="old", messages=[*MESSAGES, message.model_dump(), *MESSAGES], reasoning_effort="none")
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [(delta.model_extra or {}).get("reasoning_content") for delta in deltas] == ["Let me think.", None, None]
    assert text_of(chunks) == "42"
    assert (deltas[1].model_extra or {})["extra_content"] == {"google": {"thought_signature": "dGV4dA=="}}
    assert trio[2].bodies[1]["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 0}}
    assert trio[2].bodies[1]["contents"][1]["parts"] == [{"text": "42", "thoughtSignature": "dGV4dA=="}]


def test_logprobs(api: Api, trio: Trio) -> None:
    """By token, with the likeliest ones beside each."""
    told = {
        "chosenCandidates": [{"token": "Hä", "tokenId": 1, "logProbability": -0.1}],
        "topCandidates": [{"candidates": [{"token": "Hä", "logProbability": -0.1}, {"token": "Ho"}]}],
    }
    trio[2].reply = response(candidate("Hä", logprobsResult=told))
    got = api.complete(model="chat", messages=MESSAGES, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert trio[2].bodies[0]["generationConfig"] == {"responseLogprobs": True, "logprobs": 2}
    assert got is not None
    assert got.content is not None
    [token] = got.content
    assert (token.token, token.logprob, token.bytes) == ("Hä", -0.1, list("Hä".encode()))
    assert [(one.token, one.logprob) for one in token.top_logprobs] == [("Hä", -0.1), ("Ho", -9999.0)]
    streamed = [chunk.choices[0].logprobs for chunk in api.stream(model="chat", messages=MESSAGES, logprobs=True)]
    assert [one.content[0].token for one in streamed if one is not None and one.content] == ["Hä"]


class City(pydantic.BaseModel):
    """What is asked for."""

    name: str
    people: int


def test_structured_output(api: Api, trio: Trio) -> None:
    """A schema is the answer's, and the client parses it."""
    trio[2].reply = answer('{"name":"Bonn","people":330000}')
    got = api.parse(model="chat", messages=MESSAGES, response_format=City)
    assert got.choices[0].message.parsed == City(name="Bonn", people=330_000)
    config = trio[2].bodies[0]["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"]["required"] == ["name", "people"]
    api.complete(model="chat", messages=MESSAGES, response_format={"type": "json_object"})
    assert trio[2].bodies[1]["generationConfig"] == {"responseMimeType": "application/json"}


def test_what_gemini_cannot_do_is_left_out_where_the_scenario_says_so(api: Api, trio: Trio) -> None:
    """And noted."""
    answered = api.raw(
        model="lenient", messages=[{"role": "user", "content": "Hi", "name": "Bo"}], logit_bias={"50256": -100}
    )
    assert answered.status == 200
    assert trio[2].bodies[0] == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
