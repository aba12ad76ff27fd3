"""Levels and usage over the admin API: what a replica spent is what an operator sees, and may forget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.meter.ledger import today
from gateway.redis.embedded import EmbeddedValkey
from tests.support.admin import ADMIN_ENV, call, error, get, post
from tests.support.documents import api_key, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

KEY = new_key()
LIMITS: list[dict[str, Any]] = [
    {"unit": "requests", "per": "hour", "amount": 100},
    {"unit": "tokens", "per": "day", "amount": 5000, "mode": "shadow"},
    {"unit": "cost", "per": "month", "amount": "400"},
    {"unit": "concurrency", "amount": 5},
]
KEY_LIMIT: dict[str, Any] = {"unit": "requests", "per": "day", "amount": 7, "name": "few"}


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    """The Valkey of ``gateway``."""
    server = EmbeddedValkey.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateway(valkey: EmbeddedValkey) -> Iterator[GatewayProcess]:
    """A gateway with limits on tenant and key."""
    documents = [
        echo_backend("main", price={"inputPerMillion": "100", "outputPerMillion": "1000"}),
        scenario("chat", "main"),
        tenant(limits=LIMITS),
        tenant("free"),
        api_key("acme-key", KEY, limits=[KEY_LIMIT]),
    ]
    with GatewayProcess(documents, key=KEY, env=ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url}) as process:
        yield process


def spend(gateway: GatewayProcess) -> None:
    """One call that is answered with three tokens."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 20}
    with gateway.client() as client:
        assert client.request("/v1/chat/completions", body, key=gateway.key).status == 200


def levels(gateway: GatewayProcess) -> dict[str, Any]:
    """The levels of acme by id."""
    return {level["id"]: level for level in get(gateway, "/tenants/acme/levels")["levels"]}


def settled(gateway: GatewayProcess) -> dict[str, Any]:
    """The levels once no call runs."""
    found = levels(gateway)
    assert found["t:concurrency"]["used"] == 0
    return found


def test_levels_are_shown_and_one_is_reset(gateway: GatewayProcess) -> None:
    """What calls have taken; a reset touches the one limit, and says so in the audit."""
    fresh = levels(gateway)
    assert list(fresh) == [
        "t:requests-per-hour",
        "t:tokens-per-day",
        "t:cost-per-month",
        "t:concurrency",
        "k:acme-key:few",
    ]
    assert all(level["remaining"] == level["limit"] for level in fresh.values())
    spend(gateway)
    spend(gateway)
    spent = eventually(lambda: settled(gateway))
    assert (spent["t:requests-per-hour"]["used"], spent["k:acme-key:few"]["used"]) == (2, 2)
    assert spent["t:tokens-per-day"]["used"] > 0
    cost = spent["t:cost-per-month"]
    assert (cost["limit"], float(cost["used"]) + float(cost["remaining"])) == ("400", 400)
    assert float(cost["used"]) > 0
    assert (spent["t:tokens-per-day"]["mode"], spent["k:acme-key:few"]["key"]) == ("shadow", "acme-key")
    assert 0 < spent["k:acme-key:few"]["resetS"] <= 86400
    after = post(gateway, "/tenants/acme/levels/k:acme-key:few/reset")
    assert (after["used"], after["remaining"]) == (0, 7)
    others = {name: level["used"] for name, level in levels(gateway).items() if name != "k:acme-key:few"}
    assert others == {name: level["used"] for name, level in spent.items() if name in others}
    gateway.wait_for_log(lambda line: line.get("message") == "admin limit.reset tenant=acme limit=k:acme-key:few")


def test_a_reset_opens_what_was_used_up(gateway: GatewayProcess) -> None:
    """A key that had none left is admitted again, once its last refusal stands no more."""
    post(gateway, "/tenants/acme/levels/k:acme-key:few/reset")
    for _ in range(KEY_LIMIT["amount"]):
        spend(gateway)
    body = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
    with gateway.client() as client:
        assert client.request("/v1/chat/completions", body, key=KEY).status == 429
        post(gateway, "/tenants/acme/levels/k:acme-key:few/reset")
        eventually(lambda: client.request("/v1/chat/completions", body, key=KEY).status == 200)


def test_what_has_no_level_is_not_found(gateway: GatewayProcess) -> None:
    """A tenant that is not there, a limit that is not there; a tenant without limits has an empty list."""
    assert error(call(gateway, "GET", "/tenants/nobody/levels")) == (404, "tenant_not_found")
    assert error(call(gateway, "POST", "/tenants/acme/levels/t:none/reset")) == (404, "limit_not_found")
    assert get(gateway, "/tenants/free/levels") == {"levels": []}


def test_usage_is_shown_by_day(gateway: GatewayProcess) -> None:
    """Of settled calls, with exact money; wrong days are named."""
    post(gateway, "/tenants/acme/levels/k:acme-key:few/reset")
    spend(gateway)
    (row,) = eventually(lambda: get(gateway, "/tenants/acme/usage")["usage"])
    assert (row["day"], row["key"], row["scenario"], row["backend"]) == (
        today().isoformat(),
        "acme-key",
        "chat",
        "main",
    )
    assert row["outputTokens"] >= 3
    assert float(row["costUsd"]) == pytest.approx(row["inputTokens"] / 10**4 + row["outputTokens"] / 10**3)
    assert get(gateway, "/tenants/acme/usage?from=2020-01-01&to=2020-01-31") == {"usage": []}
    assert get(gateway, "/tenants/free/usage") == {"usage": []}
    for query in ("from=soon", "from=2020-02-01&to=2020-01-01", "from=2000-01-01"):
        answer = call(gateway, "GET", f"/tenants/acme/usage?{query}")
        assert (answer.status, answer.json()["error"]["param"]) == (400, "from")
