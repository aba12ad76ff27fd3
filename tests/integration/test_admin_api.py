"""The admin API's door, its description, and its life without Redis."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.redis import names
from gateway.redis.embedded import EmbeddedValkey
from gateway.registry import key_digest
from tests.conftest import StartGateway
from tests.support.admin import ADMIN_ENV, READ_TOKEN, TOKEN, call, error, get, opens, post
from tests.support.client import RawClient, request_bytes
from tests.support.documents import echo_registry, new_key
from tests.support.gateway import GatewayProcess
from tests.support.valkey import Valkey
from tests.support.waiting import eventually, free_port

KEY = new_key()


@pytest.fixture(scope="module")
def lonely() -> Iterator[GatewayProcess]:
    """A gateway with tokens and without a Redis."""
    with GatewayProcess(echo_registry(KEY), key=KEY, env=ADMIN_ENV) as gateway:
        yield gateway


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that the test may end."""
    server = EmbeddedValkey.start()
    yield server
    server.stop()


def test_without_a_token_there_is_no_admin_api(echo_gateway: GatewayProcess) -> None:
    """404 as for any path that is not there, whatever is presented; the description does not name it."""
    for token in (None, TOKEN):
        assert error(call(echo_gateway, "GET", "/keys", token=token)) == (404, "unknown_url")
    assert not [path for path in echo_gateway.management("/openapi.json").json()["paths"] if "admin" in path]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_a_wrong_token_is_refused(lonely: GatewayProcess, token: str | None) -> None:
    """For every path alike, one that does not exist, too, and with the challenge of RFC 6750."""
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("GET", "/nothing")):
        answer = call(lonely, method, path, token=token)
        assert error(answer) == (401, "invalid_admin_token")
        assert answer.header("www-authenticate") == "Bearer"
    assert opens(lonely, KEY) == 200


def test_another_scheme_and_two_tokens_are_refused(lonely: GatewayProcess) -> None:
    """Only one bearer token counts."""
    with RawClient("127.0.0.1", lonely.management_port) as client:
        answer = client.request("/admin/v1/keys", headers={"authorization": f"Basic {TOKEN}"})
        assert answer.status == 401
        twice = request_bytes("/admin/v1/keys", key=TOKEN)
        client.send(twice.replace(b"\r\n\r\n", b"\r\nauthorization: Bearer x\r\n\r\n"))
        assert client.read_response().status == 401


def test_the_read_only_token_looks_and_changes_nothing(lonely: GatewayProcess) -> None:
    """Every GET is answered, every POST refused."""
    for path in ("/keys", "/keys/acme-key", "/keys.yaml", "/tenants", "/tenants/acme", "/revocations"):
        assert call(lonely, "GET", path, token=READ_TOKEN).status == 200
    for path in ("/keys", "/keys/acme-key/revoke", "/keys/acme-key/rotate", "/revocations"):
        assert error(call(lonely, "POST", path, {}, token=READ_TOKEN)) == (403, "read_only_token")


def test_what_the_files_hold_is_shown(lonely: GatewayProcess) -> None:
    """Tenants with their limits, keys with their digests; nothing may be stored on the way."""
    (tenant,) = get(lonely, "/tenants")["tenants"]
    assert (tenant["name"], tenant["models"], tenant["keys"]) == ("acme", ["chat"], ["acme-key"])
    assert get(lonely, "/tenants/acme") == tenant
    key = get(lonely, "/keys/acme-key")
    assert (key["source"], key["state"], key["digests"][0]["sha256"]) == ("files", "live", key_digest(KEY).hex())
    assert call(lonely, "GET", "/keys").header("cache-control") == "no-store"
    assert error(call(lonely, "GET", "/tenants/nobody")) == (404, "tenant_not_found")


def test_without_a_redis_a_change_is_unavailable(lonely: GatewayProcess) -> None:
    """It says which setting is missing."""
    for path, body in (("/keys", {"tenant": "acme"}), ("/revocations", {"sha256": "ab" * 32})):
        answer = call(lonely, "POST", path, body)
        assert error(answer) == (503, "store_unavailable")
        assert "LLM_GATEWAY_REDIS_URL" in answer.json()["error"]["message"]


def test_a_body_is_bounded_and_read_only_with_a_token(lonely: GatewayProcess) -> None:
    """A large body is refused by its length before it is sent; without a token it is not even looked at."""
    for token, status in ((None, 401), (TOKEN, 413)):
        with RawClient("127.0.0.1", lonely.management_port) as client:
            head = request_bytes("/admin/v1/keys", key=token, method="POST", headers={"content-length": "300000"})
            client.send(head)
            assert client.read_response().status == status
    assert error(call(lonely, "POST", "/keys", [1])) == (400, "invalid_value")


def test_the_management_port_describes_itself(lonely: GatewayProcess) -> None:
    """Health, metrics and every path of the admin API, with its token."""
    document = lonely.management("/openapi.json").json()
    assert {"/livez", "/readyz", "/metrics", "/admin/v1/keys", "/admin/v1/tenants/{tenant}/levels"} <= set(
        document["paths"]
    )
    create = document["paths"]["/admin/v1/keys"]["post"]
    assert create["security"] == [{"admin": []}]
    assert {"201", "400", "401", "403", "409", "503"} <= set(create["responses"])
    assert "422" not in create["responses"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert all(operation.get("summary") for path in document["paths"].values() for operation in path.values())


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b'"text"', b"{"])
def test_what_is_no_json_object_is_said_to_be_none(lonely: GatewayProcess, kind: str, body: bytes) -> None:
    """Instead of a position or a type in words of a library; also where only the content type is missing."""
    with RawClient("127.0.0.1", lonely.management_port) as client:
        head = {"authorization": f"Bearer {TOKEN}", "content-type": kind}
        answer = client.request("/admin/v1/keys", body, headers=head)
    assert error(answer) == (400, "invalid_value")
    assert "must be a JSON object, sent with `content-type: application/json`" in answer.body.decode()


