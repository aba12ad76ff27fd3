"""Keys over the admin API, on two gateways that share one Valkey: what one does holds on the other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from gateway.redis.embedded import EmbeddedValkey
from gateway.registry import checksum_ok, key_digest
from tests.conftest import StartGateway
from tests.support.admin import ADMIN_ENV, TOKEN, call, error, get, opens, post
from tests.support.documents import Document, echo_registry, new_key, tenant
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

HOLDS_WITHIN_S = 2.0
FILE_KEY = new_key()
Pair = tuple[GatewayProcess, GatewayProcess]


def registry() -> list[Document]:
    """Tenants acme and other, and a key of acme."""
    return [*echo_registry(FILE_KEY), tenant("other")]


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    """The Valkey of ``pair``."""
    server = EmbeddedValkey.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pair(valkey: EmbeddedValkey) -> Iterator[Pair]:
    """Two gateways, for tests that end neither; each test names its keys."""
    env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url}
    with GatewayProcess(registry(), key=FILE_KEY, env=env) as one, GatewayProcess(registry(), env=env) as other:
        yield one, other


@pytest.fixture(scope="module")
def alone() -> Iterator[GatewayProcess]:
    """A gateway whose keys nobody else changes."""
    with GatewayProcess(registry(), key=FILE_KEY, env=ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": "embedded"}) as gateway:
        yield gateway


def answers(gateway: GatewayProcess, key: str, status: int) -> None:
    """Wait until a key is answered like this, as long as a change may take."""
    eventually(lambda: opens(gateway, key) == status, HOLDS_WITHIN_S, what=f"{status} on port {gateway.port}")


def test_a_made_key_opens_every_replica_and_is_shown_once(pair: Pair) -> None:
    """Made on one, it works there at once and on the other in time; nothing that is kept or logged holds it."""
    one, other = pair
    made = post(one, "/keys", {"tenant": "acme", "name": "fresh", "expiresAt": "2199-01-01T00:00:00Z"}, status=201)
    key = made["key"]
    assert checksum_ok(key)
    assert made["sha256"] == key_digest(key).hex()
    assert made["details"]["state"] == "live"
    assert made["details"]["digests"] == [
        {"sha256": made["sha256"], "expiresAt": "2199-01-01T00:00:00Z", "revoked": False}
    ]
    assert opens(one, key) == 200
    answers(other, key, 200)
    assert get(other, "/keys/fresh") == made["details"]
    for gateway in pair:
        assert key not in json.dumps([get(gateway, "/keys"), get(gateway, "/tenants")])
        assert key not in json.dumps(gateway.logs())


def test_a_key_is_narrowed_and_named_by_the_log(pair: Pair) -> None:
    """Its scenarios hold, and the request's line says which key it was."""
    one, _ = pair
    made = post(one, "/keys", {"tenant": "acme", "name": "narrow", "scenarios": []}, status=201)
    with one.client() as client:
        assert client.request("/v1/models", key=made["key"]).json()["data"] == []
    line = one.wait_for_log(lambda line: line.get("key") == "narrow")
    assert line["tenant"] == "acme"


