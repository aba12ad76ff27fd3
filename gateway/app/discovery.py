"""Endpoint discovery as the settings want it: none for a registry of files, else the namespaces that they name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.routing.discovery import Discovery, Loop
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.app.source import RegistryWatch
    from gateway.model import Snapshot
    from gateway.routing.discovery import Keep, Told
    from gateway.telemetry import Metrics


PERIOD_S: Final = 1.0
"""How often the number of endpoints is told."""


def new_discovery(settings: Settings) -> Discovery | None:
    """What knows the endpoints of Services; None where no backend may name one."""
    return Discovery(settings.discovery_namespaces) if settings.registry_source == "kubernetes" else None


async def discover(discovery: Discovery, settings: Settings, registry: RegistryWatch, metrics: Metrics) -> None:
    """Watch, and tell how many endpoints there are, until cancelled."""
    if not settings.discovery_namespaces:
        await asyncio.Event().wait()
    from gateway.app.kube import kube_client, watch_options  # the Kubernetes client is needed in this mode only
    from gateway.kube.listwatch import ListWatch, Resource

    client = await asyncio.to_thread(kube_client, settings)
    options = watch_options(settings)

    def new_loop(path: str, label_selector: str, told: Told, keep: Keep) -> Loop:
        return ListWatch(client, Resource(path=path, label_selector=label_selector), told, options, keep)

    discovery.start(new_loop)
    try:
        told: set[str] = set()
        while True:
            counts = endpoints(registry.snapshot, discovery)
            for name in told | counts.keys():
                metrics.backend_endpoints(name, counts.get(name, 0))
            told = set(counts)
            await asyncio.sleep(PERIOD_S)
    finally:
        await asyncio.shield(asyncio.to_thread(discovery.stop))
        client.close()


def endpoints(snapshot: Snapshot, discovery: Discovery) -> dict[str, int]:
    """How many endpoints are ready of each backend that is a Service."""
    services = {name: each.origin.service for name, each in snapshot.backends.items() if each.origin is not None}
    return {name: len(discovery.ready(service)) for name, service in services.items() if service is not None}
