"""Which endpoints of a Service take new calls, kept current by watching EndpointSlices.

One list/watch loop per namespace (``gateway.kube.listwatch``), each in a thread of its own, writes what it knows in one
assignment; whoever calls reads it on the event loop. Invariant: while the API server is away the endpoints known last
go on being used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from gateway.model import Endpoint, Service
from gateway.routing.endpoints import SERVICE_LABEL, Slice, pruned, ready_endpoints, service_name

if TYPE_CHECKING:
    from gateway.kube.listwatch import Object, Objects

STOP_S: Final = 1.0
"""How long the end of the process waits for each thread."""

_NO_SLICES: Final[tuple[Slice, ...]] = ()


class Loop(Protocol):
    """A list/watch loop. ``failure`` is what keeps it from being up to date."""

    @property
    def failure(self) -> Exception | None:
        """None where nothing does."""

    def start(self) -> None:
        """Begin."""

    def stop(self, timeout_s: float = 0.0) -> None:
        """End."""


Told = Callable[["Objects"], None]
Keep = Callable[["Object"], "Object | None"]
NewLoop = Callable[[str, str, Told, Keep], Loop]
"""Makes the loop of a collection: its path, its label selector, who is told of changes, what is kept of each object."""


class Discovery:
    """The endpoints of the Services of ``namespaces``."""

    def __init__(self, namespaces: Sequence[str]) -> None:
        self._namespaces = namespaces
        self._slices: dict[str, Mapping[str, tuple[Slice, ...]]] = {}  # by namespace, by Service
        self._ready: dict[Service, tuple[tuple[Slice, ...], tuple[Endpoint, ...]]] = {}
        self._loops: dict[str, Loop] = {}

    def start(self, new_loop: NewLoop) -> None:
        """Begin to watch."""
        for namespace in self._namespaces:
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            loop = self._loops[namespace] = new_loop(path, SERVICE_LABEL, partial(self.changed, namespace), pruned)
            loop.start()

    def stop(self) -> None:
        """End every watch; what is known stays."""
        loops, self._loops = self._loops, {}
        for loop in loops.values():
            loop.stop()
        for loop in loops.values():
            loop.stop(STOP_S)

    @property
    def waiting_for(self) -> list[str]:
        """What was not read yet and has not failed either, as a start has to wait for it."""
        loops = self._loops
        unknown = [namespace for namespace in self._namespaces if namespace not in self._slices]
        waits = [each for each in unknown if each not in loops or loops[each].failure is None]
        return [f"endpointslices of {namespace}" for namespace in waits]

    def changed(self, namespace: str, objects: Objects) -> None:
        """These are all slices of a namespace now. Called in the thread of its loop."""
        by_service: dict[str, list[Slice]] = {}
        for piece in objects.values():
            by_service.setdefault(service_name(piece), []).append(piece)
        known = self._slices.get(namespace, {})
        fresh: dict[str, tuple[Slice, ...]] = {}
        for name, pieces in by_service.items():
            before = known.get(name, _NO_SLICES)
            fresh[name] = before if before == tuple(pieces) else tuple(pieces)
        self._slices[namespace] = fresh

    def ready(self, service: Service) -> tuple[Endpoint, ...]:
        """Those that take new calls; the same tuple for as long as they are the same."""
        slices = self._slices.get(service.namespace, {}).get(service.name, _NO_SLICES)
        known = self._ready.get(service)
        if known is not None and known[0] is slices:
            return known[1]
        endpoints = ready_endpoints(slices, service)
        if known is not None and known[1] == endpoints:
            endpoints = known[1]
        self._ready[service] = (slices, endpoints)
        return endpoints

    def knows(self, namespace: str) -> bool:
        """Whether the slices of a namespace have been read at all."""
        return namespace in self._slices
