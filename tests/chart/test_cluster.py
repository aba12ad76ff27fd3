"""The scenario with custom resources before a simulated API server: it serves, and its Roles allow whatever it asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import ROOT, Object, one, rendered
from tests.support.cluster import api_server
from tests.support.kube_values import Seen
from tests.support.kubelet import RenderedGateway
from tests.support.waiting import eventually

RESOURCE = re.compile(
    r"/api(?:s/(?P<group>[^/]+))?/[^/]+/namespaces/(?P<namespace>[^/]+)/(?P<resource>[^/]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+))?)?"
)
EVERYBODY = ("/openapi/", "/version", "/api", "/apis")
"""What the role system:discovery lets every service account read."""

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def verb(seen: Seen, name: str | None) -> str:
    """The verb that the API server asks about (https://kubernetes.io/docs/reference/access-authn-authz/authorization/)."""
    if seen.method != "GET":
        return VERBS[seen.method]
    if name:
        return "get"
    return "watch" if seen.query.get("watch") in {"1", "true", "True"} else "list"


def allowed(seen: Seen, objects: list[Object]) -> bool:
    """Whether the Roles that are bound to the gateway's account let it do this."""
    found = RESOURCE.fullmatch(seen.path)
    if found is None:
        return seen.method == "GET" and seen.path.startswith(EVERYBODY)
    resource = found["resource"] + (f"/{found['part']}" if found["part"] else "")
    asked = (found["group"] or "", resource, verb(seen, found["name"]))
    return any(
        asked[0] in rule["apiGroups"]
        and asked[1] in rule["resources"]
        and asked[2] in rule["verbs"]
        and ("resourceNames" not in rule or found["name"] in rule["resourceNames"])
        for role in bound(objects)
        if role["metadata"]["namespace"] == found["namespace"]
        for rule in role["rules"]
    )


def bound(objects: list[Object]) -> list[Object]:
    """The Roles with a binding to the account that the pods have."""
    account = one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "llm"}
    bindings = [each for each in objects if each["kind"] == "RoleBinding" and subject in each["subjects"]]
    names = {(each["metadata"]["namespace"], each["roleRef"]["name"]) for each in bindings}
    roles = [each for each in objects if each["kind"] == "Role"]
    return [each for each in roles if (each["metadata"]["namespace"], each["metadata"]["name"]) in names]


def prepared() -> list[dict[str, Any]]:
    """The custom resources that CI applies before it installs the scenario."""
    text = (ROOT / "k8s" / "ci" / "custom-resources.yaml").read_text(encoding="utf-8")
    return [each for each in yaml.safe_load_all(text) if each["apiVersion"].startswith("llmgateway.dev/")]


def test_scenario_serves_within_its_rights(tmp_path: Path) -> None:
    """The rendered gateway calls with the key of CI, writes statuses, and asks for nothing that its Roles refuse."""
    objects = rendered("custom-resources")
    secrets = {"valkey-password": {"password": b"of-no-matter"}}
    with api_server(tmp_path) as (kube, env):
        for each in prepared():
            kube.put(each, "llm-registry")
        pod = {name: value for name, value in env.items() if not name.startswith("LLM_GATEWAY_REGISTRY")}
        with RenderedGateway(objects, tmp_path / "pod", secrets, pod | {"LLM_GATEWAY_REDIS_URL": ""}) as gateway:
            body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
            with gateway.client() as client:
                answer = client.request("/v1/chat/completions", body, key="tenant-key-for-ci-only-0001")
                assert answer.status == 200, gateway.output()
            kube.put(
                {
                    "apiVersion": "llmgateway.dev/v1alpha1",
                    "kind": "Backend",
                    "metadata": {"name": "vllm"},
                    "spec": {
                        "provider": "openai",
                        "model": "qwen",
                        "service": {"name": "vllm", "namespace": "llm-backends", "port": 8000},
                    },
                },
                "llm-registry",
            )
            eventually(lambda: kube.asked("watch", "endpointslices"), 20)
            eventually(lambda: "status" in (kube.get("Scenario", "echo", "llm-registry") or {}), 20)
        refused = {(each.method, each.path) for each in kube.requests if not allowed(each, objects)}
        assert refused == set()
        written = {each.method for each in kube.requests if each.method != "GET"}
        assert written >= {"POST", "PATCH"}, "a Lease made, statuses written"


def test_check_of_rights_refuses() -> None:
    """Another namespace, another verb, another Lease."""
    objects = rendered("custom-resources")
    base = "/apis/llmgateway.dev/v1alpha1/namespaces/llm-registry"
    lease = "/apis/coordination.k8s.io/v1/namespaces/llm-registry/leases"

    def seen(method: str, path: str) -> Seen:
        return Seen(method=method, path=path, action="", plural="", query={}, headers={}, body=None)

    assert allowed(seen("GET", f"{base}/tenants"), objects)
    assert allowed(seen("PUT", f"{lease}/llm-gateway-registry"), objects)
    assert not allowed(seen("PUT", f"{lease}/another"), objects)
    assert not allowed(seen("DELETE", f"{base}/tenants/demo"), objects)
    assert not allowed(seen("GET", f"{base.replace('llm-registry', 'llm')}/tenants"), objects)
    assert not allowed(seen("GET", "/api/v1/namespaces/llm/secrets"), objects)
