"""How much work is under way, as an autoscaler asks: requests in flight, and those that wait, by backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway.telemetry import families

if TYPE_CHECKING:
    from gateway.telemetry.families import Spec

LOAD: tuple[Spec, ...] = (families.INFLIGHT, families.BACKEND_INFLIGHT, families.BACKEND_QUEUED)
"""The gauges that make a load."""


class BackendLoad(msgspec.Struct, frozen=True, array_like=True):
    """Attempts under way at a backend, and requests that wait for it."""

    inflight: int = 0
    queued: int = 0

    def __add__(self, other: BackendLoad) -> BackendLoad:
        return BackendLoad(self.inflight + other.inflight, self.queued + other.queued)


class Load(msgspec.Struct, frozen=True, array_like=True):
    """The requests under way in one process, replica or fleet, and the backends that have any, by name."""

    inflight: int = 0
    backends: Mapping[str, BackendLoad] = {}

    @property
    def queued(self) -> int:
        """Requests that wait for any backend; each is in flight too."""
        return sum(backend.queued for backend in self.backends.values())


def load_of(values: Iterable[tuple[str, str, int]]) -> Load:
    """The load that values of its gauges make, each given by the gauge's name, its backend and its number."""
    inflight = 0
    backends: dict[str, BackendLoad] = {}
    for name, backend, number in values:
        if name == families.INFLIGHT.name:
            inflight += number
        elif number:
            queued = name == families.BACKEND_QUEUED.name
            more = BackendLoad(queued=number) if queued else BackendLoad(inflight=number)
            backends[backend] = backends.get(backend, BackendLoad()) + more
    return Load(inflight, backends)


def total(loads: Iterable[Load]) -> Load:
    """What several make together."""
    inflight = 0
    backends: dict[str, BackendLoad] = {}
    for load in loads:
        inflight += load.inflight
        for name, backend in load.backends.items():
            backends[name] = backends.get(name, BackendLoad()) + backend
    return Load(inflight, backends)
