"""What is in the image works without what was left out of it: the client of Kubernetes, and the tables of rich."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import api_server
from tests.support.documents import api_key, echo_backend, new_key, scenario, tenant
from tests.support.image import Image, ImageGateway
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(500)  # the first test waits for the build

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def test_it_takes_its_registry_from_a_cluster(image: Image, tmp_path: Path) -> None:
    """Over TLS with the token of a pod: it lists, watches, and writes what it thinks of an object."""
    key = new_key()
    with api_server(tmp_path) as (kube, env):
        kube.put_all([echo_backend(), scenario("chat", "echo"), tenant(), api_key("acme-key", key)])
        mounts = ["/tmp", f"{env['LLM_GATEWAY_KUBERNETES_CREDENTIALS_DIR']}:{SERVICE_ACCOUNT}"]
        in_pod = env | {"LLM_GATEWAY_KUBERNETES_CREDENTIALS_DIR": SERVICE_ACCOUNT}
        with ImageGateway(image, 65532, mounts, in_pod) as gateway, gateway.client() as client:
            fields = {"model": "chat", "messages": [{"role": "user", "content": "from the cluster"}]}
            answer = client.request("/v1/chat/completions", fields, key=key)
            assert answer.json()["choices"][0]["message"]["content"] == "from the cluster"
            eventually(lambda: kube.condition("Scenario", "chat", "Ready")["status"] == "True", 20)
            kube.delete("ApiKey", "acme-key")
            eventually(lambda: client.request("/v1/models", key=key).status == 401, 10)


def test_tables_are_printed(image: Image) -> None:
    """A report of usage, whose table rich draws."""
    script = (
        "from gateway.cli.usage_output import print_table; from gateway.redis.ledger_format import UsageCounts;"
        "print_table('Usage', ['tenant'], {('acme',): UsageCounts(requests=1234)})"
    )
    printed = image.run("python", "-c", script, uid=4242)
    assert "acme" in printed
    assert "1,234" in printed
