"""From a call to the ledger and out of it again: a whole gateway, a scripted upstream, a real Valkey."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import redis as redis_py

from gateway.clock import wall
from gateway.redis import names
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.ledger_format import EVENT_FIELDS
from tests.conftest import StartGateway
from tests.support.client import Response, request_bytes
from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.scripts import Chat, Hang, Script, Tokens, error_reply
from tests.support.upstream import ScriptedUpstream
from tests.support.usage import write_events
from tests.support.waiting import eventually

PRICE = {"inputPerMillion": "2", "cachedInputPerMillion": "0.5", "outputPerMillion": "10"}
USAGE = Tokens(prompt=1000, completion=100, cached=400)
COST_USD = "0.0024"  # of one call: 600 x 2 + 400 x 0.5 + 100 x 10 per million
CALLS = {"acme": new_key(), "beta": new_key()}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """One server for this module."""
    valkey = EmbeddedValkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def valkey(server: EmbeddedValkey) -> Iterator[redis_py.Redis]:
    """An empty database."""
    with redis_py.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def ledgered(
    valkey: redis_py.Redis, server: EmbeddedValkey, upstream: ScriptedUpstream, start_gateway: StartGateway
) -> GatewayProcess:
    """A gateway with two tenants, one of them with limits, and an upstream that reports usage."""
    upstream.behaviour = Chat(usage=USAGE)
    env = {"LLM_GATEWAY_REDIS_URL": server.url, "LLM_GATEWAY_USAGE_WATCH_S": "100ms"}
    return start_gateway(registry(upstream), env=env)


@pytest.fixture(scope="module")
def unused() -> Iterator[GatewayProcess]:
    """A gateway whose ledger is empty, for questions that never reach it."""
    documents = [tenant("acme"), api_key("acme-key", CALLS["acme"])]
    with GatewayProcess(documents, env={"LLM_GATEWAY_REDIS_URL": "embedded"}) as process:
        yield process


def registry(upstream: ScriptedUpstream) -> list[Document]:
    """Acme is limited, beta is not."""
    limits = [{"unit": "tokens", "per": "day", "amount": 1_000_000}]
    return [
        backend("main", f"{upstream.url}/v1", price=PRICE),
        scenario("chat", "main"),
        tenant("acme", limits=limits),
        tenant("beta"),
        *(api_key(f"{name}-key", key, name) for name, key in CALLS.items()),
    ]


def chat(gateway: GatewayProcess, name: str, **fields: Any) -> Response:
    """One call of a tenant."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]} | fields
    with gateway.client() as client:
        return client.request("/v1/chat/completions", body, key=CALLS[name])


def usage(gateway: GatewayProcess, name: str, query: str = "") -> Response:
    """What a tenant is told of its usage."""
    with gateway.client() as client:
        return client.request(f"/v1/usage{query}", key=CALLS[name])


def today() -> datetime.date:
    """The UTC day."""
    return datetime.datetime.fromtimestamp(wall(), datetime.UTC).date()


def test_each_tenant_reads_its_own_usage(ledgered: GatewayProcess) -> None:
    """Limited or not, in tokens and money, failed calls as requests; nothing of the other one's."""
    for _ in range(3):
        assert chat(ledgered, "acme").status == 200
    assert chat(ledgered, "beta").status == 200
    eventually(lambda: requests_of(ledgered, "acme") == 3)
    eventually(lambda: requests_of(ledgered, "beta") == 1)
    row = {
        "date": today().isoformat(),
        "key": "acme-key",
        "scenario": "chat",
        "requests": 3,
        "input_tokens": 3000,
        "cached_input_tokens": 1200,
        "output_tokens": 300,
        "cost_usd": "0.0072",
        "estimated_requests": 0,
        "cached_requests": 0,
    }
    assert usage(ledgered, "acme").json() == {
        "object": "usage",
        "from": today().replace(day=1).isoformat(),
        "to": today().isoformat(),
        "total": {name: row[name] for name in list(row)[3:]},
        "data": [row],
    }
    (beta,) = usage(ledgered, "beta").json()["data"]
    assert (beta["key"], beta["requests"], beta["cost_usd"]) == ("beta-key", 1, COST_USD)


