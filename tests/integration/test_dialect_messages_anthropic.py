"""Callers of Anthropic Messages before a backend that speaks it: request and answer pass as they are.

The answers follow https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import ThinkingBlock

from tests.support.anthropic_api import (
    NEW_MODEL,
    USAGE,
    error,
    error_event,
    events_of,
    message,
    sse,
    text,
    thinking,
    tool_use,
)
from tests.support.claude import ClaudeGateway
from tests.support.messages_api import KINDS, Kind, MessagesApi
from tests.support.scripts import Gate, reply, stream

ASKED: dict[str, Any] = {
    "model": "open",
    "max_tokens": 1_000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [thinking("So", "c2ln"), tool_use("weather", {"city": "Oslo"})]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01A", "content": "sunny"}]},
    ],
    "tools": [
        {"name": "weather", "input_schema": {"type": "object"}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "max"},
}
FOUND = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Oslo"}}


def asked(claude: ClaudeGateway, body: Any) -> Any:
    """The answer to a body, as bytes."""
    headers = {"x-api-key": claude.gateway.key, "anthropic-version": "2023-06-01"}
    with claude.gateway.client() as client:
        return client.request("/v1/messages", body, headers=headers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_official_client_sees_no_gateway(claude: ClaudeGateway, kind: Kind) -> None:
    """Tools that run at the provider, thoughts, markers: what it sends arrives, and what comes back it reads."""
    claude.answers.answer = message(thinking("Let me see"), FOUND, text("Sunny"), stop_reason="end_turn")
    api = MessagesApi(kind, claude.gateway)
    whole = api.create(**ASKED)
    assert claude.sent() == ASKED | {"model": NEW_MODEL}
    assert [block.type for block in whole.content] == ["thinking", "server_tool_use", "text"]
    assert whole.usage.cache_read_input_tokens == USAGE["cache_read_input_tokens"]
    streamed = api.stream(**ASKED)
    assert claude.sent() == ASKED | {"model": NEW_MODEL, "stream": True}
    assert [block.type for block in streamed.message.content] == [block.type for block in whole.content]
    assert isinstance(streamed.message.content[0], ThinkingBlock)
    assert streamed.message.content[0] == whole.content[0]
    assert streamed.message.usage.output_tokens == whole.usage.output_tokens


def test_answers_pass_byte_for_byte(claude: ClaudeGateway) -> None:
    """Whole, and streamed with what is not known."""
    body = json.dumps(message(text("Good morning")) | {"a_new_one": [1.0]}, indent=1).encode()
    claude.upstream.enqueue(reply(body=body))
    assert asked(claude, ASKED).body == body
    events = [sse(event) for event in events_of(message(text("Good morning"), FOUND))]
    events.insert(3, b'event: a_new_one\ndata: {"type": "a_new_one"}\n\n')
    events.insert(2, b": a comment\n\n")
    claude.upstream.enqueue(stream([each[at : at + 40] for each in events for at in range(0, len(each), 40)]))
    assert asked(claude, ASKED | {"stream": True}).body == b"".join(events)


def test_unknown_fields_are_for_the_backend_to_judge(claude: ClaudeGateway) -> None:
    """They arrive; and so does what it says of them."""
    claude.upstream.enqueue(error("invalid_request_error", "a_new_one: Extra inputs are not permitted"))
    answer = asked(claude, ASKED | {"a_new_one": {"b": None}})
    assert claude.sent() == ASKED | {"model": NEW_MODEL, "a_new_one": {"b": None}}
    assert (answer.status, answer.json()["error"]["message"]) == (400, "a_new_one: Extra inputs are not permitted")


def test_the_scenario_decides_what_it_decides(claude: ClaudeGateway) -> None:
    """A prompt before the system prompt, a default, a cap, and the fields it takes; the rest is as it came."""
    MessagesApi("sync", claude.gateway).create(**ASKED | {"model": "poet"})
    expected = ASKED | {"model": NEW_MODEL, "max_tokens": 500, "stop_sequences": ["END"]}
    assert claude.sent() == expected | {"system": [{"type": "text", "text": "You are a poet."}, *ASKED["system"]]}
    with pytest.raises(anthropic.BadRequestError, match="mcp_servers"):
        MessagesApi("sync", claude.gateway).create(
            model="strict", max_tokens=5, messages=ASKED["messages"][:1], extra_body={"mcp_servers": []}
        )


def test_betas_are_asked_for_as_far_as_they_are_allowed(claude: ClaudeGateway) -> None:
    """What is left out is logged and counted."""
    api = MessagesApi("sync", claude.gateway)
    headers = {"anthropic-beta": "context-1m-2025-08-07,skills-2025-10-02", "x-request-id": "betas"}
    api.create(**ASKED, extra_headers=headers)
    assert claude.upstream.requests[-1].header("anthropic-beta") == "context-1m-2025-08-07"
    line = claude.gateway.wait_for_log(lambda line: line.get("request_id") == "betas")
    assert line["dropped"] == ["anthropic-beta"]
    shown = claude.gateway.metrics().value("llm_gateway_dropped_fields_total", scenario="open", field="anthropic-beta")
    assert shown >= 1


@pytest.mark.parametrize("streamed", [False, True])
def test_what_was_used_is_charged(claude: ClaudeGateway, *, streamed: bool) -> None:
    """From the usage that passes by."""
    headers = {"x-request-id": f"passed-{streamed}"}
    api = MessagesApi("sync", claude.gateway)
    if streamed:
        api.stream(**ASKED, extra_headers=headers)
    else:
        api.create(**ASKED, extra_headers=headers)
    line = claude.gateway.wait_for_log(lambda line: line.get("request_id") == headers["x-request-id"])
    assert line["cost_usd"] == "0.001310000"
    assert line["tokens"]["cache_written"] == 20


def test_a_stream_that_its_caller_cuts_is_charged_what_came(claude: ClaudeGateway) -> None:
    """Its input as reported at the start."""
    events = [sse(event) for event in events_of(message(text("Good morning to you")))]
    claude.upstream.enqueue(stream(events[:5], ending=[]).then(Gate()))
    headers = {"x-request-id": "passed-cut"}
    with anthropic.Anthropic(base_url=claude.gateway.base_url, api_key=claude.gateway.key) as client:
        chunks = client.messages.create(**ASKED, stream=True, extra_headers=headers)
        assert next(iter(chunks)).type == "message_start"
        chunks.close()
    tokens = claude.gateway.wait_for_log(lambda line: line.get("request_id") == "passed-cut")["tokens"]
    assert (tokens["input"], tokens["cached"], tokens["cache_written"], tokens["estimated"]) == (327, 300, 20, True)


def test_errors_are_the_clients_own(claude: ClaudeGateway) -> None:
    """In a stream, before it, and of a backend that is cut off."""
    events = [sse(event) for event in events_of(message(text("Good morning to you")))]
    for broken, said in (([error_event("overloaded_error", "Overloaded")], "Overloaded"), ([], "broke off")):
        held = Gate()
        rest = stream(broken).steps[1:]
        claude.upstream.enqueue(stream(events[:4], ending=[]).then(held, *rest))
        with anthropic.Anthropic(base_url=claude.gateway.base_url, api_key=claude.gateway.key) as client:
            chunks = client.messages.create(**ASKED, stream=True)
            assert next(iter(chunks)).type == "message_start"
            held.open()
            with pytest.raises(anthropic.APIStatusError, match=said):
                list(chunks)
    api = MessagesApi("sync", claude.gateway)
    claude.upstream.enqueue(error("overloaded_error", "Overloaded", 529))
    with pytest.raises(anthropic.APIStatusError) as caught:
        api.create(**ASKED)
    assert caught.value.status_code == 529
    claude.upstream.enqueue(error("invalid_request_error", "Your credit balance is too low"))
    with pytest.raises(anthropic.InternalServerError) as hidden:
        api.create(**ASKED)
    assert "credit" not in str(hidden.value)


def test_a_fallback_of_another_dialect_cannot_say_it_all(claude: ClaudeGateway) -> None:
    """Where the first backend fails, the next gets what a chat can say; where it cannot, the first failure counts."""
    claude.upstream.enqueue(error("overloaded_error", "Overloaded", 529))
    plain = {"model": "spare", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    answer = MessagesApi("sync", claude.gateway).create(**plain)
    assert [block.type for block in answer.content] == ["text"]
    claude.upstream.enqueue(error("overloaded_error", "Overloaded", 529))
    with pytest.raises(anthropic.APIStatusError) as caught:
        MessagesApi("sync", claude.gateway).create(**ASKED | {"model": "spare"})
    assert caught.value.status_code == 529
