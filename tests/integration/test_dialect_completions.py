"""``POST /v1/completions`` through the official client: passed on where a backend has it, else told as a chat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types import completion_create_params
from pydantic import TypeAdapter

from tests.support.client import Response
from tests.support.operations import Operating, operating
from tests.support.scripts import DONE, Chat, Received, Script, error_reply, event, json_reply, stream

USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
_SCHEMA = TypeAdapter(completion_create_params.CompletionCreateParamsBase)


class Texts:
    """A server of Completions and of chats; requests that OpenAI's types do not allow are refused."""

    def __init__(self) -> None:
        self._chat = Chat()

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        if "/chat/completions" in request.target:
            return self._chat(request)
        asked = request.json()
        streams = asked.pop("stream", False)
        _SCHEMA.validate_python(asked)
        choice = {"text": " there", "index": 0, "logprobs": None, "finish_reason": "stop"}
        envelope = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": asked["model"]}
        if not streams:
            return json_reply(envelope | {"choices": [choice], "usage": USAGE})
        pieces = [envelope | {"choices": [choice | {"text": text, "finish_reason": None}]} for text in (" th", "ere")]
        last = [envelope | {"choices": [], "usage": USAGE}] if asked.get("stream_options") else []
        return stream([*map(event, [*pieces, *last]), DONE])


@pytest.fixture(scope="module")
def running() -> Iterator[Operating]:
    """One gateway for all."""
    limits: list[dict[str, Any]] = [{"unit": "outputTokens", "per": "day", "amount": 3000, "name": "few"}]
    with operating(few=limits) as found:
        yield found


@pytest.fixture
def api(running: Operating) -> Iterator[Operating]:
    """It, with upstreams as new; nothing is left of a test."""
    running.upstream.forget()
    running.upstream.behaviour = Texts()
    yield running
    running.gateway.assert_nothing_in_flight()


def post(api: Operating, body: dict[str, Any], key: str = "") -> Response:
    """A request without a client's help."""
    with api.gateway.client() as client:
        headers = {"connection": "close"}
        return client.request("/v1/completions", body, key=key or api.gateway.key, headers=headers)


@pytest.mark.parametrize("prompt", ["Hello", ["a", "b"], [1, 2], [[1], [2]]])
def test_a_backend_with_completions_gets_them_as_they_are(api: Operating, prompt: Any) -> None:
    """Every field and every form of a prompt, and what it says comes back as it is."""
    answer = api.client().completions.create(
        model="all", prompt=prompt, echo=True, suffix="!", best_of=2, logprobs=3, extra_body={"top_k": 5}
    )
    assert answer.choices[0].text == " there"
    [request] = api.upstream.requests
    assert request.target == "/v1/completions"
    assert request.json() == {
        "model": "upstream-model",
        "prompt": prompt,
        "echo": True,
        "suffix": "!",
        "best_of": 2,
        "logprobs": 3,
        "top_k": 5,
    }


