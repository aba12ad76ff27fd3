"""Shadows of a real gateway: callers notice nothing, nobody pays, bounds hold, and a drain does not wait."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.support.documents import new_key
from tests.support.gateway import GatewayProcess
from tests.support.rollout import OVERRIDE, ByModel, ask, backends_asked, documents
from tests.support.scripts import Chat, Gate, Script, error_reply
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey

PRICE = {"inputPerMillion": "1000", "outputPerMillion": "2000"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def answers(upstream: ScriptedUpstream) -> ByModel:
    """What the upstream does, by backend."""
    found = ByModel()
    upstream.behaviour = found
    return found


def shadowed(start_gateway: StartGateway, upstream: ScriptedUpstream, **options: Any) -> GatewayProcess:
    """A gateway that copies every request to ``new``."""
    key = new_key()
    override = options.pop("override", OVERRIDE)
    held = documents(upstream.url, key, shadow={"percent": 100, "override": override})
    for each in held[:2]:
        each["spec"]["price"] = PRICE
    held[1]["spec"].update(options.pop("new", {}))
    held[3]["spec"]["limits"] = options.pop("limits", [])
    return start_gateway(held, key=key, **options)


def shadow_line(gateway: GatewayProcess, request_id: str) -> dict[str, Any]:
    """The line of a copy."""
    return gateway.wait_for_log(lambda line: line["event"] == "shadow" and line["request_id"] == request_id)


def test_a_copy_is_sent_apart_and_charged_to_nobody(
    start_gateway: StartGateway, upstream: ScriptedUpstream, answers: ByModel
) -> None:
    """Its own parameters, trace, line and metrics; the tenant's limits and ledger know one call only."""
    with Valkey() as valkey:
        gateway = shadowed(
            start_gateway,
            upstream,
            override=OVERRIDE | {"parameters": {"overrides": {"temperature": 0}}},
            env={"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_REDIS_DEADLINE_S": "1"},
            limits=[{"unit": "requests", "per": "day", "amount": 1000}],
        )
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "the-caller-s"}
        assert ask(gateway, headers, temperature=1).status == 200
        line = shadow_line(gateway, "the-caller-s")
        assert (line["variant"], line["backend"], line["status"], line["outcome"]) == ("shadow", "new", 200, "ok")
        by_model = {request.json()["model"]: request for request in upstream.wait_for_requests(2)}
        assert (by_model["main"].json()["temperature"], by_model["new"].json()["temperature"]) == (1, 0)
        traces = {name: dict(each.headers)["traceparent"].split("-")[1] for name, each in by_model.items()}
        assert traces["main"] == TRACE
        assert traces["new"] == line["trace_id"] != TRACE
        shown = gateway.metrics()
        assert shown.value("llm_gateway_requests_total") == 1
        assert shown.value("llm_gateway_shadow_calls_total", scenario="chat", backend="new", code="200") == 1
        assert shown.value("llm_gateway_shadow_cost_usd_total", scenario="chat") > 0
        usage = gateway.wait_for_log(lambda line: line["event"] == "request")["tokens"]
        assert shown.value("llm_gateway_tokens_total", type="output") == usage["output"]
        with gateway.client() as client:
            days = client.request("/v1/usage", key=gateway.key).json()
        assert "new" not in str(days)


@pytest.mark.parametrize("stream", [False, True])
def test_a_shadow_that_fails_or_hangs_is_nothing_to_the_caller(
    start_gateway: StartGateway, upstream: ScriptedUpstream, answers: ByModel, stream: bool
) -> None:
    """The caller is answered while the copy hangs; one that fails has a line that is no error of a request."""
    gateway = shadowed(start_gateway, upstream)
    gate = Gate()
    answers.behaviours["new"] = lambda request: Script((gate, *Chat()(request).steps))
    assert ask(gateway, stream=stream).status == 200
    assert gateway.metrics().value("llm_gateway_inflight_requests") == 0
    gate.open()
    first = gateway.wait_for_log(lambda line: line["event"] == "shadow")
    assert (first["status"], first["stream"]) == (200, stream)
    answers.behaviours["new"] = error_reply(500)
    assert ask(gateway, {"x-request-id": "second"}, stream=stream).status == 200
    failed = shadow_line(gateway, "second")
    assert (failed["status"], failed["level"]) == (502, "info")
    gateway.assert_nothing_in_flight()


def test_copies_have_bounds_and_a_drain_does_not_wait_for_them(
    start_gateway: StartGateway, upstream: ScriptedUpstream, answers: ByModel
) -> None:
    """Of five copies one hangs, two wait, two are dropped; SIGTERM ends the process at once."""
    env = {"LLM_GATEWAY_SHADOW_MAX_CONCURRENT": "1", "LLM_GATEWAY_SHADOW_QUEUE": "2"}
    gateway = shadowed(start_gateway, upstream, env=env)
    gate = Gate()
    answers.behaviours["new"] = lambda request: Script((gate, *Chat()(request).steps))
    assert [ask(gateway).status for _ in range(5)] == [200] * 5
    gateway.wait_for_metric("llm_gateway_shadow_dropped_total", 2, reason="queue_full")
    assert backends_asked(upstream).count("new") == 1
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert time.monotonic() - began < 8  # a drain may take 10 s
    cut = [line for line in gateway.logs() if line["event"] == "shadow"]
    assert [(line["status"], line["outcome"]) for line in cut] == [(499, "draining")]
    gate.open()


def test_a_copy_takes_no_place_that_callers_may_need(
    start_gateway: StartGateway, upstream: ScriptedUpstream, answers: ByModel
) -> None:
    """Of a backend with two places one copy at a time gets one."""
    gateway = shadowed(start_gateway, upstream, new={"maxConcurrentRequests": 2})
    gate = Gate()
    answers.behaviours["new"] = lambda request: Script((gate, *Chat()(request).steps))
    assert [ask(gateway).status for _ in range(3)] == [200] * 3
    gateway.wait_for_metric("llm_gateway_shadow_dropped_total", 2, reason="backend_busy")
    gate.open()
    gateway.wait_for_log(lambda line: line["event"] == "shadow")
