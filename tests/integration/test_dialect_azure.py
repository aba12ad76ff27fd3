"""Azure OpenAI behind the gateway: its addresses and credentials, its filter's first events and refusals.

What the scripted upstream answers follows https://learn.microsoft.com/azure/ai-foundry/openai/reference and
https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter.
"""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.documents import Document, api_key, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.openai_api import Api, text_of
from tests.support.scripts import DONE, Chat, event, json_reply, reply, stream
from tests.support.surface import MESSAGES
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

Pair = tuple[GatewayProcess, ScriptedUpstream]

FILTERED = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
PROMPT_FILTER = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
}
REFUSAL = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED},
    }
}


def azure(name: str, url: str, **spec: object) -> Document:
    """A resource."""
    return document("Backend", name, {"provider": "azure", "url": url, "model": "gpt-4o-eu"} | spec)


@pytest.fixture(scope="module")
def running() -> Iterator[Pair]:
    """Scenarios ``dated`` (with the key) and ``v1`` (with a token of a file)."""
    key = new_key()
    header = {"type": "header", "name": "api-key", "secret": {"env": "LLM_GATEWAY_SECRET_AZURE"}}
    bearer = {"type": "bearerFile", "secret": {"file": "entra"}}
    with ScriptedUpstream() as upstream:
        documents = [
            azure("dated", upstream.url, apiVersion="2024-10-21", auth=header),
            azure("v1", upstream.url, auth=bearer),
            scenario("dated", "dated"),
            scenario("v1", "v1"),
            tenant("acme"),
            api_key("acme-key", key),
        ]
        env = {"LLM_GATEWAY_SECRET_AZURE": "azure-key"}
        with GatewayProcess(documents, key=key, env=env, secrets={"entra": b"token-1\n"}) as gateway:
            yield gateway, upstream


@pytest.fixture
def pair(running: Pair) -> Pair:
    """The same, as new."""
    running[1].forget()
    return running


def test_a_deployment_is_called_with_the_key(pair: Pair) -> None:
    """The deployment is in the address, the key in its own header, and nothing of the caller's credential."""
    gateway, upstream = pair
    answer = Api("sync", gateway).complete(model="dated", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello from upstream"
    [request] = upstream.requests
    assert request.target == "/openai/deployments/gpt-4o-eu/chat/completions?api-version=2024-10-21"
    assert request.header("api-key") == "azure-key"
    assert request.header("authorization") is None
    assert request.json() == {"model": "gpt-4o-eu", "messages": MESSAGES}


def test_the_v1_api_is_called_with_the_token_of_now(pair: Pair) -> None:
    """A token that was renewed in its file is sent soon after, without a word to the registry."""
    gateway, upstream = pair
    api = Api("sync", gateway)
    api.complete(model="v1", messages=MESSAGES)
    assert upstream.requests[0].target == "/openai/v1/chat/completions"
    assert upstream.requests[0].header("authorization") == "Bearer token-1"
    fresh = gateway.secrets_folder / ".entra.new"
    fresh.write_bytes(b"token-2\n")
    fresh.replace(gateway.secrets_folder / "entra")

    def is_sent() -> bool:
        api.complete(model="v1", messages=MESSAGES)
        return upstream.requests[-1].header("authorization") == "Bearer token-2"

    eventually(is_sent, 5.0, what="the new token is sent", every_s=0.2)


def test_a_stream_that_begins_with_what_the_filter_says(pair: Pair) -> None:
    """The first event has no choices; it passes, and the usage that the gateway asked for is still kept back."""
    gateway, upstream = pair
    answer = Chat()
    events = [event(PROMPT_FILTER), *answer.events("gpt-4o", with_usage=True)]
    upstream.enqueue(stream(events))
    api = Api("sync", gateway, default_headers={"x-request-id": "azure-filtered-0001"})
    chunks = api.stream(model="dated", messages=MESSAGES)
    assert chunks[0].choices == []
    assert chunks[0].model_extra is not None
    assert chunks[0].model_extra["prompt_filter_results"] == PROMPT_FILTER["prompt_filter_results"]
    assert text_of(chunks) == "Hello from upstream"
    assert all(chunk.usage is None for chunk in chunks)
    line = gateway.wait_for_log(lambda line: line.get("request_id") == "azure-filtered-0001")
    assert line["provider"] == "azure"
    assert line["tokens"] == {"input": 11, "cached": 0, "output": 3, "estimated": False}


def test_a_stream_without_usage_is_estimated_by_what_was_said(pair: Pair) -> None:
    """The filter's long first event is no measure of what an event is made of."""
    gateway, upstream = pair
    words = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        for choice in [{"index": 0, "delta": {"content": "four"}, "finish_reason": None}] * 40
    ]
    upstream.enqueue(stream([event(PROMPT_FILTER), *map(event, words), DONE]))
    raw = Api("sync", gateway, default_headers={"x-request-id": "azure-estimated-0001"})
    assert text_of(raw.stream(model="dated", messages=MESSAGES)) == "four" * 40
    line = gateway.wait_for_log(lambda line: line.get("request_id") == "azure-estimated-0001")
    assert line["tokens"]["estimated"]
    assert 40 <= line["tokens"]["output"] <= 60


def test_what_the_filter_refuses_passes(pair: Pair) -> None:
    """The caller reads the inner error as Azure wrote it."""
    gateway, upstream = pair
    upstream.enqueue(json_reply(REFUSAL, 400))
    with pytest.raises(openai.BadRequestError) as caught:
        Api("sync", gateway).complete(model="dated", messages=MESSAGES)
    assert caught.value.body == REFUSAL["error"]
    assert caught.value.code == "content_filter"


def test_how_long_to_wait_is_heard_in_milliseconds(pair: Pair) -> None:
    """``retry-after-ms`` counts before ``retry-after``."""
    gateway, upstream = pair
    headers = [("retry-after-ms", "2300"), ("retry-after", "30"), ("content-type", "application/json")]
    upstream.enqueue(reply(429, body=b"{}", headers=headers))
    with pytest.raises(openai.InternalServerError) as caught:
        Api("sync", gateway).complete(model="dated", messages=MESSAGES)
    assert caught.value.response.headers["retry-after"] == "3"
