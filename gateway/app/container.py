"""The composition root: every object that serves, built once from the settings and handed to who needs it.

Invariant: nothing below reaches for an object that it was not given, and what ``start`` began ``close`` ends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.app.readiness import Readiness
from gateway.app.tasks import BackgroundTasks
from gateway.edge.build import EdgeOptions, build
from gateway.edge.call import EdgeLimits
from gateway.edge.connections import ConnectionLimits
from gateway.pipeline import Pipeline
from gateway.settings import Settings
from gateway.telemetry import AccessLog, Metrics
from gateway.upstream import UpstreamClient, UpstreamLimits
from gateway.upstream.call import Caller

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from gateway.app.launch import Inherited

FLUSH_S: Final = 0.5
"""How often a worker publishes its numbers to the others."""


class Container:
    """Everything that serves in one process; made inside its event loop."""

    def __init__(self, inherited: Inherited) -> None:
        settings = self.settings = inherited.settings
        self.registry = inherited.registry
        self.metrics = Metrics(
            version=__version__, max_tenants=settings.metrics_max_tenants, multiprocess_dir=inherited.metrics_folder
        )
        inherited.log_loss.metrics = self.metrics
        self.access_log = AccessLog(inherited.writer, environment=settings.environment)
        limits = upstream_limits(settings)
        self.upstream = UpstreamClient(limits)
        caller = Caller(self.upstream, limits, self.metrics)
        self.pipeline = Pipeline(self.registry, caller, settings.max_attempts)
        self.app: ASGIApp = build(self.pipeline, self.metrics, self.access_log, edge_options(settings))
        self.readiness = Readiness(lambda: self.registry.snapshot.generation > 0)
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Begin what runs in the background."""
        self.registry.serves(self.metrics)
        self._tasks.keep_running("registry watch", self.registry.run)
        if self.metrics.multiprocess_dir is not None:
            self._tasks.keep_running("publish metrics", self._publish_metrics)

    async def close(self) -> None:
        """End it, close every connection to a backend and write what is left of metrics and log."""
        await self._tasks.close()
        self.upstream.close()
        self.metrics.close()
        await asyncio.to_thread(self.access_log.flush)

    async def _publish_metrics(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.metrics.flush()


def upstream_limits(settings: Settings) -> UpstreamLimits:
    """The bounds of the upstream client."""
    return UpstreamLimits(
        max_connections=settings.upstream_max_connections,
        max_idle_connections=settings.upstream_max_idle_connections,
        idle_s=settings.upstream_idle_s,
        connection_max_age_s=settings.upstream_connection_max_age_s,
        dns_ttl_s=settings.upstream_dns_ttl_s,
        max_header_bytes=settings.upstream_max_header_bytes,
        max_header_count=settings.upstream_max_header_count,
        max_body_bytes=settings.upstream_max_body_bytes,
        max_error_body_bytes=settings.upstream_max_error_body_bytes,
        max_event_bytes=settings.upstream_max_event_bytes,
        ca_file=settings.upstream_ca_file,
        workers=settings.workers,
    )


def edge_options(settings: Settings) -> EdgeOptions:
    """How the data port behaves."""
    return EdgeOptions(
        limits=EdgeLimits(
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.client_body_timeout_s,
            max_top_level_fields=settings.max_top_level_fields,
        ),
        trusted_proxies=settings.trusted_proxies,
        cors_allow_origins=settings.cors_allow_origins,
        default_scenario=settings.default_scenario,
        expose_backend=settings.expose_backend,
        docs=settings.docs,
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    """The bounds of client connections on the data port."""
    return ConnectionLimits(
        max_header_bytes=settings.max_header_bytes,
        max_header_count=settings.max_header_count,
        max_connections=settings.max_connections,
        header_timeout_s=settings.client_header_timeout_s,
        keep_alive_s=settings.client_keep_alive_s,
        write_timeout_s=settings.client_write_timeout_s,
        max_age_s=settings.client_connection_max_age_s,
    )
