"""What goes wrong with Gemini, as callers of the official ``openai`` client see it: refusals, filters, ends.

Sources: https://ai.google.dev/gemini-api/docs/troubleshooting, https://cloud.google.com/apis/design/errors,
https://ai.google.dev/api/generate-content#FinishReason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.documents import Document, api_key, document, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.gemini import (
    Gemini,
    answer,
    call,
    candidate,
    error,
    error_info,
    error_reply,
    events,
    response,
    retry_info,
    usage,
)
from tests.support.openai_api import Api, text_of
from tests.support.scripts import LAST_CHUNK, Close, Gate, Send, chunk, stream
from tests.support.upstream import ScriptedUpstream

Trio = tuple[GatewayProcess, ScriptedUpstream, Gemini]

MESSAGES: list[Any] = [{"role": "user", "content": "Good morning"}]
SECRET = "projects/acme-prod-42"
"""Of the operator's account; no caller may read it."""


@pytest.fixture(scope="module")
def running() -> Iterator[Trio]:
    """Scenarios ``chat`` (Gemini alone) and ``spare`` (with another backend after it)."""
    key = new_key()
    behaviour = Gemini()
    with ScriptedUpstream(behaviour) as upstream:
        auth = {"type": "header", "secret": {"env": "LLM_GATEWAY_SECRET_GEMINI"}}
        spec: Document = {"provider": "gemini", "url": f"{upstream.url}/v1beta", "model": "gemini-3-flash"}
        documents = [
            document("Backend", "gemini", spec | {"auth": auth, "unsupportedFields": ["logit_bias"]}),
            echo_backend("echo"),
            scenario("chat", "gemini"),
            scenario("spare", "gemini", "echo"),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        env = {"LLM_GATEWAY_SECRET_GEMINI": "google-key"}
        with GatewayProcess(documents, key=key, env=env) as gateway:
            yield gateway, upstream, behaviour


@pytest.fixture
def trio(running: Trio) -> Iterator[Trio]:
    """The same, as new; no request was one that Gemini does not allow."""
    running[1].forget()
    running[2].forget()
    yield running
    assert running[2].problems == []
    running[0].assert_nothing_in_flight()


@pytest.fixture
def api(trio: Trio) -> Api:
    """The client."""
    return Api("sync", trio[0])


def refused(api: Api, status: int, **fields: Any) -> openai.APIStatusError:
    """The error of a call, whole and streamed; nothing of the operator's account is in it."""
    with pytest.raises(openai.APIStatusError) as whole:
        api.complete(**{"model": "chat", "messages": MESSAGES} | fields)
    with pytest.raises(openai.APIStatusError) as streamed:
        api.stream(**{"model": "chat", "messages": MESSAGES} | fields)
    for caught in (whole, streamed):
        assert caught.value.status_code == status
        assert "acme-prod" not in caught.value.response.text
    assert whole.value.body == streamed.value.body
    return whole.value


def test_a_refusal_says_why(api: Api, trio: Trio) -> None:
    """A 400 in the caller's envelope, with Gemini's own words and nothing of the account."""
    trio[2].reply = error_reply(400, f"Invalid value at 'generation_config.temperature' of {SECRET}.")
    caught = refused(api, 400)
    assert caught.body == {
        "message": "Invalid value at 'generation_config.temperature' of projects/-",
        "type": "invalid_request_error",
        "param": None,
        "code": "upstream_refused",
    }


@pytest.mark.parametrize(
    "reply",
    [
        error_reply(400, "API key not valid. Please pass a valid API key.", "", error_info("API_KEY_INVALID")),
        error_reply(400, f"Billing of {SECRET} is disabled.", "FAILED_PRECONDITION"),
        error_reply(401, f"Request had invalid credentials for {SECRET}."),
        error_reply(403, f"{SECRET} has no permission.", "PERMISSION_DENIED"),
        error_reply(404, f"No model in {SECRET}.", "NOT_FOUND"),
    ],
    ids=["key", "billing", "401", "403", "404"],
)
def test_what_is_wrong_with_the_account_is_not_the_callers(api: Api, trio: Trio, reply: Any) -> None:
    """A 502 that says nothing of it, and another backend may answer."""
    trio[2].reply = reply
    assert refused(api, 502).code == "upstream_failed"
    assert api.complete(model="spare", messages=MESSAGES).choices[0].message.content == "Good morning"


@pytest.mark.parametrize("code", [429, 503])
def test_how_long_to_wait_is_told(api: Api, trio: Trio, code: int) -> None:
    """``RetryInfo`` of the body becomes ``retry-after``."""
    trio[2].reply = error_reply(code, "Quota exceeded.", "", retry_info("6.5s"))
    caught = refused(api, 503)
    assert caught.response.headers["retry-after"] == "7"


def test_a_stream_that_begins_with_an_error_never_began(api: Api, trio: Trio) -> None:
    """Another backend answers."""
    trio[2].reply = [error(503)]
    assert text_of(api.stream(model="spare", messages=MESSAGES)) == "Good morning"
    with pytest.raises(openai.APIStatusError):
        api.stream(model="chat", messages=MESSAGES)


def test_a_stream_that_breaks_off_with_an_error(api: Api, trio: Trio) -> None:
    """What was said stays, then comes an error of the caller's dialect; what was used is charged."""
    gate = Gate()
    first, last = events([response(candidate("Hel", finish=None), used=usage(11, 2)), error(503, f"of {SECRET}")])
    trio[2].reply = stream([first], ending=[gate, Send(chunk(last)), Send(LAST_CHUNK)])
    with openai.OpenAI(**api._options) as client:
        chunks = client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        assert next(chunks).choices[0].delta.content == "Hel"
        gate.open()
        with pytest.raises(openai.APIError, match="overloaded") as caught:
            next(chunks)
    assert "acme-prod" not in str(caught.value)
    line = trio[0].wait_for_log(lambda line: line.get("stream_end") == "error_in_body")
    assert line["tokens"] == {"input": 11, "cached": 0, "output": 2, "estimated": False}


def test_a_stream_that_its_caller_leaves(api: Api, trio: Trio) -> None:
    """The backend is left at once, and what it had said of the usage is charged."""
    gate = Gate()
    first = events([response(candidate("Hel", finish=None), used=usage(11, 1, thoughtsTokenCount=5))])
    trio[2].reply = stream(first, ending=[gate])
    with openai.OpenAI(**api._options) as client:
        chunks = client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        assert next(chunks).choices[0].delta.content == "Hel"
        chunks.close()
    trio[1].wait_for_disconnect()
    line = trio[0].wait_for_log(lambda line: line.get("stream_end") == "client_gone")
    assert line["tokens"] == {"input": 11, "cached": 0, "output": 6, "estimated": False}
    gate.open()


@pytest.mark.parametrize("ending", [None, (Close(),)], ids=["ended", "cut"])
def test_a_stream_that_ends_too_early(api: Api, trio: Trio, ending: Any) -> None:
    """An answer without its end is an error, however politely the stream ended."""
    trio[2].reply = stream(events([response(candidate("Hel", finish=None))]), ending=ending)
    with pytest.raises(openai.APIError, match="broke off its answer"):
        api.stream(model="chat", messages=MESSAGES)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
    ],
)
def test_ends(api: Api, trio: Trio, reason: str, finish: str) -> None:
    """Each end has its name in the caller's dialect, whole and streamed."""
    trio[2].reply = answer("So far", finish=reason)
    assert api.complete(model="chat", messages=MESSAGES).choices[0].finish_reason == finish
    assert api.stream(model="chat", messages=MESSAGES)[-1].choices[0].finish_reason == finish


