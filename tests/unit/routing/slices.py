"""EndpointSlices as an API server gives them."""

from __future__ import annotations

from typing import Any

from gateway.model import Service

PORTS = [{"name": "http", "port": 8000, "protocol": "TCP"}]


def service_of(namespace: str, name: str, port: int | str) -> Service:
    """A reference to a Service."""
    return Service(namespace=namespace, name=name, port=port)


def pod(address: str, uid: str = "", **conditions: bool) -> dict[str, Any]:
    """An endpoint of a pod with these conditions."""
    return pod_with(address, conditions, uid or f"uid-{address}")


def pod_with(address: str, conditions: dict[str, bool], uid: str) -> dict[str, Any]:
    """The same, of conditions that are not known beforehand."""
    return {
        "addresses": [address],
        "conditions": conditions,
        "targetRef": {"kind": "Pod", "namespace": "models", "name": f"qwen-{uid}", "uid": uid},
    }


def piece(*endpoints: dict[str, Any], name: str = "qwen-a", **spec: Any) -> dict[str, Any]:
    """One slice."""
    labels = {"kubernetes.io/service-name": "qwen"}
    metadata = {"name": name, "namespace": "models", "labels": labels}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": list(endpoints), "ports": PORTS} | spec
