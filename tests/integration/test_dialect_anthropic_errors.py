"""What a backend that speaks Anthropic Messages cannot do, or refuses, as the official ``openai`` client is told.

Whatever the gateway sends is held against the types of Anthropic's own client; see ``tests.support.anthropic_api``. The
answers follow https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.support.anthropic_api import (
    error,
    error_event,
    events_of,
    sse,
)
from tests.support.claude import ClaudeGateway
from tests.support.scripts import Gate, stream
from tests.support.surface import MESSAGES


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"seed": 1}, "seed"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
    ],
)
def test_what_it_cannot_do_is_refused_or_left_out(claude: ClaudeGateway, fields: Any, param: str) -> None:
    """Refused by name; left out and noted where the scenario is lenient. The backend is not asked with it."""
    with pytest.raises(openai.BadRequestError) as caught:
        claude.api().complete(model="new", messages=MESSAGES, **fields)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_field")
    assert claude.upstream.requests == []
    claude.api().complete(model="lenient", messages=MESSAGES, **fields)
    assert set(claude.sent()) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (
            [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
            "messages[0].content[0].input_audio",
        ),
        ([{"type": "file", "file": {"file_id": "file-1"}}], "messages[0].content[0].file.file_id"),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}],
            "messages[0].content[0].image_url.url",
        ),
        ("", "messages[0].content"),
    ],
)
def test_what_cannot_be_shown_is_named(claude: ClaudeGateway, content: Any, param: str) -> None:
    """By its place."""
    with pytest.raises(openai.BadRequestError) as caught:
        claude.api().complete(model="new", messages=[{"role": "user", "content": content}])
    assert caught.value.param == param


def test_refusals_of_the_backend_name_the_field(claude: ClaudeGateway) -> None:
    """In the envelope of a chat, with what Anthropic said."""
    claude.upstream.enqueue(error("invalid_request_error", "messages.0.content: too many images"))
    with pytest.raises(openai.BadRequestError, match="too many images") as caught:
        claude.api().complete(model="new", messages=MESSAGES)
    assert (caught.value.param, caught.value.type) == ("messages", "invalid_request_error")
    claude.upstream.enqueue(error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"))
    with pytest.raises(openai.BadRequestError) as caught:
        claude.api().complete(model="new", messages=MESSAGES)
    assert caught.value.code == "context_length_exceeded"
    claude.upstream.enqueue(error("request_too_large", "Request exceeds the maximum size", 413))
    with pytest.raises(openai.APIStatusError, match="exceeds the maximum") as too_large:
        claude.api().complete(model="new", messages=MESSAGES)
    assert (too_large.value.status_code, too_large.value.code) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (error("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), 502),
        (error("authentication_error", "invalid x-api-key sk-ant-of", 401), 502),
        (error("overloaded_error", "Overloaded", 529, [("retry-after", "7")]), 503),
        (error("rate_limit_error", "of organization 17", 429), 503),
        (stream([error_event("overloaded_error", "Overloaded")]), 503),
    ],
)
def test_what_is_no_fault_of_the_caller_goes_elsewhere(claude: ClaudeGateway, refusal: Any, status: int) -> None:
    """And without one is told in the gateway's own words: nothing of the operator's account."""
    claude.upstream.enqueue(refusal, refusal)
    assert claude.api().stream(model="spare", messages=MESSAGES)[-1].choices
    with pytest.raises(openai.APIStatusError) as caught:
        claude.api().stream(model="new", messages=MESSAGES)
    assert caught.value.status_code == status
    assert not any(word in str(caught.value) for word in ("credit", "sk-ant", "organization"))
    if status == 503 and "retry-after: 7" in repr(refusal):
        assert caught.value.response.headers["retry-after"] == "7"


def test_an_error_in_a_stream_is_an_error_of_the_client(claude: ClaudeGateway) -> None:
    """After what was said; and so is a stream that is cut."""
    events = [sse(event) for event in events_of(claude.answers.answer)]
    for broken, said in (([error_event("overloaded_error", "Overloaded")], "overloaded"), ([], "broke off")):
        said_first = Gate()
        begun, rest = stream(events[:4], ending=[]), stream(broken)
        claude.upstream.enqueue(begun.then(said_first, *rest.steps[1:]))
        with claude.client() as client:
            asked: Any = {"model": "new", "messages": MESSAGES}
            chunks = client.chat.completions.create(stream=True, **asked)
            assert next(chunks).choices[0].delta.role == "assistant"
            said_first.open()
            with pytest.raises(openai.APIError, match=said):
                list(chunks)


def test_features_in_beta_are_asked_for(claude: ClaudeGateway) -> None:
    """As the backend's document says."""
    claude.api().complete(model="beta", messages=MESSAGES)
    assert claude.upstream.requests[-1].header("anthropic-beta") == "context-1m-2025-08-07,code-2025"
    claude.api().complete(model="new", messages=MESSAGES)
    assert claude.upstream.requests[-1].header("anthropic-beta") is None


def test_what_was_left_out_is_counted_and_logged(claude: ClaudeGateway) -> None:
    """By the field's name in the metric, by its place in the line."""
    asked: Any = {"role": "user", "content": "Hello", "name": "joe"}
    claude.api().complete(model="lenient", messages=[asked], seed=1)
    places = {"messages[0].name", "seed"}
    claude.gateway.wait_for_log(lambda line: set(line["dropped"] if line["event"] == "request" else ()) == places)
    for field in ("messages", "seed"):
        shown = claude.gateway.metrics().value("llm_gateway_dropped_fields_total", scenario="lenient", field=field)
        assert shown >= 1
