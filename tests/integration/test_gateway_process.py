"""The gateway as a process under test: the fixtures that other tests rest on."""

from __future__ import annotations

import pytest

from tests.conftest import StartGateway
from tests.support.documents import backend, echo_registry, new_key, openai_registry
from tests.support.gateway import DidNotStart, GatewayProcess
from tests.support.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
ASK = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


def test_a_request_is_seen_from_every_side(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """A request reaches the upstream, is answered, logged and counted, and leaves nothing in flight."""
    with gateway.client() as client:
        answer = client.request(PATH, ASK, key=gateway.key)
        assert answer.status == 200
        assert answer.json()["choices"][0]["message"]["content"] == "Hello from upstream"
        assert gateway.client_connections() == 1
    assert upstream.wait_for_requests(1)[0].model() == "upstream-model"
    line = gateway.wait_for_log(lambda each: each.get("request_id") == answer.header("x-request-id"))
    assert line["status"] == 200
    gateway.wait_for_metric("llm_gateway_requests_total", 1, tenant="acme", scenario="chat", code="200")
    gateway.assert_nothing_in_flight()
    assert gateway.connections_to(upstream.port) == 1
    assert gateway.stray_output() == []


def test_stops_with_status_0(start_gateway: StartGateway) -> None:
    """SIGTERM ends the whole tree with status 0."""
    key = new_key()
    process = start_gateway(echo_registry(key), key=key)
    assert len(process.pids()) >= 2
    process.stop()
    assert process.pids() == []


def test_a_gateway_that_cannot_start_says_why(start_gateway: StartGateway) -> None:
    """A registry with a bad object stops the start, and the test sees the output."""
    with pytest.raises(DidNotStart, match="main"):
        start_gateway([backend("main", "ftp://nowhere")])


def test_the_registry_can_be_changed(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    """A rewritten registry goes live."""
    key, second = new_key(), new_key()
    process = start_gateway(openai_registry(upstream.url, key), key=key)
    before = process.metrics().value("llm_gateway_registry_generation")
    process.write_registry(openai_registry(upstream.url, second))
    process.wait_for_metric("llm_gateway_registry_generation", before + 1)
    with process.client() as client:
        assert client.request(PATH, ASK, key=second).status == 200
        assert client.request(PATH, ASK, key=key).status == 401


def test_the_shared_pair_is_as_new(shared_pair: tuple[GatewayProcess, ScriptedUpstream]) -> None:
    """The shared upstream starts each test with nothing recorded."""
    process, server = shared_pair
    assert server.requests == []
    with process.client() as client:
        assert client.request(PATH, ASK, key=process.key).status == 200
    assert len(server.requests) == 1


def test_the_echo_gateway_needs_no_upstream(echo_gateway: GatewayProcess) -> None:
    """The echo backend answers in process."""
    with echo_gateway.client() as client:
        assert "hi" in client.request(PATH, ASK, key=echo_gateway.key).body.decode()
