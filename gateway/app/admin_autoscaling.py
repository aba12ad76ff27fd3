"""``GET /admin/v1/autoscaling``: what an autoscaler reads. Its names are those of the metrics, so in snake case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.telemetry.load import BackendLoad

if TYPE_CHECKING:
    from fastapi import APIRouter

    from gateway.app.fleet import FleetLoad
    from gateway.app.source import RegistryWatch


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackendAutoscaling(_Model):
    """One backend's part."""

    inflight_requests: int = Field(description="Attempts under way at it.")
    queued_requests: int = Field(description="Requests that wait for it to have room or to be ready.")


class Autoscaling(_Model):
    """How much work is under way."""

    scope: Literal["fleet", "replica"] = Field(
        description="fleet: every replica that shares the Redis; replica: there is no Redis, and this one alone counts."
    )
    replicas: int = Field(description="How many replicas the numbers are of.")
    inflight_requests: int = Field(description="Requests begun and not yet finished, those that wait included.")
    queued_requests: int = Field(description="Requests that wait for any backend.")
    backends: dict[str, BackendAutoscaling] = Field(description="Every backend of the registry, by name.")


def add_autoscaling(router: APIRouter, registry: RegistryWatch, fleet: FleetLoad) -> None:
    """Add the path."""

    @router.get("/autoscaling", tags=["autoscaling"], summary="Work under way")
    async def autoscaling() -> Autoscaling:
        """Requests in flight and waiting over all replicas; 503 where Redis is away, so that nothing scales down."""
        now = await fleet.total()
        loads = now.load.backends
        return Autoscaling(
            scope="fleet" if now.shared else "replica",
            replicas=now.replicas,
            inflight_requests=now.load.inflight,
            queued_requests=now.load.queued,
            backends={
                name: _backend(loads.get(name, BackendLoad())) for name in sorted({*registry.snapshot.backends, *loads})
            },
        )


def _backend(load: BackendLoad) -> BackendAutoscaling:
    return BackendAutoscaling(inflight_requests=load.inflight, queued_requests=load.queued)
