"""The generated password over upgrades: Helm looks it up in the cluster, here a server with the answers it needs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import helm_python as helm
import pytest
import yaml

from tests.support.chart import (
    NAMESPACE,
    RELEASE,
    SCENARIOS,
    Object,
    chart,
    merged,
    one,
    parse,
    render,
    rendered,
    scenario,
)

SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/{RELEASE}-llm-gateway-valkey"
CORE = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
    ],
}


@contextmanager
def cluster(answers: Mapping[str, Any]) -> Iterator[helm.Config]:
    """A Helm that is connected to an API server with these answers by path; everything else is not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(missing if answer is None else answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with helm.Config(kubeconfig_content=kubeconfig(server.server_port), namespace=NAMESPACE) as config:
                yield config
        finally:
            server.shutdown()
            thread.join()


def kubeconfig(port: int) -> str:
    """How to reach it."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        }
    )


def password(config: helm.Config) -> bytes:
    """The password of an upgrade's render."""
    texts = config.render(chart(), {}, name=RELEASE, namespace=NAMESPACE, is_upgrade=True, is_install=False)
    return base64.b64decode(one(list(parse(texts)), "Secret")["data"]["password"])


def test_password_is_kept_over_upgrades() -> None:
    """What the cluster has is what is rendered, every time."""
    kept = base64.b64encode(b"of-the-first-installation").decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{RELEASE}-llm-gateway-valkey", "namespace": NAMESPACE},
        "data": {"password": kept},
    }
    with cluster({"/api/v1": CORE, SECRET: secret}) as config:
        assert {password(config) for _ in range(3)} == {b"of-the-first-installation"}


def test_password_is_made_where_there_is_none() -> None:
    """A first installation makes one; a Secret without that key as well."""
    with cluster({"/api/v1": CORE}) as config:
        first, second = password(config), password(config)
    assert first != second
    assert len(first) == 32
    empty = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": NAMESPACE}}
    with cluster({"/api/v1": CORE, SECRET: empty}) as config:
        assert len(password(config)) == 32


IMMUTABLE = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "Service": ("clusterIP",),
}
"""Fields of ``spec`` that an API server never changes: an upgrade that wants to fails as a whole."""

CHANGES: dict[str, Any] = {
    "image": {"tag": "next"},
    "commonLabels": {"team": "other", "app.kubernetes.io/part-of": "other"},
    "podLabels": {"tier": "other"},
    "podAnnotations": {"other": "other"},
    "settings": {"LLM_GATEWAY_LOG_LEVEL": "warning"},
    "bindAddress": "[::]",
    "drain": {"seconds": 100, "preStopSeconds": 7},
    "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"other": "other"}},
    "revisionHistoryLimit": 1,
    "serviceAccount": {"create": False},
    "valkey": {
        "image": {"tag": "next"},
        "maxMemory": "100mb",
        "passwordOverlapSeconds": 60,
        "existingSecret": {"name": "other"},
        "nodeSelector": {"other": "other"},
        "resources": {"requests": {"cpu": "1"}},
    },
}
"""Values that operators change while a release lives."""


def fixed(objects: list[Object]) -> dict[tuple[str, str], Any]:
    """What must stay, by kind and name; ``roleRef`` of a binding is such a field, too."""
    return {
        (each["kind"], each["metadata"]["name"]): {
            name: each.get("spec", {}).get(name) for name in IMMUTABLE.get(each["kind"], ())
        }
        | {"roleRef": each.get("roleRef")}
        for each in objects
        if each["kind"] in {*IMMUTABLE, "RoleBinding"}
    }


@pytest.mark.parametrize("name", ["default", *SCENARIOS])
def test_an_upgrade_changes_nothing_that_cannot_be_changed(name: str) -> None:
    """Selectors, claims and bound roles are the same whatever of these values changes."""
    before, after = rendered(name), render(merged(scenario(name), CHANGES))
    assert fixed(before) == fixed(after)
    assert one(before, "Deployment") != one(after, "Deployment")
