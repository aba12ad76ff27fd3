"""From EndpointSlices to the endpoints that take new calls. Pure.

The objects are those of https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/ as
JSON. What is malformed is left out: one bad object must not take the other endpoints away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.model import Endpoint, Service

Slice = Mapping[str, Any]

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""The label of a slice that names its Service."""

ENDPOINTS_MAX: Final = 1000
"""Endpoints of one Service that are called; the others, last in the order of their names, get nothing."""

_FAMILIES: Final = ("IPv4", "IPv6")  # a slice may also hold names (FQDN), which no pod has


def service_name(piece: Slice) -> str:
    """The Service that a slice belongs to; empty where it says none."""
    labels = piece.get("metadata", {}).get("labels") or {}
    return str(labels.get(SERVICE_LABEL, ""))


def pruned(piece: Slice) -> dict[str, Any]:
    """A slice without what is not read here, so that a change of nothing else is no change."""
    endpoints = [
        {name: each[name] for name in ("addresses", "conditions", "targetRef") if name in each}
        for each in piece.get("endpoints") or ()
    ]
    metadata = {name: piece["metadata"][name] for name in ("name", "namespace", "labels") if name in piece["metadata"]}
    kept = {name: piece[name] for name in ("addressType", "ports") if name in piece}
    return {"metadata": metadata, "endpoints": endpoints, **kept}


def ready_endpoints(slices: Iterable[Slice], service: Service) -> tuple[Endpoint, ...]:
    """The endpoints that take new calls, in a stable order.

    A pod may be in several slices: one for each address family, and twice for a moment when it moves between slices. It
    is one endpoint with all its addresses, IPv4 first, and ready if no slice says otherwise. One that terminates takes
    no new call whatever its readiness, which a Service with ``publishNotReadyAddresses`` does not tell.
    """
    addresses: dict[tuple[str, int], dict[str, None]] = {}
    leaving: set[str] = set()
    for piece in sorted(slices, key=_order):
        port = _port_of(piece.get("ports") or (), service.port)
        if piece.get("addressType") not in _FAMILIES or port is None:
            continue
        for name, endpoint in _named(piece):
            if _takes_calls(endpoint.get("conditions") or {}):
                # Of several addresses only the first counts, as the API says of kube-proxy.
                addresses.setdefault((name, port), {})[endpoint["addresses"][0]] = None
            else:
                leaving.add(name)
    found = [
        Endpoint(name=name, addresses=tuple(every), port=port)
        for (name, port), every in sorted(addresses.items())
        if name not in leaving
    ]
    return tuple(found[:ENDPOINTS_MAX])


def _order(piece: Slice) -> tuple[str, str]:
    return str(piece.get("addressType")), str(piece.get("metadata", {}).get("name"))


def _named(piece: Slice) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The endpoints of a slice, each by what is behind it: its pod, or else its address."""
    for endpoint in piece.get("endpoints") or ():
        addresses = endpoint.get("addresses")
        if isinstance(addresses, list) and addresses and isinstance(addresses[0], str):
            target = endpoint.get("targetRef") or {}
            yield str(target.get("uid") or target.get("name") or addresses[0]), endpoint


def _takes_calls(conditions: Mapping[str, Any]) -> bool:
    """Whether new calls may go there. The API reads an absent ``ready`` as true, an absent ``terminating`` as false."""
    return conditions.get("ready") is not False and conditions.get("terminating") is not True


def _port_of(ports: Iterable[Mapping[str, Any]], wanted: int | str) -> int | None:
    """The port to call: by its name, or its number, or the only one there is.

    A slice has the numbers of the pods; the Service's own number is not in it. Where a Service has one port, that is
    meant, whatever its number on either side.
    """
    usable = [each for each in ports if isinstance(each.get("port"), int) and each.get("protocol", "TCP") == "TCP"]
    key = "name" if isinstance(wanted, str) else "port"
    for each in usable:
        if (each.get(key) or "") == wanted:
            return int(each["port"])
    return int(usable[0]["port"]) if len(usable) == 1 and isinstance(wanted, int) else None