def requests_of(gateway: GatewayProcess, name: str) -> int:
    """How many requests of a tenant are in the ledger."""
    answer = usage(gateway, name)
    assert answer.status == 200, answer
    return int(answer.json()["total"]["requests"])


def test_failed_call_is_a_request_without_tokens(ledgered: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """As the charging rules have it; a call without reported usage is marked as estimated."""
    upstream.behaviour = error_reply(500)
    assert chat(ledgered, "acme").status == 502
    upstream.behaviour = Chat(usage=None)
    assert chat(ledgered, "acme").status == 200
    eventually(lambda: requests_of(ledgered, "acme") == 2)
    total = usage(ledgered, "acme").json()["total"]
    assert total["estimated_requests"] == 1
    assert total["output_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_left_before_an_answer_is_told_as_such(
    ledgered: GatewayProcess, upstream: ScriptedUpstream, valkey: redis_py.Redis, stream: bool
) -> None:
    """Without limits nothing was reserved, so it is a request without tokens; its event has the log's status."""
    upstream.behaviour = Script((Hang(),))
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with ledgered.client() as client:
        client.send(request_bytes("/v1/chat/completions", body, key=CALLS["beta"]))
        upstream.wait_for_requests()
    eventually(lambda: requests_of(ledgered, "beta") == 1)
    written: Any = valkey.xrange(names.events("beta"))
    ((_, event),) = written
    assert (event[b"backend"], event[b"status"], event[b"output"]) == (b"main", b"499", b"0")


def test_days_bound_what_is_read(ledgered: GatewayProcess) -> None:
    """A day without usage is an empty list, not an error."""
    chat(ledgered, "acme")
    eventually(lambda: requests_of(ledgered, "acme") == 1)
    empty = usage(ledgered, "acme", "?from=2020-01-01&to=2020-12-31").json()
    assert (empty["data"], empty["total"]["requests"], empty["total"]["cost_usd"]) == ([], 0, "0")
    day = today().isoformat()
    assert len(usage(ledgered, "acme", f"?from={day}&to={day}").json()["data"]) == 1
    assert usage(ledgered, "acme", "?to=2020-02-10").json()["from"] == "2020-02-01"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?from=yesterday", "from"),
        ("?to=2026-02-30", "to"),
        ("?from=1763800000", "from"),
        ("?from=2020-02-01&to=2020-01-01", "from"),
        ("?from=2020-01-01&to=2021-01-01", "from"),
        ("?from=0001-01-01", "from"),
        ("?from=9999-12-31", "from"),
    ],
)
def test_wrong_days_are_refused(unused: GatewayProcess, query: str, param: str) -> None:
    """With the parameter named."""
    answer = usage(unused, "acme", query)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_usage_needs_a_key(unused: GatewayProcess) -> None:
    """As everything does, whatever is asked for."""
    with unused.client() as client:
        assert client.request("/v1/usage").status == 401
        assert client.request("/v1/usage?tenant=acme", key=new_key()).status == 401


