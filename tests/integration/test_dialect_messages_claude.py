"""Callers of Messages before a backend of Anthropic's: what they say and get is what they would without the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import message_count_tokens_params
from pydantic import TypeAdapter

from tests.support.anthropic_api import message, text, thinking, tool_use
from tests.support.claude import ClaudeGateway, claude_gateway
from tests.support.messages_api import KINDS, MessagesApi
from tests.support.scripts import error_reply, json_reply, reply

ASK: dict[str, Any] = {"model": "new", "max_tokens": 4000, "messages": [{"role": "user", "content": "Good morning"}]}
COUNT: dict[str, Any] = {"model": "new", "messages": [{"role": "user", "content": "Good morning " * 20}]}
TOOL = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def running() -> Iterator[ClaudeGateway]:
    """A gateway before a scripted Anthropic."""
    with claude_gateway() as gateway:
        yield gateway


@pytest.fixture
def claude(running: ClaudeGateway) -> Iterator[ClaudeGateway]:
    """The same, as new; whatever it was sent must have been what its API takes."""
    running.forget()
    yield running
    assert running.answers.violations == []


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, claude: ClaudeGateway) -> MessagesApi:
    """The client in front of the gateway."""
    return MessagesApi(request.param, claude.gateway)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_tools_and_thinking_in_a_loop(api: MessagesApi, claude: ClaudeGateway, *, is_streamed: bool) -> None:
    """Reasoning comes with its signature and goes back with it, beside the call that it led to."""
    blocks = [thinking("Hm", "c2ln"), text("Let me see"), tool_use("get_weather", {"city": "Oslo"}, "toolu_1")]
    claude.answers.answer = message(*blocks, stop_reason="tool_use")
    asked = ASK | {"tools": [TOOL], "thinking": {"type": "adaptive"}}
    first = api.stream(**asked).message if is_streamed else api.create(**asked)
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert (first.usage.input_tokens, first.usage.output_tokens) == (
        claude.answers.answer["usage"]["input_tokens"],
        claude.answers.answer["usage"]["output_tokens"],
    )
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny", "is_error": False}
    turns = [
        *ASK["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    claude.answers.answer = message(text("Sunny"))
    second = api.create(**asked | {"messages": turns})
    assert [block.to_dict()["text"] for block in second.content] == ["Sunny"]
    said = claude.sent()["messages"][1]["content"]
    assert [block["type"] for block in said] == ["thinking", "text", "tool_use"]
    assert (said[0]["signature"], said[2]["input"]) == ("c2ln", {"city": "Oslo"})


def test_its_own_count(api: MessagesApi, claude: ClaudeGateway) -> None:
    """Tokens are counted by the backend, which is asked for its own model and sent what such a request may have."""
    claude.upstream.enqueue(json_reply({"input_tokens": 77}))
    counted = api.same(lambda client: client.messages.count_tokens(**COUNT, system="Be kind", tools=[TOOL]))
    assert counted.input_tokens == 77
    [request] = claude.upstream.requests
    assert request.target == "/v1/messages/count_tokens"
    assert request.header("anthropic-version") == "2023-06-01"
    body = request.json()
    TypeAdapter(message_count_tokens_params.MessageCountTokensParams).validate_python(body)
    assert set(body) == {"model", "messages", "system", "tools"}


@pytest.mark.parametrize("script", [error_reply(500), error_reply(401), reply(body=b"{]"), json_reply({})])
def test_without_its_count_there_is_an_estimate(claude: ClaudeGateway, script: Any) -> None:
    """Whatever keeps the backend from it."""
    claude.upstream.enqueue(script)
    api = MessagesApi("sync", claude.gateway)
    assert 50 < api.same(lambda client: client.messages.count_tokens(**COUNT)).input_tokens < 200


def test_a_count_that_it_refuses(claude: ClaudeGateway) -> None:
    """As it says."""
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": "tools.0: no"}}
    claude.upstream.enqueue(json_reply(refusal, 400))
    api = MessagesApi("sync", claude.gateway)
    with pytest.raises(anthropic.BadRequestError, match="tools.0: no"):
        api.same(lambda client: client.messages.count_tokens(**COUNT))
