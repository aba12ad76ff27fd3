"""Keys over the admin API of a gateway whose registry is in a (simulated) cluster, where they are ApiKey resources."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.client import RawClient, Response
from tests.support.cluster import api_server, cluster_gateway
from tests.support.documents import api_key, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.kube import KubeServer
from tests.support.waiting import eventually

TOKEN = "an-admin-token-of-some-length"
OURS = {"llmgateway.dev/made-by": "admin-api"}


@contextmanager
def gateways(folder: Path, count: int = 1, **env: str) -> Iterator[tuple[KubeServer, list[GatewayProcess]]]:
    """Gateways on one cluster with a registry and the key ``foreign`` that somebody has applied."""
    key = new_key()
    with api_server(folder) as (kube, settings):
        kube.put_all([echo_backend(), scenario("chat", "echo"), tenant(), api_key("foreign", key)])
        settings = {**settings, "LLM_GATEWAY_ADMIN_TOKEN": TOKEN, "LLM_GATEWAY_REGISTRY_WRITE_KEYS": "true", **env}
        with cluster_gateway(settings, key) as one:
            if count == 1:
                yield kube, [one]
                return
            with cluster_gateway(settings, key, LLM_GATEWAY_POD_NAME="gateway-1") as two:
                yield kube, [one, two]


def admin(gateway: GatewayProcess, path: str, body: dict[str, Any] | None = None) -> Response:
    """One request to the admin API; a POST where there is a body."""
    with RawClient("127.0.0.1", gateway.management_port) as client:
        return client.request(
            f"/admin/v1/{path}", body, headers={"authorization": f"Bearer {TOKEN}", "connection": "close"}
        )


def status(gateway: GatewayProcess, key: str) -> int:
    """How a call with this key ends."""
    with gateway.client() as client:
        fields = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        return client.request("/v1/chat/completions", fields, key=key).status


def opens(gateway: GatewayProcess, key: str) -> bool:
    """Whether a call with this key is answered."""
    return status(gateway, key) == 200


def is_refused(gateway: GatewayProcess, key: str) -> bool:
    """Whether a call with this key is refused as unknown."""
    return status(gateway, key) == 401


def test_a_key_is_made_rotated_and_revoked_on_every_replica(tmp_path: Path) -> None:
    """Each change is one of a resource, holds everywhere within two seconds, and the key itself is nowhere in it."""
    with gateways(tmp_path, 2) as (kube, (one, two)):
        made = admin(one, "keys", {"tenant": "acme", "name": "ci", "scenarios": ["chat"]})
        assert made.status == 201, made
        first = made.json()["key"]
        resource = kube.get("ApiKey", "ci")
        assert resource is not None
        assert resource["metadata"]["labels"] == OURS
        assert resource["spec"]["digests"] == [{"sha256": hashlib.sha256(first.encode()).hexdigest()}]
        assert first not in str(kube.requests)
        for gateway in (one, two):
            eventually(partial(opens, gateway, first), 5)

        rotated = admin(two, "keys/ci/rotate", {"grace": "1h"})
        assert rotated.status == 200, rotated
        second = rotated.json()["key"]
        assert len(rotated.json()["details"]["digests"]) == 2
        for gateway in (one, two):
            eventually(partial(opens, gateway, second), 5)
        assert status(one, first) == 200

        revoked = admin(one, "keys/ci/revoke", {})
        assert (revoked.status, revoked.json()["state"]) == (200, "revoked"), revoked
        for gateway in (one, two):
            for key in (first, second):
                eventually(partial(is_refused, gateway, key), 5)
        again = admin(two, "keys/ci/revoke", {})
        assert (again.status, again.json()["revokedAt"]) == (200, revoked.json()["revokedAt"])
        assert admin(two, "keys/ci/rotate", {}).status == 409
        eventually(lambda: len(admin(two, "revocations").json()["revocations"]) == 2)
        assert admin(one, "keys.yaml").body == b""
        assert "ci" not in [each["name"] for each in admin(one, "keys").json()["keys"] if each["state"] == "live"]
        one.wait_for_log(lambda line: "admin key.revoke tenant=acme key=ci" in str(line.get("message")))
        lines = [str(line.get("message")) for line in one.logs() + two.logs()]
        assert not any(first in line or second in line for line in lines)


def test_one_digest_of_a_rotated_key_can_be_revoked(tmp_path: Path) -> None:
    """A key that leaked in the midst of a rotation ends alone."""
    with gateways(tmp_path) as (_, (gateway,)):
        first = admin(gateway, "keys", {"tenant": "acme", "name": "ci"}).json()["key"]
        second = admin(gateway, "keys/ci/rotate", {"grace": "1h"}).json()["key"]
        eventually(lambda: status(gateway, second) == 200, 5)
        leaked = hashlib.sha256(first.encode()).hexdigest()
        answer = admin(gateway, "revocations", {"sha256": leaked})
        assert answer.json()["key"] == "ci", answer
        eventually(lambda: status(gateway, first) == 401, 5)
        assert status(gateway, second) == 200
        assert admin(gateway, "revocations", {"sha256": "0" * 64}).status == 404
        exported = admin(gateway, "keys.yaml").body.decode()
        assert "kind: ApiKey" in exported
        assert "made-by" not in exported


def test_what_somebody_else_made_is_not_changed(tmp_path: Path) -> None:
    """409 with whom to ask; shown all the same. A name is given once, wrong fields are named."""
    with gateways(tmp_path) as (kube, (gateway,)):
        shown = admin(gateway, "keys/foreign").json()
        assert (shown["source"], shown["state"]) == ("cluster", "live")
        for path in ("keys/foreign/rotate", "keys/foreign/revoke"):
            answer = admin(gateway, path, {})
            assert (answer.status, answer.json()["error"]["code"]) == (409, "conflict")
            assert "in the cluster" in answer.json()["error"]["message"]
        digest = kube.get("ApiKey", "foreign")["spec"]["digests"][0]["sha256"]  # type: ignore[index]
        assert admin(gateway, "revocations", {"sha256": digest}).status == 409
        assert status(gateway, gateway.key) == 200
        assert admin(gateway, "keys", {"tenant": "acme", "name": "foreign"}).status == 409
        wrong = admin(gateway, "keys", {"tenant": "nobody"})
        assert (wrong.status, wrong.json()["error"]["param"]) == (400, "tenant")
        assert admin(gateway, "keys/nothing/rotate", {}).status == 404


def test_no_key_is_left_where_nobody_reads_it() -> None:
    """The command that stores a key in Redis refuses where the registry is in the cluster."""
    env = {**os.environ, "LLM_GATEWAY_REGISTRY_SOURCE": "kubernetes", "LLM_GATEWAY_REDIS_URL": "redis://127.0.0.1:1"}
    command = [sys.executable, "-m", "gateway.cli", "keys", "create", "--tenant", "acme", "--redis"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Keys are ApiKey resources" in done.stderr
    assert "lgw_" not in done.stdout


def test_a_gateway_that_may_not_write_says_so(tmp_path: Path) -> None:
    """By the operator's setting, for want of a right, and while the API server is away."""
    with gateways(tmp_path, LLM_GATEWAY_REGISTRY_WRITE_KEYS="false") as (kube, (gateway,)):
        for path, body in (("keys", {"tenant": "acme"}), ("keys/foreign/revoke", {}), ("keys/foreign/rotate", {})):
            answer = admin(gateway, path, body)
            assert (answer.status, answer.json()["error"]["code"]) == (409, "keys_not_writable")
            assert "LLM_GATEWAY_REGISTRY_WRITE_KEYS" in answer.json()["error"]["message"]
        assert not [seen for seen in kube.requests if seen.plural == "apikeys" and seen.method in ("POST", "PUT")]
    with gateways(tmp_path) as (kube, (gateway,)):
        kube.fail(403, plural="apikeys", action="create", reason="Forbidden")
        answer = admin(gateway, "keys", {"tenant": "acme"})
        assert (answer.status, answer.json()["error"]["code"]) == (409, "keys_not_writable")
        kube.mend()
        kube.fail(500, plural="apikeys", action="create")
        answer = admin(gateway, "keys", {"tenant": "acme"})
        assert (answer.status, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert answer.header("retry-after")