def test_a_revocation_holds_while_redis_is_gone_and_over_a_restart(
    valkey: EmbeddedValkey, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """With a cache file a new process knows it without Redis; the files that list the digest change nothing."""
    cache = {"LLM_GATEWAY_KEYS_CACHE_FILE": str(tmp_path / "keys.json")}
    env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url} | cache
    running = start_gateway(echo_registry(KEY), env=env)
    good = post(running, "/keys", {"tenant": "acme", "name": "good"}, status=201)["key"]
    post(running, "/revocations", {"sha256": key_digest(KEY).hex()})
    valkey.stop()
    running.wait_for_log(lambda line: "cannot be read from Redis, those last known serve" in line.get("message", ""))
    assert (opens(running, KEY), opens(running, good)) == (401, 200)
    assert error(call(running, "POST", "/keys/good/revoke")) == (503, "store_unavailable")
    fresh = start_gateway(echo_registry(KEY), env=env)
    assert (opens(fresh, KEY), opens(fresh, good)) == (401, 200)


def test_an_embedded_redis_gets_back_what_the_cache_file_kept(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Its data end with the gateway; the next one begins with the file and puts them back."""
    env = ADMIN_ENV | {
        "LLM_GATEWAY_REDIS_URL": "embedded",
        "LLM_GATEWAY_KEYS_CACHE_FILE": str(tmp_path / "keys.json"),
    }
    first = start_gateway(echo_registry(KEY), env=env)
    key = post(first, "/keys", {"tenant": "acme", "name": "kept"}, status=201)["key"]
    first.stop()
    second = start_gateway(echo_registry(KEY), env=env)
    assert opens(second, key) == 200
    assert len(eventually(lambda: post(second, "/keys/kept/rotate", {"grace": "1h"})["details"]["digests"])) == 2


def test_a_redis_that_comes_back_empty_forgets_nothing(start_gateway: StartGateway) -> None:
    """The replicas give it back what it had: a gateway that starts afterwards knows keys and revocations."""
    with Valkey() as server:
        env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": server.url}
        one, other = start_gateway(echo_registry(KEY), env=env), start_gateway(echo_registry(KEY), env=env)
        good = post(one, "/keys", {"tenant": "acme", "name": "good"}, status=201)["key"]
        post(one, "/revocations", {"sha256": key_digest(KEY).hex()})
        eventually(lambda: (opens(other, good), opens(other, KEY)) == (200, 401), 2.0)
        one.kill()
        server.kill()
        server.start()
        other.wait_for_log(lambda line: "Redis has lost 2 records" in line.get("message", ""), 10)
        assert (opens(other, good), opens(other, KEY)) == (200, 401)
        eventually(lambda: server.command("HLEN", names.keys().decode()).strip() == ":3", 5)
        fresh = start_gateway(echo_registry(KEY), env=env)
        assert (opens(fresh, good), opens(fresh, KEY)) == (200, 401)


class Unready(GatewayProcess):
    """Counts as started when it answers at all."""

    def _is_up(self) -> bool:
        try:
            return self.management("/livez").status == 200 and opens(self, KEY) > 0
        except OSError:
            return False


def test_a_gateway_that_cannot_know_what_was_revoked_judges_no_key(valkey: EmbeddedValkey) -> None:
    """With a token, without Redis and cache: not ready, and 503 rather than a key that may have been revoked."""
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        with Unready(echo_registry(KEY), env=ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url}) as gateway:
            assert gateway.management("/readyz").json()["reasons"] == ["keys not known: Redis has not answered yet"]
            assert opens(gateway, KEY) == 503
            os.kill(valkey.pid, signal.SIGCONT)
            eventually(lambda: gateway.management("/readyz").status == 200, 10)
            assert opens(gateway, KEY) == 200
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


def test_a_gateway_that_nobody_can_revoke_at_waits_for_no_redis(start_gateway: StartGateway) -> None:
    """Without a token the files alone decide, and a start needs no Redis."""
    gateway = start_gateway(echo_registry(KEY), env={"LLM_GATEWAY_REDIS_URL": f"redis://127.0.0.1:{free_port()}"})
    assert opens(gateway, KEY) == 200


def test_a_paused_redis_delays_no_request(valkey: EmbeddedValkey, start_gateway: StartGateway) -> None:
    """While it does not answer, keys are judged by what is known; afterwards changes arrive again."""
    env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url}
    one, other = start_gateway(echo_registry(KEY), env=env), start_gateway(echo_registry(KEY), env=env)
    key = post(one, "/keys", {"tenant": "acme", "name": "made"}, status=201)["key"]
    eventually(lambda: opens(other, key) == 200, 2.0)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        other.wait_for_log(lambda line: "cannot be read from Redis" in line.get("message", ""), 10)
        assert opens(other, key) == 200
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    other.wait_for_log(lambda line: "are read from Redis again" in line.get("message", ""), 10)
    eventually(lambda: call(one, "POST", "/keys/made/revoke").status == 200, 10)
    eventually(lambda: opens(other, key) == 401, 2.0)