def test_usage_without_its_redis_is_said_to_be_unavailable(
    valkey: redis_py.Redis, upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """Not an empty list: nobody may take that for nothing used. Calls go on."""
    own = EmbeddedValkey.start()
    gateway = start_gateway(registry(upstream), env={"LLM_GATEWAY_REDIS_URL": own.url})
    own.stop()
    answer = usage(gateway, "beta")
    assert (answer.status, answer.json()["error"]["code"]) == (503, "usage_unavailable")
    assert answer.header("retry-after") == "1"
    assert chat(gateway, "beta").status == 200


def test_gateway_without_a_redis_keeps_no_usage(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """And says so, without telling the tenant why."""
    gateway = start_gateway([*registry(upstream)])
    answer = usage(gateway, "beta")
    assert (answer.status, answer.json()["error"]["message"]) == (503, "Usage is not available.")


def test_usage_is_documented(unused: GatewayProcess) -> None:
    """With its bounds."""
    with unused.client() as client:
        path = client.request("/openapi.json").json()["paths"]["/v1/usage"]["get"]
    assert {each["name"]: each["schema"]["format"] for each in path["parameters"]} == {
        "from": "date",
        "to": "date",
    }
    assert {"200", "400", "401", "503"} <= path["responses"].keys()


def test_calls_are_exported_and_the_lag_is_shown(
    ledgered: GatewayProcess, valkey: redis_py.Redis, server: EmbeddedValkey
) -> None:
    """Each call once, by its lease; the lag falls to nothing again."""
    chat(ledgered, "beta")
    eventually(lambda: requests_of(ledgered, "beta") == 1)
    eventually(lambda: len(export(server)) == 1)
    for _ in range(4):
        chat(ledgered, "acme")
    chat(ledgered, "beta")
    ledgered.wait_for_metric("llm_gateway_usage_export_lag_events", 1)  # nobody has exported acme's yet
    events = export(server)
    written: Any = valkey.xrange(names.events("acme"))
    assert all(tuple(fields) == EVENT_FIELDS for _, fields in written)
    assert sorted(event["tenant"] for event in events) == ["acme"] * 4 + ["beta"]
    assert len({event["id"] for event in events}) == 5
    (beta,) = (event for event in events if event["tenant"] == "beta")
    assert {name: value for name, value in beta.items() if name not in {"id", "time"}} == {
        "tenant": "beta",
        "key": "beta-key",
        "scenario": "chat",
        "backend": "main",
        "status": 200,
        "input_tokens": 1000,
        "cached_input_tokens": 400,
        "output_tokens": 100,
        "cost_usd": COST_USD,
        "estimated": False,
        "cached": False,
        "variant": "base",
    }
    ledgered.wait_for_metric("llm_gateway_usage_export_lag_events", 0)
    assert ledgered.metrics().value("llm_gateway_usage_lost_total") == 0


def test_ledger_events_and_upstream_agree(ledgered: GatewayProcess, server: EmbeddedValkey) -> None:
    """Calls at once, streamed and not, with and without limits: all three have the same sums."""

    def call(number: int) -> int:
        return chat(ledgered, ("acme", "beta")[number % 2], stream=number % 3 == 0).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(call, range(48))) == {200}
    eventually(lambda: (requests_of(ledgered, "acme"), requests_of(ledgered, "beta")) == (24, 24))
    events = export(server)
    assert len({event["id"] for event in events}) == len(events) == 48
    for name in CALLS:
        total = usage(ledgered, name).json()["total"]
        assert (total["input_tokens"], total["output_tokens"]) == (24 * USAGE.prompt, 24 * USAGE.completion)
        for column in ("input_tokens", "cached_input_tokens", "output_tokens"):
            assert total[column] == sum(event[column] for event in events if event["tenant"] == name)
        costs = [Decimal(event["cost_usd"]) for event in events if event["tenant"] == name]
        assert Decimal(total["cost_usd"]) == sum(costs) == 24 * Decimal(COST_USD)


def test_lost_events_are_counted(ledgered: GatewayProcess, valkey: redis_py.Redis, server: EmbeddedValkey) -> None:
    """What is trimmed before it is exported shows in the metrics."""
    chat(ledgered, "beta")
    eventually(lambda: len(export(server)) == 1)
    for _ in range(3):
        chat(ledgered, "beta")
    eventually(lambda: requests_of(ledgered, "beta") == 4)
    valkey.xtrim(names.events("beta"), maxlen=1, approximate=False)
    ledgered.wait_for_metric("llm_gateway_usage_lost_total", 2)
    ledgered.wait_for_metric("llm_gateway_usage_export_lag_events", 1)


def test_lag_is_right_with_several_workers(
    valkey: redis_py.Redis, server: EmbeddedValkey, upstream: ScriptedUpstream, start_gateway: StartGateway
) -> None:
    """One of all processes tells it, so that the sum is not a multiple; losses count once."""
    settings = {"REDIS_URL": server.url, "USAGE_WATCH_S": "100ms", "WORKERS": "2"}
    gateway = start_gateway(registry(upstream), env={f"LLM_GATEWAY_{name}": value for name, value in settings.items()})
    write_events(valkey, "beta", 1, 1)
    eventually(lambda: len(export(server)) == 1)
    write_events(valkey, "beta", 2, 9, maxlen=3)
    gateway.wait_for_metric("llm_gateway_usage_export_lag_events", 3)
    gateway.wait_for_metric("llm_gateway_usage_lost_total", 5)


def export(server: EmbeddedValkey) -> list[dict[str, Any]]:
    """What a run of the exporter writes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLM_GATEWAY_")}
    result = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "usage", "export"],
        env=kept | {"LLM_GATEWAY_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]
