"""Targets under conditions, asked through real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.rollout import ask, backends_asked
from tests.support.upstream import ScriptedUpstream

OTHER_KEY = new_key()
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/y.png"}}]}]
RULES: list[Document] = [
    {"backend": "rest"},
    {"backend": "large", "when": {"requestBytes": {"min": 5000}}},
    {"backend": "tools", "when": {"tools": True}},
    {"backend": "images", "when": {"images": True, "tools": False}},
    {"backend": "eu", "when": {"headers": {"x-region": ["eu", "eu-west"]}}},
    {"backend": "other", "when": {"tenants": ["other"]}},
    {"backend": "batch", "when": {"keys": ["acme-batch"]}},
]
BATCH_KEY = new_key()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[GatewayProcess, ScriptedUpstream]]:
    """A gateway with one scenario for all rules, and one whose targets all have a condition."""
    key = new_key()
    with ScriptedUpstream() as upstream:
        held = [backend(rule["backend"], f"{upstream.url}/v1", model=rule["backend"]) for rule in RULES]
        held += [
            scenario("chat", "rest", targets=RULES),
            scenario("only", "rest", targets=[{"backend": "tools", "when": {"tools": True}}], unmatched="refuse"),
            tenant("acme"),
            tenant("other"),
            api_key("acme-key", key),
            api_key("acme-batch", BATCH_KEY),
            api_key("other-key", OTHER_KEY, "other"),
        ]
        env = {"LLM_GATEWAY_ROUTING_HEADERS": "x-region, x-tier"}
        with GatewayProcess(held, key=key, env=env) as gateway:
            yield gateway, upstream


@pytest.mark.parametrize(
    ("expected", "headers", "fields", "key"),
    [
        ("rest", {}, {}, None),
        ("large", {}, {"messages": [{"role": "user", "content": "x" * 5000}]}, None),
        ("tools", {}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, None),
        ("images", {}, {"messages": IMAGE}, None),
        ("tools", {}, {"messages": IMAGE, "tools": [{"type": "function", "function": {"name": "f"}}]}, None),
        ("eu", {"X-Region": "eu"}, {}, None),
        ("eu", {"x-region": "eu-west"}, {}, None),
        ("rest", {"x-region": "EU"}, {}, None),
        ("rest", {"x-tier": "eu"}, {}, None),
        pytest.param("other", {}, {}, OTHER_KEY, id="another tenant"),
        pytest.param("batch", {}, {}, BATCH_KEY, id="another key"),
    ],
)
def test_a_request_goes_where_its_rule_says(
    pair: tuple[GatewayProcess, ScriptedUpstream],
    expected: str,
    headers: dict[str, str],
    fields: dict[str, Any],
    key: str | None,
) -> None:
    """By size, tools, images, header, tenant and key; the header itself does not go upstream."""
    gateway, upstream = pair
    upstream.forget()
    asked = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]} | fields
    with gateway.client() as client:
        answer = client.request("/v1/chat/completions", asked, key=key or gateway.key, headers=headers)
    assert answer.status == 200, answer
    assert backends_asked(upstream) == [expected]
    assert not {name.lower() for name, _ in upstream.requests[0].headers} & {"x-region", "x-tier"}


def test_a_request_that_no_rule_takes_is_refused_before_anything(
    pair: tuple[GatewayProcess, ScriptedUpstream],
) -> None:
    """With a code of its own; the simple endpoints go by the same rules."""
    gateway, upstream = pair
    upstream.forget()
    answer = ask(gateway, model="only")
    assert (answer.status, answer.json()["error"]["code"]) == (400, "unmatched_request")
    with gateway.client() as client:
        asked = {"prompt": "hi", "model": "chat"}
        simple = client.request("/generate", asked, key=gateway.key, headers={"x-region": "eu"})
    assert simple.status == 200
    assert backends_asked(upstream) == ["eu"]
