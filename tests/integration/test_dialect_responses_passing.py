"""Responses over a backend that has them, too: they pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from openai import OpenAI

from tests.support.gateway import GatewayProcess
from tests.support.openai_api import Api
from tests.support.responses_api import (
    KEY,
    completion,
    create,
    events_of,
)
from tests.support.scripts import Script, event, json_reply, stream
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually


@pytest.fixture
def gateway(responses_pair: tuple[GatewayProcess, ScriptedUpstream]) -> GatewayProcess:
    """The gateway."""
    return responses_pair[0]


@pytest.fixture
def upstream(responses_pair: tuple[GatewayProcess, ScriptedUpstream]) -> ScriptedUpstream:
    """Its backend, with nothing asked of it yet."""
    responses_pair[1].forget()
    return responses_pair[1]


NATIVE: dict[str, Any] = {
    "id": "resp_of_the_backend",
    "object": "response",
    "created_at": 1760000000,
    "status": "completed",
    "model": "upstream-model",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Native", "annotations": []}],
        }
    ],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 35,
    },
    "a_later_field": {"kept": True},
}


def native_events(pieces: Sequence[dict[str, Any]]) -> Script:
    """A stream of Responses."""
    return stream([b"event: %b\n%b" % (piece["type"].encode(), event(piece)) for piece in pieces])


def test_it_gets_the_request_as_it_is_and_its_answer_passes(
    gateway: GatewayProcess, upstream: ScriptedUpstream
) -> None:
    """Every byte of the answer, every unknown field of the request; usage is metered."""
    upstream.enqueue(json_reply(NATIVE))
    body = {"model": "native", "input": "x", "truncation": "auto", "tools": [{"type": "web_search"}], "new": [1]}
    with gateway.client() as client:
        answer = client.request("/v1/responses", body, key=KEY)
    assert answer.json() == NATIVE
    [request] = upstream.requests
    assert (request.target, request.json()) == ("/v1/responses", body | {"model": "upstream-model"})
    line = gateway.wait_for_log(lambda line: line.get("request_id") == answer.header("x-request-id"))
    assert (line["tokens"]["input"], line["tokens"]["cached"], line["tokens"]["output"]) == (30, 10, 5)


def test_its_stream_passes_and_can_be_gone_on_from(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """By the id that the backend gave it; what was said is sent along, and the backend's own state is not asked for."""
    created = {
        "type": "response.created",
        "sequence_number": 0,
        "response": NATIVE | {"status": "in_progress", "output": []},
    }
    done = {"type": "response.completed", "sequence_number": 1, "response": NATIVE}
    upstream.enqueue(native_events([created, done]), json_reply(NATIVE))
    with OpenAI(base_url=f"{gateway.base_url}/v1", api_key=KEY, max_retries=0) as client:
        events = list(client.responses.create(model="native", input="x", stream=True))
        assert [each.type for each in events] == ["response.created", "response.completed"]
        client.responses.create(model="native", input="y", previous_response_id="resp_of_the_backend")
    sent = upstream.requests[1].json()
    assert "previous_response_id" not in sent
    assert [item.get("role") for item in sent["input"]] == ["user", "assistant", "user"]


def test_a_scenario_adds_its_prompt_and_its_cap(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """All else passes as it came."""
    upstream.enqueue(json_reply(NATIVE))
    create(Api("sync", gateway), model="prompted", input="x", max_output_tokens=100, truncation="auto")
    sent = upstream.requests[0].json()
    assert sent["input"][0]["role"] == "system"
    assert sent["input"][1] == {"type": "message", "role": "user", "content": "x"}
    assert (sent["max_output_tokens"], sent["truncation"]) == (40, "auto")


def test_answers_that_are_kept_are_told_as_chat(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """So that each caller gets them in its own words; each response has an id of its own."""
    upstream.enqueue(completion({"content": "Kept"}))
    api = Api("sync", gateway)
    first = create(api, model="cached", input="the same")
    assert upstream.requests[0].target == "/v1/chat/completions"
    eventually(lambda: create(api, model="cached", input="the same").output_text == "Kept")
    _, streamed = events_of(api, model="cached", input="the same")
    assert (streamed.output_text, len(upstream.requests)) == ("Kept", 1)
    assert streamed.id != first.id