def test_a_name_is_made_up_where_none_is_given(pair: Pair) -> None:
    """Two keys of a tenant need no names."""
    one, _ = pair
    names = {post(one, "/keys", {"tenant": "other"}, status=201)["details"]["name"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("other-") for name in names)
    assert names <= {key["name"] for key in get(one, "/keys?tenant=other")["keys"]}
    assert names <= set(get(one, "/tenants/other")["keys"])


def test_a_rotated_key_works_for_its_grace(pair: Pair) -> None:
    """Both work on both replicas; when the grace is over the old one works no more, and the new one goes on."""
    one, other = pair
    old = post(one, "/keys", {"tenant": "acme", "name": "turning"}, status=201)["key"]
    answers(other, old, 200)
    new = post(other, "/keys/turning/rotate", {"grace": "3s"})["key"]
    assert new != old
    assert (opens(other, old), opens(other, new)) == (200, 200)
    answers(one, new, 200)
    assert opens(one, old) == 200
    for gateway in pair:
        eventually(lambda gateway=gateway: opens(gateway, old) == 401, 6.0)  # type: ignore[misc]
        assert opens(gateway, new) == 200
    assert len(get(one, "/keys/turning")["digests"]) == 2


def test_a_revoked_key_is_refused_everywhere_in_time(pair: Pair) -> None:
    """At once where it was revoked and within two seconds elsewhere; for good: it cannot be rotated or made again."""
    one, other = pair
    key = post(one, "/keys", {"tenant": "acme", "name": "leaked"}, status=201)["key"]
    answers(other, key, 200)
    assert post(one, "/keys/leaked/revoke")["state"] == "revoked"
    started = time.monotonic()
    assert opens(one, key) == 401
    answers(other, key, 401)
    assert time.monotonic() - started < HOLDS_WITHIN_S
    assert post(other, "/keys/leaked/revoke")["state"] == "revoked"
    assert error(call(other, "POST", "/keys/leaked/rotate", {})) == (409, "conflict")
    assert error(call(one, "POST", "/keys", {"tenant": "acme", "name": "leaked"})) == (409, "conflict")
    assert key_digest(key).hex() in {each["sha256"] for each in get(other, "/revocations")["revocations"]}


def test_a_revocation_overrules_files_that_list_the_key(pair: Pair) -> None:
    """A key that was exported into the files: revoked, it stays refused however often the files are written."""
    one, other = pair
    key = post(one, "/keys", {"tenant": "acme", "name": "exported"}, status=201)["key"]
    exported = call(one, "GET", "/keys.yaml")
    assert exported.header("content-type") == "application/yaml"
    documents = [each for each in yaml.safe_load_all(exported.body) if each["metadata"]["name"] == "exported"]
    for gateway in pair:
        gateway.write_registry(documents, "exported.yaml")
        eventually(lambda gateway=gateway: get(gateway, "/keys/exported")["source"] == "files")  # type: ignore[misc]
        assert opens(gateway, key) == 200
    assert error(call(one, "POST", "/keys/exported/rotate", {})) == (409, "conflict")
    assert post(other, "/keys/exported/revoke")["state"] == "revoked"
    for gateway in pair:
        answers(gateway, key, 401)
    for gateway in pair:
        generation = gateway.metrics().value("llm_gateway_registry_generation")
        gateway.write_registry([*documents, tenant("newcomer")], "exported.yaml")
        gateway.wait_for_metric("llm_gateway_registry_generation", generation + 1)
        assert opens(gateway, key) == 401


def test_a_revocation_holds_while_the_files_are_broken(pair: Pair) -> None:
    """A registry that cannot be loaded just now delays nothing."""
    one, other = pair
    key = post(one, "/keys", {"tenant": "acme", "name": "urgent"}, status=201)["key"]
    answers(other, key, 200)
    failures = other.metrics().value("llm_gateway_registry_reload_failures_total")
    other.write_registry("kind: [", "broken.yaml")
    other.wait_for_metric("llm_gateway_registry_reload_failures_total", failures + 1)
    assert opens(other, key) == 200
    post(one, "/keys/urgent/revoke")
    answers(other, key, 401)
    other.write_registry("", "broken.yaml")


def test_of_two_changes_at_once_one_is_made(pair: Pair) -> None:
    """On two replicas: one key of a name, one rotation of a state; the other is told."""

    def both(path: str, body: Document) -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            return sorted(pool.map(lambda gateway: call(gateway, "POST", path, body).status, pair))

    assert both("/keys", {"tenant": "acme", "name": "contested"}) == [201, 409]
    for _ in range(3):
        assert both("/keys/contested/rotate", {"grace": "0s"}) in ([200, 409], [200, 200])
    assert len(get(pair[0], "/keys/contested")["digests"]) == 1
    assert both("/keys/contested/revoke", {}) == [200, 200]


def test_a_key_of_the_files_is_not_changed_but_its_digest_can_be_revoked(start_gateway: StartGateway) -> None:
    """409 for the object, which stays as it is; in an emergency its digest is refused all the same."""
    env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": "embedded"}
    gateway = start_gateway(registry(), env=env)
    for path, body in (("/keys/acme-key/rotate", {}), ("/keys/acme-key/revoke", None)):
        assert error(call(gateway, "POST", path, body)) == (409, "conflict")
    assert error(call(gateway, "POST", "/keys", {"tenant": "acme", "name": "acme-key"})) == (409, "conflict")
    assert opens(gateway, FILE_KEY) == 200
    digest = key_digest(FILE_KEY).hex()
    assert post(gateway, "/revocations", {"sha256": digest.upper()})["key"] == "acme-key"
    assert post(gateway, "/revocations", {"sha256": digest})["sha256"] == digest
    assert opens(gateway, FILE_KEY) == 401
    assert get(gateway, "/keys/acme-key")["state"] == "revoked"


def test_keys_outlive_a_restart_of_the_gateway(pair: Pair, valkey: EmbeddedValkey, start_gateway: StartGateway) -> None:
    """A new process knows them before it is ready."""
    one, _ = pair
    good = post(one, "/keys", {"tenant": "acme", "name": "lasting"}, status=201)["key"]
    bad = post(one, "/keys", {"tenant": "acme", "name": "lost"}, status=201)["key"]
    post(one, "/keys/lost/revoke")
    fresh = start_gateway(registry(), env=ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url})
    assert (opens(fresh, good), opens(fresh, bad), opens(fresh, FILE_KEY)) == (200, 401, 200)


