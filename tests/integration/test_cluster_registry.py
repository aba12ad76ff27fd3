"""The shipped gateway with its registry in a (simulated) cluster: custom resources in, chat calls out."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.registry.crd import definitions
from gateway.registry.installed import PATH
from tests.support.client import Response
from tests.support.cluster import api_server, cluster_gateway
from tests.support.documents import api_key, backend, document, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.kube import KubeServer
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually


def call(gateway: GatewayProcess, key: str, model: str = "chat") -> Response:
    """One chat call."""
    with gateway.client() as client:
        fields = {"model": model, "messages": [{"role": "user", "content": "hello there"}]}
        return client.request("/v1/chat/completions", fields, key=key)


def secret(name: str, value: bytes, **labels: str) -> dict[str, Any]:
    """A Secret with the key ``token``."""
    data = {"token": base64.b64encode(value).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "data": data}


def registry(key: str) -> list[dict[str, Any]]:
    """An echo backend behind the scenario ``chat``, for the tenant ``acme``."""
    return [echo_backend(), scenario("chat", "echo"), tenant(), api_key("acme-key", key)]


def test_from_custom_resources_to_a_chat_call(tmp_path: Path) -> None:
    """What is in the namespace serves, changes are live at once, statuses say so, deletion is the end."""
    key = new_key()
    with api_server(tmp_path) as (kube, env):
        kube.serve(PATH, definitions_without("timeouts"))
        kube.put_all(registry(key))
        with cluster_gateway(env, key) as gateway:
            gateway.wait_for_log(lambda line: "they lack Backend.spec.timeouts" in str(line.get("message")), 20)
            gateway.wait_for_metric("llm_gateway_registry_schema_missing_fields", 1)
            answer = call(gateway, key)
            assert answer.status == 200, gateway.output()
            assert answer.json()["choices"][0]["message"]["content"] == "hello there"
            for kind, name in (("Backend", "echo"), ("Scenario", "chat"), ("Tenant", "acme"), ("ApiKey", "acme-key")):
                eventually(partial(is_true, kube, kind, name, "Ready"), 20)
                assert is_true(kube, kind, name, "Accepted")
            kube.put(scenario("chat", "echo", aliases=["gpt-4o"]))
            eventually(lambda: call(gateway, key, "gpt-4o").status == 200)
            kube.delete("ApiKey", "acme-key")
            eventually(lambda: call(gateway, key).status == 401, 2)
            assert gateway.metrics().value("llm_gateway_registry_objects", kind="Scenario", state="live") == 1


def definitions_without(field: str) -> dict[str, Any]:
    """The OpenAPI document of a cluster whose definition of Backend lacks a field."""
    (version,) = definitions()["Backend"]["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"][field]
    named = [{"group": "llmgateway.dev", "version": "v1alpha1", "kind": "Backend"}]
    return {"components": {"schemas": {"Backend": {**schema, "x-kubernetes-group-version-kind": named}}}}


def is_true(kube: KubeServer, kind: str, name: str, condition: str) -> bool:
    """Whether a condition of a resource says so of its present generation."""
    found = kube.condition(kind, name, condition)
    item = kube.get(kind, name)
    assert item is not None
    present = item["metadata"]["generation"]
    return bool(found["status"] == "True" and found["observedGeneration"] == present)


def test_a_bad_object_is_refused_alone_and_its_status_says_why(tmp_path: Path) -> None:
    """A mistyped key, a missing reference and a clash are told where they are; what was good before goes on serving."""
    key = new_key()
    with api_server(tmp_path) as (kube, env):
        kube.put_all(registry(key))
        kube.put(document("Scenario", "typo", {"targets": [{"backend": "echo"}], "fallback": ["echo"]}))
        kube.put(scenario("waiting", "missing"))
        with cluster_gateway(env, key) as gateway:
            assert call(gateway, key).status == 200
            assert call(gateway, key, "typo").status == 404
            said = eventually(lambda: kube.condition("Scenario", "typo", "Accepted"), 20)
            assert (said["status"], said["reason"]) == ("False", "Invalid")
            assert "spec.fallback: is not a known field" in said["message"]
            said = eventually(lambda: kube.condition("Scenario", "waiting", "Accepted"), 20)
            assert (said["status"], said["reason"]) == ("False", "Unresolved")
            assert said["message"].startswith("spec.targets[0].backend: there is no Backend `missing`")
            assert kube.condition("Scenario", "waiting", "Ready")["status"] == "False"

            kube.put(echo_backend("missing"))  # an unresolved reference heals
            eventually(lambda: call(gateway, key, "waiting").status == 200)
            eventually(lambda: is_true(kube, "Scenario", "waiting", "Ready"), 20)

            kube.put(scenario("chat", "echo", cache={"mode": "sometimes"}))  # the last good version goes on
            eventually(lambda: kube.condition("Scenario", "chat", "Accepted")["status"] == "False", 20)
            assert kube.condition("Scenario", "chat", "Ready")["reason"] == "LastGoodVersion"
            assert call(gateway, key).status == 200


def test_of_two_claims_to_an_alias_the_older_object_wins(tmp_path: Path) -> None:
    """Whatever the order in which they are listed; the younger one says so and serves under its name."""
    key = new_key()
    with api_server(tmp_path) as (kube, env):
        kube.put_all([echo_backend(), tenant(), api_key("acme-key", key)])
        older = scenario("z-older", "echo", aliases=["gpt-4o"])
        older["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        younger = scenario("a-younger", "echo", aliases=["gpt-4o"])
        younger["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
        kube.put_all([younger, older])
        with cluster_gateway(env, key) as gateway:
            assert call(gateway, key, "gpt-4o").header("x-llm-gateway-scenario") == "z-older"
            assert call(gateway, key, "a-younger").status == 200
            said = eventually(lambda: kube.condition("Scenario", "a-younger", "Accepted"), 20)
            assert (said["status"], said["reason"]) == ("False", "PartlyAccepted")
            assert "Scenario/z-older" in said["message"]
            assert is_true(kube, "Scenario", "a-younger", "Ready")


def test_secrets_are_taken_with_the_label_only_and_when_they_change(tmp_path: Path) -> None:
    """No variable, no file, no Secret without the label; a changed Secret is sent with the next call."""
    key = new_key()
    with ScriptedUpstream() as upstream, api_server(tmp_path) as (kube, env):
        named = {"type": "bearer", "secret": {"secretRef": {"name": "provider", "key": "token"}}}
        url = f"{upstream.url}/v1"
        kube.put_all([scenario("chat", "main"), tenant(), api_key("acme-key", key)])
        kube.put(backend("main", url, auth=named))
        kube.put(backend("by-env", url, auth={"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_X"}}))
        kube.put(backend("by-file", url, auth={"type": "bearer", "secret": {"file": "x"}}))
        kube.put(secret("provider", b"first-value"))
        with cluster_gateway(env, key, LLM_GATEWAY_SECRET_X="of-the-gateway") as gateway:
            said = eventually(lambda: kube.condition("Backend", "main", "Accepted"), 20)
            assert "no Secret `provider` with the label llmgateway.dev/credential" in said["message"]
            for name in ("by-env", "by-file"):
                said = eventually(partial(kube.condition, "Backend", name, "Accepted"), 20)
                assert "in the cluster use secretRef" in said["message"]
            kube.put(secret("provider", b"first-value\n", **{"llmgateway.dev/credential": "true"}))
            eventually(lambda: call(gateway, key).status == 200)
            assert last_credential(upstream) == "Bearer first-value"
            kube.put(secret("provider", b"second-value", **{"llmgateway.dev/credential": "true"}))
            eventually(lambda: call(gateway, key).status == 200 and last_credential(upstream) == "Bearer second-value")
            kube.put(secret("provider", b"second-value"))  # the label is gone: the last good version goes on
            eventually(lambda: kube.condition("Backend", "main", "Accepted")["status"] == "False", 20)
            assert call(gateway, key).status == 200
            told = gateway.output() + "".join(map(str, gateway.logs()))
            assert "first-value" not in told
            assert "second-value" not in told


def last_credential(upstream: ScriptedUpstream) -> str:
    """What the backend was sent last."""
    return str(upstream.requests[-1].header("authorization"))


@pytest.mark.parametrize("status", [403, 503])
def test_a_start_waits_for_the_api_and_an_outage_is_survived(tmp_path: Path, status: int) -> None:
    """Unready and 503 until every list was whole, then serving through any outage with the last good registry."""
    key = new_key()
    with api_server(tmp_path) as (kube, env):
        kube.put_all(registry(key))
        kube.fail(status, plural="tenants")
        with cluster_gateway(env, key, awaits_readiness=False) as gateway:
            reasons = eventually(lambda: waiting(gateway), 30)
            assert "tenants" in reasons
            assert str(status) in reasons
            assert call(gateway, key).status == 503
            kube.mend()
            eventually(gateway.is_ready, 30)
            assert call(gateway, key).status == 200
            seen = gateway.metrics().value("llm_gateway_registry_seen_timestamp_seconds")
            assert seen > 0
            kube.fail(status)
            kube.cut_watches()
            gateway.wait_for_log(lambda line: "not up to date" in str(line.get("message")), 20)
            assert call(gateway, key).status == 200
            assert gateway.is_ready()
            kube.mend()
            kube.put(scenario("chat", "echo", aliases=["after"]))
            eventually(lambda: call(gateway, key, "after").status == 200, 20)


def waiting(gateway: GatewayProcess) -> str:
    """Why the gateway is not ready, once it says what it waits for."""
    answer = gateway.management("/readyz")
    text = answer.body.decode()
    return text if answer.status == 503 and "waiting for" in text and "GET" in text else ""
