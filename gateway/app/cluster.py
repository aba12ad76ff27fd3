"""The registry in the cluster as the process uses it: watched in each worker, its status written by one of them all.

Nothing is loaded before a worker runs: threads do not survive a fork, and a start waits for no API server. Until the
first load no key is judged (503, not ready); from then on the last good registry serves, whatever becomes of the API.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from gateway.app.source import RegistryWatch
from gateway.clock import monotonic, wall
from gateway.errors import KubernetesFailure, SettingsInvalid
from gateway.registry.load import EMPTY_SNAPSHOT
from gateway.registry.overlay import UnknownKeys
from gateway.settings import Settings
from gateway.settings.sources import kubernetes_service

if TYPE_CHECKING:
    from gateway.kube.client import KubeClient
    from gateway.registry.cluster import ClusterRegistry, View
    from gateway.registry.parse import ObjectId
    from gateway.registry.resources import Parsed

SCHEMA_S: Final = 3600.0
"""How often the definitions in the cluster are looked at, which change with an upgrade of their chart only."""

SCHEMA_RETRY_S: Final = 60.0
SCHEMA_FIELDS_SHOWN: Final = 20

STOP_S: Final = 2.0
"""How long the end of a worker waits for the lease to be released."""

_log = logging.getLogger("gateway.registry")


class ClusterWatch(RegistryWatch):
    """The custom resources of one namespace."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._registry: ClusterRegistry | None = None
        self.namespace = settings.registry_namespace or ""
        self.client: KubeClient | None = None  # while a worker watches
        self.parsed: Mapping[ObjectId, Parsed] = {}  # every resource as it was seen last
        unknown = UnknownKeys("the registry has not been read from the Kubernetes API yet")
        self.snapshot = replace(EMPTY_SNAPSHOT, keys=unknown)

    @property
    def waiting_for(self) -> list[str]:
        """What was not read yet, with the reason where one is known."""
        return [] if self._registry is None else self._registry.waiting_for

    def load(self) -> None:
        """Check what can be checked without asking anybody. Raises SettingsInvalid."""
        check_cluster(self._settings)

    def refresh(self) -> None:
        """Nothing: each worker reads for itself."""

    async def run(self) -> None:
        """Watch until cancelled."""
        from gateway.app.kube import kube_client  # the Kubernetes client is needed in this mode only

        self.client = client = await asyncio.to_thread(kube_client, self._settings)
        try:
            await self._watch(client)
        finally:
            self.client = None
            client.close()

    async def _watch(self, client: KubeClient) -> None:
        from gateway.app.kube import watch_options
        from gateway.registry.cluster import ClusterRegistry, Listener
        from gateway.registry.statuswriter import StatusWriter

        settings = self._settings
        writer = StatusWriter(client, self.namespace, identity(settings), settings.registry_status_writes)

        def show(view: View) -> None:
            self.parsed = view.parsed
            writer.show(view)

        self._registry = ClusterRegistry(
            client,
            self.namespace,
            watch_options(settings),
            Listener(on_load=self._reloaded, on_seen=self._seen_at, on_view=show),
            self.state,
        )
        self._registry.routing_headers = frozenset(settings.routing_headers)
        writer.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._registry.run())
                tasks.create_task(self._compare_schemas(client))
        finally:
            await asyncio.shield(asyncio.to_thread(writer.stop, STOP_S))

    async def _compare_schemas(self, client: KubeClient) -> None:
        """Look now and then whether the definitions in the cluster are older than this version."""
        from gateway.registry.installed import PATH, missing_fields

        told: list[str] = []
        while True:
            try:
                missing = missing_fields(await asyncio.to_thread(client.get, PATH))
            except KubernetesFailure as error:
                _log.info("the definitions in the cluster could not be looked at: %s", error.text)
                await asyncio.sleep(SCHEMA_RETRY_S)
                continue
            if missing and missing != told:
                shown = ", ".join(missing[:SCHEMA_FIELDS_SHOWN])
                _log.warning("the definitions in the cluster are older than this version: they lack %s", shown)
            told = missing
            if self.metrics is not None:
                self.metrics.registry_schema_lacks(len(missing))
            await asyncio.sleep(SCHEMA_S)

    def _seen_at(self, heard_at: float) -> None:
        if self.metrics is not None:
            self.metrics.registry_seen(wall() - (monotonic() - heard_at))


def identity(settings: Settings) -> str:
    """Return the name of this process among all that may lead."""
    return f"{settings.pod_name or socket.gethostname()}-{os.getpid()}"


def check_cluster(settings: Settings) -> None:
    """Raises SettingsInvalid, one line for each thing that keeps the registry from being read in the cluster."""
    problems = list(_problems(settings))
    if problems:
        raise SettingsInvalid("\n".join(problems))


def _problems(settings: Settings) -> Iterator[str]:
    namespace = settings.registry_namespace
    own = own_namespace(settings.kubernetes_credentials_dir)
    if namespace is None:
        yield "LLM_GATEWAY_REGISTRY_NAMESPACE: expected the namespace of the custom resources, got nothing"
    elif namespace == own:
        yield (
            f"LLM_GATEWAY_REGISTRY_NAMESPACE: expected another namespace than the gateway's own, {own}: whoever may"
            " write scenarios must not reach the gateway's secrets"
        )
    if settings.kubernetes_config is None:
        if kubernetes_service() is None:
            yield (
                "LLM_GATEWAY_KUBERNETES_CONFIG: expected a kubeconfig file outside of a pod (KUBERNETES_SERVICE_HOST is"
                " not set)"
            )
        missing = [name for name in ("token", "ca.crt") if not (settings.kubernetes_credentials_dir / name).is_file()]
        if missing:
            yield (
                f"LLM_GATEWAY_KUBERNETES_CREDENTIALS_DIR: {settings.kubernetes_credentials_dir} has no"
                f" {' and no '.join(missing)}; does the pod have a service account's token?"
            )


def own_namespace(credentials: Path) -> str | None:
    """Return the namespace of this pod; None outside of one."""
    try:
        return (credentials / "namespace").read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