def test_several_workers_agree(start_gateway: StartGateway, valkey: EmbeddedValkey) -> None:
    """Whichever worker makes or revokes a key, all of them answer alike in time."""
    env = ADMIN_ENV | {"LLM_GATEWAY_REDIS_URL": valkey.url, "LLM_GATEWAY_WORKERS": "2"}
    gateway = start_gateway(registry(), env=env)

    def settled(key: str, status: int) -> None:
        eventually(lambda: {opens(gateway, key) for _ in range(12)} == {status}, HOLDS_WITHIN_S + 1)

    key = post(gateway, "/keys", {"tenant": "acme", "name": "shared"}, status=201)["key"]
    settled(key, 200)
    post(gateway, "/keys/shared/revoke")
    settled(key, 401)


def test_each_change_leaves_an_audit_line(pair: Pair) -> None:
    """What, whose and which; neither the key nor the token."""
    one, _ = pair
    key = post(one, "/keys", {"tenant": "acme", "name": "audited"}, status=201)["key"]
    post(one, "/keys/audited/rotate", {})
    post(one, "/keys/audited/revoke")
    for action in ("key.create", "key.rotate", "key.revoke"):
        start = f"admin {action} tenant=acme key=audited sha256="
        line = one.wait_for_log(lambda line, start=start: line.get("message", "").startswith(start))  # type: ignore[misc]
        assert line["logger"] == "gateway.audit"
    text = json.dumps(one.logs())
    assert key not in text
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "tenant"),
        ({"tenant": "nobody"}, "tenant"),
        ({"tenant": "acme", "name": "Not A Name"}, "name"),
        ({"tenant": "acme", "scenarios": ["nothing"]}, "scenarios[0]"),
        ({"tenant": "acme", "limits": [{"unit": "apples", "amount": 1}]}, "limits[0].unit"),
        ({"tenant": "acme", "expiresAt": "soon"}, "expiresAt"),
        ({"tenant": "acme", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"tenant": "acme", "key": "mine"}, "key"),
    ],
)
def test_a_wrong_request_for_a_key_names_the_field(alone: GatewayProcess, body: Document, param: str) -> None:
    """And makes nothing."""
    before = get(alone, "/keys")
    answer = call(alone, "POST", "/keys", body)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param
    assert get(alone, "/keys") == before


def test_a_key_that_is_not_there_is_not_found(pair: Pair) -> None:
    """Whatever is asked of it."""
    one, _ = pair
    assert error(call(one, "GET", "/keys/ghost")) == (404, "key_not_found")
    for path in ("/keys/ghost/rotate", "/keys/ghost/revoke"):
        assert error(call(one, "POST", path, {})) == (404, "key_not_found")
