"""Thousands of resources, several processes and replicas, and nothing to do: what the registry in the cluster costs."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from tests.support.cluster import api_server, cluster_gateway
from tests.support.documents import api_key, document, echo_backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

LEASES = "leases"


def status(gateway: GatewayProcess, key: str, model: str) -> int:
    """How a call ends."""
    with gateway.client() as client:
        fields = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        return client.request("/v1/chat/completions", fields, key=key).status


def cpu_s(gateway: GatewayProcess) -> float:
    """CPU seconds of its whole tree."""
    times = [psutil.Process(pid).cpu_times() for pid in gateway.pids()]
    return sum(each.user + each.system for each in times)


def test_two_thousand_objects_serve_within_seconds_and_then_cost_nothing(tmp_path: Path) -> None:
    """Listed in pages, live in seconds, changed in well under two; with nothing to do, no requests but the lease's."""
    key = new_key()
    objects = [echo_backend(), api_key("first", key, "t-0")]
    objects += [scenario(f"s-{number}", "echo") for number in range(400)]
    objects += [tenant(f"t-{number}", scenarios=sorted({"s-0", f"s-{number % 400}"})) for number in range(600)]
    objects += [api_key(f"k-{number}", new_key(), f"t-{number % 600}") for number in range(998)]
    objects.append(document("Scenario", "wrong", {"targets": []}))
    assert len(objects) >= 2000
    with api_server(tmp_path) as (kube, env):
        kube.put_all(objects)
        began = time.monotonic()
        with cluster_gateway(env, key, LLM_GATEWAY_REGISTRY_STATUS_WRITES="1000") as gateway:
            assert time.monotonic() - began < 20, "2,000 objects take a second on a quiet machine"
            assert status(gateway, key, "s-0") == 200
            assert gateway.metrics().value("llm_gateway_registry_objects", kind="Tenant", state="live") == 600
            assert max(int(seen.query["limit"]) for seen in kube.requests if seen.action == "list") <= 500
            eventually(lambda: kube.condition("ApiKey", "k-997", "Ready"), 60)
            eventually(lambda: kube.condition("Scenario", "wrong", "Accepted")["status"] == "False", 60)

            kube.put(tenant("t-0", scenarios=["s-0", "s-399"]))
            eventually(lambda: status(gateway, key, "s-399") == 200, 5)
            statuses = [seen for seen in kube.requests if seen.path.endswith("/status")]
            assert len(statuses) <= len(objects) + 50, "each status is written once"

            eventually(lambda: is_idle(gateway), 30)
            asked, used = len(kube.requests), cpu_s(gateway)
            kube.bookmark()
            time.sleep(2)  # a span to measure, no wait for anything
            assert {seen.plural for seen in kube.requests[asked:]} <= {LEASES}
            assert cpu_s(gateway) - used < 0.2


def is_idle(gateway: GatewayProcess) -> bool:
    """Whether it used no CPU time to speak of for a moment."""
    before = cpu_s(gateway)
    time.sleep(0.3)
    return cpu_s(gateway) - before < 0.03


def test_each_worker_watches_for_itself_and_one_process_writes(tmp_path: Path) -> None:
    """Two workers see every change; one of them holds the lease, and when its process ends the next one goes on."""
    key = new_key()
    with api_server(tmp_path) as (kube, env):
        kube.put_all([echo_backend(), scenario("chat", "echo"), tenant(), api_key("acme-key", key)])
        with cluster_gateway(env, key, LLM_GATEWAY_WORKERS="2") as first:
            eventually(lambda: kube.watching("backends") == 2, 20)
            for _ in range(20):
                assert status(first, key, "chat") == 200
            eventually(lambda: kube.condition("Scenario", "chat", "Ready"), 20)
            leader = holder(kube.get("Lease", "llm-gateway-registry"))
            assert leader.startswith("gateway-0-")
            with cluster_gateway(env, key, LLM_GATEWAY_POD_NAME="gateway-1") as second:
                assert holder(kube.get("Lease", "llm-gateway-registry")) == leader
                first.stop()
                assert holder(kube.get("Lease", "llm-gateway-registry")) != leader, "released at the end"
                kube.put(scenario("later", "echo"))
                eventually(lambda: kube.condition("Scenario", "later", "Ready"), 20)
                assert holder(kube.get("Lease", "llm-gateway-registry")).startswith("gateway-1-")
                assert status(second, key, "later") == 200


def holder(lease: dict[str, dict[str, str]] | None) -> str:
    """Who holds the lease."""
    assert lease is not None
    return lease["spec"].get("holderIdentity", "")
