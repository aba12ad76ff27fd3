"""The shipped gateway calls the pods of a Service that a (simulated) API server names, and follows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import RawClient, Response, request_bytes
from tests.support.cluster import api_server, cluster_gateway
from tests.support.documents import Document, api_key, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.kube import KubeServer
from tests.support.scripts import Chat, Gate, Script
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

PATH = "/v1/chat/completions"
BODY = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
KEY = new_key()


def registry(**spec: Any) -> list[Document]:
    """A scenario on the pods of the Service qwen."""
    service = {"name": "qwen", "namespace": "models", "port": "http"}
    spec = {"provider": "openai", "service": service, "timeouts": {"connect": "1s"}} | spec
    return [document("Backend", "qwen", spec), scenario("chat", "qwen"), tenant(), api_key("acme-key", KEY)]


def slice_of(*endpoints: Document, port: int) -> Document:
    """The EndpointSlice of the Service, with these endpoints."""
    metadata = {"name": "qwen-x7k2p", "namespace": "models", "labels": {"kubernetes.io/service-name": "qwen"}}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


def pod(upstream: ScriptedUpstream, **conditions: bool) -> Document:
    """The endpoint of a pod: an address of this machine."""
    name = f"qwen-{upstream.host}"
    target = {"kind": "Pod", "name": name, "namespace": "models", "uid": name}
    return {"addresses": [upstream.host], "conditions": {"ready": True} | conditions, "targetRef": target}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test opens is closed with it."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def pods(stack: ExitStack) -> list[ScriptedUpstream]:
    """Two pods: addresses of their own, the same port."""
    first = stack.enter_context(ScriptedUpstream())
    return [first, stack.enter_context(ScriptedUpstream(address=("127.0.0.2", first.port)))]


def start(stack: ExitStack, folder: Path, *slices: Document, **spec: Any) -> tuple[KubeServer, GatewayProcess]:
    """A cluster with these slices, and a gateway in it."""
    kube, env = stack.enter_context(api_server(folder))
    kube.put_all(registry(**spec))
    kube.put_all(list(slices), "models")
    gateway = cluster_gateway(env, KEY, LLM_GATEWAY_DISCOVERY_NAMESPACES="models,other")
    return kube, stack.enter_context(gateway)


def call(gateway: GatewayProcess) -> Response:
    """One call."""
    with gateway.client() as client:
        return client.request(PATH, BODY, key=KEY)


def open_stream(stack: ExitStack, gateway: GatewayProcess, upstream: ScriptedUpstream, gate: Gate) -> RawClient:
    """A stream at this pod that has begun and goes on when the gate is opened; only this pod may be ready."""

    def stalling(request: Any) -> Script:
        whole = Chat()(request)
        return Script((*whole.steps[:2], gate, *whole.steps[2:]))

    upstream.enqueue(stalling)
    client = stack.enter_context(gateway.client())
    client.send(request_bytes(PATH, BODY | {"stream": True}, key=KEY))
    gate.wait_reached()
    return client


def test_calls_follow_the_pods(stack: ExitStack, tmp_path: Path, pods: list[ScriptedUpstream]) -> None:
    """A pod that terminates gets nothing new and ends its stream; a new one gets calls; the name in Host stays."""
    first, second = pods
    kube, gateway = start(stack, tmp_path, slice_of(pod(first), port=first.port))
    assert call(gateway).status == 200
    (request,) = first.requests
    assert (request.header("host"), request.target) == ("qwen.models.svc", "/v1/chat/completions")
    gate = Gate()
    client = open_stream(stack, gateway, first, gate)
    kube.put(slice_of(pod(first), pod(second), port=first.port), "models")
    eventually(lambda: call(gateway).status == 200 and second.requests)
    gateway.wait_for_metric("llm_gateway_backend_endpoints", 2, backend="qwen")
    leaving = pod(first, ready=False, serving=True, terminating=True)
    kube.put(slice_of(leaving, pod(second), port=first.port), "models")
    gateway.wait_for_metric("llm_gateway_backend_endpoints", 1, backend="qwen")
    eventually(lambda: first.open_connections == 1)
    before = len(first.requests)
    for _ in range(5):
        assert call(gateway).status == 200
    assert len(first.requests) == before
    gate.open()
    assert client.read_response().body.endswith(b"data: [DONE]\n\n")
    eventually(lambda: first.open_connections == 0)


def test_a_pod_that_cannot_be_reached_costs_no_call(
    stack: ExitStack, tmp_path: Path, pods: list[ScriptedUpstream]
) -> None:
    """The other one answers within the same attempt."""
    first, second = pods
    _, gateway = start(stack, tmp_path, slice_of(pod(first), pod(second), port=first.port))
    first.refuse()
    assert [call(gateway).status for _ in range(6)] == [200] * 6
    line = gateway.wait_for_log(lambda line: line.get("event") == "request")
    assert [each["outcome"] for each in line["attempts"]] == ["ok"]


def test_the_pods_known_last_are_called_while_the_api_server_is_away(
    stack: ExitStack, tmp_path: Path, pods: list[ScriptedUpstream]
) -> None:
    """Also those that have become unready meanwhile, which only the server knows; it is believed when it is back."""
    first, second = pods
    kube, gateway = start(stack, tmp_path, slice_of(pod(first), port=first.port))
    kube.fail(500, plural="endpointslices")
    kube.cut_watches()
    gateway.wait_for_log(lambda line: "endpointslices are not up to date" in str(line.get("message")), 20)
    kube.put(slice_of(pod(first, ready=False), pod(second), port=first.port), "models")
    assert [call(gateway).status for _ in range(3)] == [200] * 3
    assert second.requests == []
    kube.mend()
    eventually(lambda: call(gateway).status == 200 and second.requests, 20)


def test_a_backend_at_zero_is_waited_for(stack: ExitStack, tmp_path: Path, pods: list[ScriptedUpstream]) -> None:
    """A Service without a slice, or without a ready pod, is a backend that is not ready."""
    upstream = pods[0]
    kube, gateway = start(
        stack, tmp_path, slice_of(pod(upstream, ready=False), port=upstream.port), queue={"wait": "60s"}
    )
    client = stack.enter_context(gateway.client(timeout_s=30))
    client.send(request_bytes(PATH, BODY, key=KEY))
    gateway.wait_for_metric("llm_gateway_backend_queued_requests", 1, backend="qwen")
    kube.put(slice_of(pod(upstream), port=upstream.port), "models")
    assert client.read_response().status == 200


def test_a_start_waits_for_the_pods(stack: ExitStack, tmp_path: Path) -> None:
    """With the registry alone a replica would get calls that it can only fail."""
    kube, env = stack.enter_context(api_server(tmp_path))
    kube.put_all(registry())
    kube.hang(plural="endpointslices")
    settings = {"LLM_GATEWAY_DISCOVERY_NAMESPACES": "models", "LLM_GATEWAY_KUBERNETES_TIMEOUT_S": "60s"}
    gateway = stack.enter_context(cluster_gateway(env, KEY, awaits_readiness=False, **settings))
    gateway.wait_for_log(lambda line: "registry generation" in str(line.get("message")), 20)
    waits = ["waiting for endpointslices of models"]
    eventually(lambda: gateway.management("/readyz").json().get("reasons") == waits, 20)


def test_without_a_pod_and_without_a_queue_a_call_fails(stack: ExitStack, tmp_path: Path) -> None:
    """And the log says why; a Service outside of what is watched is warned of."""
    kube, gateway = start(stack, tmp_path)
    assert call(gateway).status == 502
    line = gateway.wait_for_log(lambda line: line.get("event") == "request")
    assert line["attempts"][0] | {"ms": 0} == {
        "backend": "qwen",
        "outcome": "connect_error",
        "ms": 0,
        "detail": "no endpoint of models/qwen is ready",
    }
    kube.put(registry(service={"name": "qwen", "namespace": "elsewhere", "port": 80})[0])
    gateway.wait_for_log(lambda line: "qwen (elsewhere) have no endpoint" in str(line.get("message")))
