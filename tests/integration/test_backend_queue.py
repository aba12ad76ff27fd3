"""A backend that is full or not there yet: requests wait for it, in fair turns, within their bounds."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.admin import ADMIN_ENV, get
from tests.support.client import RawClient, Response, request_bytes
from tests.support.documents import Document, api_key, backend, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.scripts import Gate, Script, error_reply, reply
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

KEYS = {name: new_key() for name in ("acme", "bolt", "corp")}
PATH = "/v1/chat/completions"
QUEUED, WAITS = "llm_gateway_backend_queued_requests", "llm_gateway_backend_queue_wait_seconds"
BUDGET: dict[str, Any] = {"unit": "tokens", "per": "day", "amount": 1_000_000}


def documents(url: str) -> list[Document]:
    """Backends that differ in how they let wait; each scenario is named like its only backend, but for ``safe``."""

    def waiting(name: str, **spec: Any) -> Document:
        return backend(name, f"{url}/v1", timeouts={"connect": "1s"}, **spec)

    names = ("slow", "short", "small", "full")
    return [
        waiting("slow", queue={"max": 50, "wait": "60s"}, maxConcurrentRequests=1),
        waiting("short", queue={"max": 5, "wait": "400ms"}),
        waiting("small", queue={"max": 2, "wait": "60s"}),
        waiting("full", queue={}, maxConcurrentRequests=1),
        echo_backend("echo"),
        *(scenario(name, name) for name in names),
        scenario("safe", "slow", "echo"),
        *(tenant(name, limits=[BUDGET]) for name in KEYS),
        *(api_key(f"{name}-key", key, name) for name, key in KEYS.items()),
    ]


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[GatewayProcess]:
    """A gateway that looks often whether a backend is ready; one per test, as each leaves other numbers behind."""
    env = {"LLM_GATEWAY_BACKEND_QUEUE_PROBE_S": "100ms", "LLM_GATEWAY_REDIS_URL": "embedded"} | ADMIN_ENV
    with GatewayProcess(documents(upstream.url), env=env) as process:
        yield process


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test opens is closed with it."""
    with ExitStack() as opened:
        yield opened


