"""What an autoscaler reads: the work of every replica that shares a Redis, or nothing that could mislead it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import build
from tests.support.admin import ADMIN_ENV, READ_TOKEN, call, error, get
from tests.support.client import RawClient, request_bytes
from tests.support.documents import Document, api_key, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

KEY = new_key()
NOTHING = {"inflight_requests": 0, "queued_requests": 0}


def documents() -> list[Document]:
    """A backend that answers to nobody for a minute, and one that nobody calls."""
    return [
        echo_backend("slow", echo={"firstTokenDelay": "60s"}),
        echo_backend("idle.v2"),
        scenario("chat", "slow"),
        tenant(),
        api_key("acme-key", KEY),
    ]


def replica(redis_url: str | None, workers: int = 1) -> GatewayProcess:
    """A gateway with tokens."""
    redis = {} if redis_url is None else {"LLM_GATEWAY_REDIS_URL": redis_url}
    env = ADMIN_ENV | redis | {"LLM_GATEWAY_WORKERS": str(workers), "LLM_GATEWAY_DRAIN_S": "1"}
    return GatewayProcess(documents(), key=KEY, env=env)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test opens is closed with it."""
    with ExitStack() as opened:
        yield opened


def hold(stack: ExitStack, gateway: GatewayProcess, calls: int) -> list[RawClient]:
    """Calls that are under way until their clients leave."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": True}
    clients = [stack.enter_context(gateway.client()) for _ in range(calls)]
    for client in clients:
        client.send(request_bytes("/v1/chat/completions", body, key=KEY))
    return clients


def autoscaling(gateway: GatewayProcess) -> Any:
    """The answer, to the token that may only look."""
    return get(gateway, "/autoscaling", token=READ_TOKEN)


def assert_shows(gateway: GatewayProcess, scope: str, replicas: int, calls: int) -> None:
    """Wait until the answer is that so many calls are under way at the slow backend."""
    expected = {
        "scope": scope,
        "replicas": replicas,
        "inflight_requests": calls,
        "queued_requests": 0,
        "backends": {"idle.v2": NOTHING, "slow": {"inflight_requests": calls, "queued_requests": 0}},
    }

    def shows() -> bool:
        seen = autoscaling(gateway)
        assert seen == expected
        return True

    eventually(shows, 10.0, every_s=0.05)


def test_every_replica_shows_the_work_of_the_fleet(stack: ExitStack) -> None:
    """Of all workers; a replica that leaves takes its part along; without Redis there is no answer at all."""
    valkey = stack.enter_context(Valkey())
    first = stack.enter_context(replica(valkey.url))
    second = stack.enter_context(replica(valkey.url, workers=2))
    for each in (first, second):
        assert_shows(each, "fleet", 2, 0)
    hold(stack, first, 2)
    clients = hold(stack, second, 3)
    for each in (first, second):
        assert_shows(each, "fleet", 2, 5)
    clients.pop().close()
    for each in (first, second):
        assert_shows(each, "fleet", 2, 4)
    second.stop()
    assert_shows(first, "fleet", 1, 2)
    valkey.kill()
    eventually(lambda: call(first, "GET", "/autoscaling").status != 200)
    assert error(call(first, "GET", "/autoscaling")) == (503, "store_unavailable")


def test_a_replica_without_redis_answers_for_itself(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all of its workers, and says so; the command shows the same."""
    gateway = stack.enter_context(replica(None, workers=2))
    hold(stack, gateway, 3)
    assert_shows(gateway, "replica", 1, 3)
    assert error(call(gateway, "GET", "/autoscaling", token="not-the-right-token")) == (401, "invalid_admin_token")
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_URL", gateway.management_url)
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_READ_TOKEN", READ_TOKEN)
    shown = CliRunner().invoke(build(), ["admin", "autoscaling"]).stdout.splitlines()
    assert [line.split() for line in shown] == [
        ["BACKEND", "IN", "FLIGHT", "QUEUED"],
        ["all", "(replica,", "1", "replicas)", "3", "0"],
        ["idle.v2", "0", "0"],
        ["slow", "3", "0"],
    ]
    raw = CliRunner().invoke(build(), ["admin", "--json", "autoscaling"]).stdout
    assert json.loads(raw) == autoscaling(gateway)
