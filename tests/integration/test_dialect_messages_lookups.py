"""Counts of tokens and lists of models, as the official ``anthropic`` client asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.support.documents import api_key, backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.messages_api import KINDS, MessagesApi
from tests.support.scripts import Chat, Tokens
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

Pair = tuple[GatewayProcess, ScriptedUpstream]

COUNT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "Good morning " * 100}]}
LIMITED_KEY = new_key()
NAMES = ["chat", "chat/alias", "hidden", "other"]


@pytest.fixture(scope="module")
def running() -> Iterator[Pair]:
    """A gateway with several scenarios, and a tenant whose calls are counted."""
    key = new_key()
    usage = Tokens(prompt=4000, completion=1)
    limits = [
        {"unit": "requests", "per": "hour", "amount": 5},
        {"unit": "tokens", "per": "hour", "amount": 1},
        {"unit": "concurrency", "amount": 1},
    ]
    with ScriptedUpstream(Chat(usage=usage)) as upstream:
        documents = [
            backend("main", f"{upstream.url}/v1", model="upstream-model"),
            backend("away", f"{upstream.url}/v1", disabled=True),
            scenario("chat", "main", aliases=["chat/alias"], prompt="polite.v1"),
            scenario("other", "main"),
            scenario("hidden", "away"),
            tenant("acme", limits=[{"unit": "tokens", "per": "hour", "amount": 10_000_000}]),
            api_key("acme-key", key),
            tenant("small", limits=limits, scenarios=["other"]),
            api_key("small-key", LIMITED_KEY, "small"),
        ]
        prompt = {"inputVars": [], "template": "Be polite. " * 10}
        documents.append(
            {
                "apiVersion": "llmgateway.dev/v1alpha1",
                "kind": "Prompt",
                "metadata": {"name": "polite.v1"},
                "spec": prompt,
            }
        )
        with GatewayProcess(documents, key=key, env={"LLM_GATEWAY_REDIS_URL": "embedded"}) as gateway:
            yield gateway, upstream


@pytest.fixture
def pair(running: Pair) -> Pair:
    """The same, as new."""
    running[1].forget()
    return running


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, pair: Pair) -> MessagesApi:
    """The client in front of the gateway."""
    return MessagesApi(request.param, pair[0])


def count(api: MessagesApi, **fields: Any) -> int:
    """Tokens as the client gets them."""
    found: int = api.same(lambda client: client.messages.count_tokens(**COUNT | fields)).input_tokens
    return found


def test_an_estimate(api: MessagesApi, pair: Pair) -> None:
    """It grows with what is said, holds the scenario's prompt, and calls no backend."""
    plain = count(api, model="other")
    assert 200 < plain < 1300
    assert count(api, model="other", system="a long text " * 100) > plain + 200
    assert count(api) > plain
    tool = {"name": "f", "description": "d" * 400, "input_schema": {"type": "object"}}
    assert count(api, model="other", tools=[tool]) > plain + 80
    assert pair[1].requests == []


def test_the_estimate_learns(pair: Pair) -> None:
    """From what the backend says that it counted."""
    api = MessagesApi("sync", pair[0])
    before = count(api, model="other")
    for _ in range(5):
        api.create(**COUNT | {"model": "other", "max_tokens": 10})
    eventually(lambda: count(api, model="other") > before * 1.2, what="an estimate that has learned")


def test_a_count_is_a_request(pair: Pair) -> None:
    """Limits of requests bind it and no others; it is in the ledger, without tokens."""
    api = MessagesApi("sync", pair[0], key=LIMITED_KEY)
    raw = api.same(lambda client: client.messages.with_raw_response.count_tokens(**COUNT | {"model": "other"}))
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "4"
    assert "anthropic-ratelimit-tokens-remaining" not in raw.headers
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert raw.headers["x-llm-gateway-scenario"] == "other"
    for _ in range(4):
        count(api, model="other")
    with pytest.raises(anthropic.RateLimitError):
        count(api, model="other")
    with pair[0].client() as client:
        report = client.request("/v1/usage", key=LIMITED_KEY).json()
    assert (report["total"]["requests"], report["total"]["input_tokens"]) == (5, 0)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError),
        ({"model": "hidden"}, anthropic.OverloadedError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, anthropic.BadRequestError),
    ],
)
def test_counts_that_are_refused(pair: Pair, fields: dict[str, Any], kind: type[anthropic.APIStatusError]) -> None:
    """As the call itself would be."""
    with pytest.raises(kind):
        count(MessagesApi("sync", pair[0]), **fields)


def test_a_count_needs_a_key(pair: Pair) -> None:
    """Like everything else."""
    with pytest.raises(anthropic.AuthenticationError):
        count(MessagesApi("sync", pair[0], key="wrong-key-of-nobody"))


def test_models(api: MessagesApi) -> None:
    """The client turns the pages; each model is what it expects."""
    assert api.run(lambda client: [model.id for model in client.models.list(limit=2)], _ids) == NAMES
    model = api.same(lambda client: client.models.retrieve("chat/alias"))
    assert (model.id, model.type, model.display_name, model.lifecycle) == (
        "chat/alias",
        "model",
        "chat/alias",
        "active",
    )
    assert model.created_at.year >= 2025


async def _ids(client: anthropic.AsyncAnthropic) -> list[str]:
    return [model.id async for model in client.models.list(limit=2)]


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ("", NAMES, False),
        ("?limit=2", NAMES[:2], True),
        ("?limit=2&after_id=chat/alias", NAMES[2:], False),
        ("?limit=2&before_id=other", NAMES[1:3], True),
        ("?limit=9&before_id=hidden", NAMES[:2], False),
        ("?after_id=other", [], False),
        ("?after_id=gone", NAMES[2:], False),
    ],
)
def test_pages(pair: Pair, query: str, ids: list[str], *, has_more: bool) -> None:
    """Forward and backward, also from a model that is gone."""
    with pair[0].client() as client:
        page = client.request(f"/v1/models{query}", key=pair[0].key, headers={"anthropic-version": "2023-06-01"}).json()
    assert [model["id"] for model in page["data"]] == ids
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


def test_the_form_is_that_of_the_caller(pair: Pair) -> None:
    """Without the header everything is as OpenAI's clients know it; with it, errors are Anthropic's too."""
    gateway = pair[0]
    version = {"anthropic-version": "2023-06-01"}
    with gateway.client() as client:
        assert client.request("/v1/models", key=gateway.key).json()["object"] == "list"
        assert client.request("/v1/models/none", key=gateway.key).json()["error"]["code"] == "model_not_found"
        answers = [
            client.request(path, key=key, headers=version)
            for path, key in (
                ("/v1/models/none", gateway.key),
                ("/v1/models?limit=0", gateway.key),
                ("/v1/models", "wrong-key-of-nobody"),
            )
        ]
    assert [(answer.status, answer.json()["error"]["type"]) for answer in answers] == [
        (404, "not_found_error"),
        (400, "invalid_request_error"),
        (401, "authentication_error"),
    ]
    for answer in answers:
        assert answer.header("request-id") == answer.json()["request_id"] == answer.header("x-request-id")