def test_a_prompt_that_was_blocked(api: Api, trio: Trio) -> None:
    """An answer that says nothing and says why; its input is charged."""
    document = {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"promptTokenCount": 8}}
    trio[2].reply = document
    got = api.complete(model="chat", messages=MESSAGES)
    assert (got.choices[0].finish_reason, got.choices[0].message.content) == ("content_filter", "")
    assert got.usage is not None
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (8, 0)
    trio[2].reply = [document]
    chunks = api.stream(model="chat", messages=MESSAGES)
    assert (text_of(chunks), chunks[-1].choices[0].finish_reason) == ("", "content_filter")


def test_an_answer_that_is_none(api: Api, trio: Trio) -> None:
    """Where the model failed and said nothing, another backend may answer."""
    trio[2].reply = answer(finish="MALFORMED_FUNCTION_CALL")
    assert refused(api, 502).code == "upstream_failed"
    assert text_of(api.stream(model="spare", messages=MESSAGES)) == "Good morning"
    trio[2].reply = {"usageMetadata": {"promptTokenCount": 8}}
    assert refused(api, 502).code == "upstream_failed"


IMAGE = "messages[0].content[0]"


def part(kind: str, **value: Any) -> Document:
    """A request whose user says this one part."""
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: value}]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "utmost"}, "reasoning_effort"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"extra_body": {"extra_body": {"google": {"cached_content": "cachedContents/x"}}}}, "extra_body"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Bo"}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "Hi"}]}, "messages[0].tool_call_id"),
        (part("image_url", url="https://pictures.example/cat"), IMAGE),
        (part("image_url", url="http://pictures.example/cat.png"), IMAGE),
        (part("image_url", url="gs://other/cat.png"), IMAGE),
        (part("image_url", url="https://storage.googleapis.com/other/cat.png"), IMAGE),
        (part("image_url", url="data:image/png;base64,not it"), IMAGE),
        (part("input_audio", data="AAAA", format="opus"), IMAGE),
        (part("file", file_id="file-1"), IMAGE),
        (part("video_url", url="https://films.example/cat.mp4"), f"{IMAGE}.type"),
    ],
)
def test_what_cannot_be_asked_is_named(api: Api, trio: Trio, fields: Document, param: str) -> None:
    """And nothing is sent."""
    caught = refused(api, 400, **fields)
    assert caught.param == param
    assert trio[1].requests == []


def test_arguments_that_are_no_object(api: Api, trio: Trio) -> None:
    """Of a call that is sent back."""
    made = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
    caught = refused(api, 400, messages=[*MESSAGES, {"role": "assistant", "tool_calls": [made]}])
    assert caught.param == "messages[1].tool_calls[0].function.arguments"
    assert trio[1].requests == []


def test_the_operator_reads_why(api: Api, trio: Trio) -> None:
    """In the log, by its kind, and neither prompt nor credential with it."""
    trio[2].reply = error_reply(400, "API key not valid: Good morning", "", error_info("API_KEY_INVALID"))
    refused(api, 502)
    trio[0].wait_for_log(lambda line: "400 INVALID_ARGUMENT" in str(line))
    assert "google-key" not in trio[0].output()
    assert "Good morning" not in trio[0].output()


def test_fields_that_the_operator_leaves_out(api: Api, trio: Trio) -> None:
    """``unsupportedFields`` counts here, too."""
    assert api.complete(model="chat", messages=MESSAGES, logit_bias={"1": 2}).choices[0].finish_reason == "stop"
    trio[2].reply = answer(call("f", {}))
    assert api.complete(model="chat", messages=MESSAGES).choices[0].finish_reason == "tool_calls"