def ask(stack: ExitStack, gateway: GatewayProcess, model: str, text: str = "acme-0", **fields: Any) -> RawClient:
    """Send a request of the tenant that ``text`` begins with; its answer is yet to be read."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 10} | fields
    client = stack.enter_context(gateway.client(timeout_s=30))
    client.send(request_bytes(PATH, body, key=KEYS[text.partition("-")[0]]))
    return client


def text_of(body: Any) -> str:
    """What a request said."""
    return str(body["messages"][0]["content"])


def refusal(answer: Response) -> tuple[int, str]:
    """Status and code; it must say when to come back."""
    assert int(answer.header("retry-after") or 0) > 0
    return answer.status, str(answer.json()["error"]["code"])


def wait_queued(gateway: GatewayProcess, backend_name: str, count: int) -> None:
    """Wait until so many wait."""
    gateway.wait_for_metric(QUEUED, count, backend=backend_name)


def test_requests_wait_for_a_backend_that_starts(
    gateway: GatewayProcess, upstream: ScriptedUpstream, stack: ExitStack
) -> None:
    """Twenty of three tenants: all are answered, in turns, although one tenant sent half of them first."""
    upstream.refuse()
    arrivals = [f"acme-{n}" for n in range(10)] + [f"bolt-{n}" for n in range(6)] + [f"corp-{n}" for n in range(4)]
    clients = []
    for count, text in enumerate(arrivals, 1):
        clients.append(ask(stack, gateway, "slow", text))
        wait_in_line(gateway, count)
    load = get(gateway, "/autoscaling")
    assert load["queued_requests"] == load["backends"]["slow"]["queued_requests"]
    assert (load["queued_requests"] >= 19, load["inflight_requests"]) == (True, 20)  # one may be trying
    upstream.accept()
    assert [client.read_response().status for client in clients] == [200] * 20
    lines = [[each for each in arrivals if each.startswith(name)] for name in KEYS]
    turns = [line[n] for n in range(10) for line in lines if n < len(line)]
    assert [text_of(each.json()) for each in upstream.requests] == turns
    gateway.assert_nothing_in_flight()
    wait_queued(gateway, "slow", 0)
    line = gateway.wait_for_log(lambda line: line.get("event") == "request")
    assert [(each["backend"], each["outcome"]) for each in line["attempts"]] == [("slow", "ok")]
    assert line["queue_ms"] > 0
    assert line["overhead_ms"] < line["duration_ms"] - line["queue_ms"] + 1
    assert gateway.metrics().value(f"{WAITS}_count", backend="slow") == 20


def wait_in_line(gateway: GatewayProcess, count: int) -> None:
    """Wait until so many wait, one of which may be trying just now."""

    def in_line() -> bool:
        scrape = gateway.metrics()
        trying = scrape.value("llm_gateway_backend_inflight_requests", backend="slow")
        assert scrape.value(QUEUED, backend="slow") + trying == count
        return True

    eventually(in_line, 10.0)


def test_a_full_backend_is_waited_for(gateway: GatewayProcess, upstream: ScriptedUpstream, stack: ExitStack) -> None:
    """Streams too; a place is free when the last byte of the one before has gone out."""
    gate = Gate()
    whole = upstream.behaviour
    assert callable(whole)
    upstream.enqueue(lambda request: Script((gate, *whole(request).steps)))
    first = ask(stack, gateway, "full", "acme-1")
    gate.wait_reached()
    second = ask(stack, gateway, "full", "bolt-1", stream=True)
    wait_queued(gateway, "full", 1)
    assert len(upstream.requests) == 1
    gate.open()
    assert first.read_response().status == 200
    assert second.read_response().body.endswith(b"data: [DONE]\n\n")


def test_the_wait_and_the_queue_have_an_end(
    gateway: GatewayProcess, upstream: ScriptedUpstream, stack: ExitStack
) -> None:
    """503 with the time to come back, at once where the queue is full; where there is a fallback nobody waits."""
    upstream.refuse()
    assert refusal(ask(stack, gateway, "short").read_response()) == (503, "overloaded")
    line = gateway.wait_for_log(lambda line: line.get("event") == "request")
    assert line["attempts"][0]["outcome"] == "busy"
    assert "waited 0.4 s in vain: cannot connect" in line["attempts"][0]["detail"]
    assert line["queue_ms"] >= 300
    ask(stack, gateway, "small", "acme-1")
    ask(stack, gateway, "small", "bolt-1")
    wait_for_small(gateway)
    assert refusal(ask(stack, gateway, "small", "corp-1").read_response()) == (503, "overloaded")
    assert ask(stack, gateway, "safe").read_response().status == 200


def wait_for_small(gateway: GatewayProcess) -> None:
    """Wait until both wait or one of them tries, which leaves no room either."""
    name = "llm_gateway_backend_inflight_requests"
    eventually(lambda: (seen := gateway.metrics()).value(QUEUED, backend="small") + seen.value(name) == 2)


def test_a_client_that_leaves_while_it_waits_costs_nothing(
    gateway: GatewayProcess, upstream: ScriptedUpstream, stack: ExitStack
) -> None:
    """It is out of the queue at once, no backend ever sees it, and what was reserved for it is given back."""
    upstream.refuse()
    client = ask(stack, gateway, "slow", "acme-1")
    ask(stack, gateway, "slow", "bolt-1")
    wait_in_line(gateway, 2)

    def reserved() -> int:
        return int(get(gateway, "/tenants/acme/levels")["levels"][0]["used"])

    assert reserved() > 0
    client.close()
    wait_in_line(gateway, 1)
    eventually(lambda: reserved() == 0)
    upstream.accept()
    assert [text_of(each.json()) for each in upstream.wait_for_requests(1)] == ["bolt-1"]


def test_a_drain_lets_those_who_wait_be_answered(
    gateway: GatewayProcess, upstream: ScriptedUpstream, stack: ExitStack
) -> None:
    """They are open requests as any other."""
    upstream.refuse()
    client = ask(stack, gateway, "slow", "acme-1")
    wait_in_line(gateway, 1)
    gateway.signal(signal.SIGTERM)
    eventually(lambda: gateway.management("/readyz").status == 503)
    upstream.accept()
    assert client.read_response().status == 200
    assert gateway.wait_exit() == 0


def test_a_proxy_without_anybody_behind_it_is_waited_for(
    gateway: GatewayProcess, upstream: ScriptedUpstream, stack: ExitStack
) -> None:
    """A 503 that is not JSON comes from a service mesh or an ingress; one in JSON is the model server's own word."""
    nobody = reply(503, body=b"no healthy upstream", headers=[("content-type", "text/plain")])
    upstream.enqueue(nobody, reply(503, headers=[]), nobody)
    since = time.monotonic()
    assert ask(stack, gateway, "small").read_response().status == 200
    assert (len(upstream.requests), time.monotonic() - since > 0.25) == (4, True)
    upstream.enqueue(error_reply(503))
    assert refusal(ask(stack, gateway, "small").read_response()) == (503, "overloaded")
    assert len(upstream.requests) == 5