def test_a_passed_stream(api: Operating) -> None:
    """Usage is asked for and counted, and shown to those alone who asked."""
    with api.client("completions-0001") as client:
        chunks = list(client.completions.create(model="all", prompt="Hello", stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == " there"
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert api.asked()[0]["stream_options"] == {"include_usage": True}
    line = api.log_of("completions-0001")
    assert line["tokens"] == {"input": 4, "cached": 0, "output": 2, "estimated": False}
    labels = {"gen_ai_operation_name": "text_completion", "gen_ai_request_model": "all"}
    assert api.gateway.metrics().value("gen_ai_server_time_to_first_token_count", **labels) == 1


def test_azure_has_them_at_the_deployment(api: Operating) -> None:
    """Where the backend says that it has them; one that does not is told a chat."""
    api.upstream.behaviour = lambda request: Texts()(request) if "/chat/" in request.target else error_reply(400)
    assert api.client().completions.create(model="azure", prompt="Hello").object == "text_completion"
    assert api.upstream.requests[0].target == "/openai/deployments/emb/chat/completions?api-version=2024-10-21"


def test_a_backend_of_chats_is_told_a_chat(api: Operating) -> None:
    """The prompt is what the user says, and the answer is told as a text."""
    answer = api.client("completions-0002").completions.create(
        model="chats",
        prompt=["Hello"],
        max_tokens=9,
        temperature=0.5,
        stop=["\n"],
        seed=1,
        user="u",
        echo=False,
        best_of=1,
    )
    assert (answer.object, answer.id) == ("text_completion", "cmpl-scripted")
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == ("Hello from upstream", "stop", 0)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 14
    [request] = api.upstream.requests
    assert request.target == "/v1/chat/completions"
    assert request.json() == {
        "model": "chats",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["\n"],
        "seed": 1,
        "user": "u",
    }


@pytest.mark.parametrize("wanted", [False, True])
def test_a_stream_that_is_told(api: Operating, wanted: bool) -> None:
    """Each piece as it comes, the end, and usage for those who want it."""
    with api.client() as client:
        options: Any = {"include_usage": True} if wanted else openai.omit
        chunks = list(client.completions.create(model="chats", prompt="Hello", stream=True, stream_options=options))
    assert [choice.text for chunk in chunks for choice in chunk.choices] == ["Hello", " from", " upstream", ""]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert [chunk.usage is not None for chunk in chunks] == [False] * 4 + [True] * wanted
    assert {chunk.object for chunk in chunks} == {"text_completion"}


def test_logprobs_are_told_in_their_older_form(api: Operating) -> None:
    """Tokens, where each begins, and the likeliest ones."""
    tokens = [
        {"token": "He", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "Oh", "logprob": -2.0}]},
        {"token": "llo", "logprob": -0.2, "bytes": None, "top_logprobs": []},
    ]
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "message": message, "logprobs": {"content": tokens}, "finish_reason": "length"}
    envelope = {"id": "chatcmpl-9", "object": "chat.completion", "created": 1, "model": "m"}
    api.upstream.enqueue(json_reply(envelope | {"choices": [choice], "usage": USAGE}))
    answer = api.client().completions.create(model="chats", prompt="x", logprobs=1)
    assert api.asked()[0]["logprobs"] is True
    assert api.asked()[0]["top_logprobs"] == 1
    found = answer.choices[0].logprobs
    assert found is not None
    assert (found.tokens, found.token_logprobs, found.text_offset) == (["He", "llo"], [-0.1, -0.2], [0, 2])
    assert found.top_logprobs == [{"Oh": -2.0}, {}]
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
    ],
)
@pytest.mark.parametrize("model", ["chats", "cached"])
def test_what_no_chat_can_do_is_refused_by_name(api: Operating, fields: dict[str, Any], param: str, model: str) -> None:
    """Also where answers are kept, which are told as chats; no backend hears of it."""
    answer = post(api, {"model": model, **fields})
    assert answer.status == 400, answer
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("unsupported_field", param)
    assert not api.upstream.requests


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": "all"}, "missing_field", "prompt"),
        ({"prompt": "x"}, "missing_field", "model"),
        ({"model": "all", "prompt": ""}, "invalid_value", "prompt"),
        ({"model": "all", "prompt": []}, "invalid_type", "prompt"),
        ({"model": "all", "prompt": {"a": 1}}, "invalid_type", "prompt"),
        ({"model": "all", "prompt": "x", "messages": []}, "unsupported_field", "messages"),
        ({"model": "all", "prompt": "x", "Prompt": "y"}, "unsupported_field", "Prompt"),
        ({"model": "all", "prompt": "x", "max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"model": "all", "prompt": "x", "logprobs": 99}, "invalid_value", "logprobs"),
        ({"model": "all", "prompt": "x", "best_of": 0}, "invalid_value", "best_of"),
        ({"model": "all", "prompt": "x", "stream_options": {}}, "invalid_value", "stream_options"),
    ],
)
def test_what_is_wrong_is_named(api: Operating, body: dict[str, Any], code: str, param: str) -> None:
    """Whichever backend it is for."""
    answer = post(api, body)
    assert answer.status == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


def test_a_scenario_with_a_prompt_makes_a_chat_of_it(api: Operating) -> None:
    """Its prompt comes before the caller's."""
    answer = api.client().completions.create(model="prompted", prompt="there")
    assert answer.choices[0].text == "Hello from upstream"
    assert [each["content"] for each in api.asked()[0]["messages"]] == ["Hello", "there"]


def test_a_kept_answer_is_told_as_a_text(api: Operating) -> None:
    """Whole and streamed, from the cache that chats share."""
    first = post(api, {"model": "cached", "prompt": "kept"})
    again = post(api, {"model": "cached", "prompt": "kept", "stream": True})
    assert [each.header("x-llm-gateway-cache") for each in (first, again)] == ["miss", "hit"]
    assert first.json()["choices"][0]["text"] == "Hello from upstream"
    events = [json.loads(each[6:]) for each in again.body.split(b"\n\n") if each.startswith(b"data: {")]
    assert "".join(choice["text"] for each in events for choice in each["choices"]) == "Hello from upstream"
    assert len(api.upstream.requests) == 1


def test_refusals_pass(api: Operating) -> None:
    """In OpenAI's envelope, which is the same for both."""
    for model in ("all", "chats"):
        api.upstream.enqueue(error_reply(400, "too long", code="context_length_exceeded"))
        with pytest.raises(openai.BadRequestError, match="too long"):
            api.client().completions.create(model=model, prompt="x")


def test_every_text_is_reserved_for(api: Operating) -> None:
    """Two prompts with the better of two answers each are four texts of a thousand tokens."""
    asked = {"model": "all", "prompt": ["a", "b"], "best_of": 2}
    assert post(api, asked | {"max_tokens": 1000}, key="key-of-tenant-few").status == 200
    assert [each["max_tokens"] for each in api.asked()] == [750]
