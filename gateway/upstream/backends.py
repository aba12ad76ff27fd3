"""What this process knows of each backend while it runs: how many calls are in flight, and its prepared head.

Kept by name over reloads of the registry, so that a changed backend does not forget its calls in flight.
"""

from __future__ import annotations

from gateway.dialects.openai.request import request_head
from gateway.errors import AttemptFailed
from gateway.model import Backend
from gateway.telemetry import Metrics

_CHAT_PATH = "/chat/completions"


class BackendState:
    """One backend's calls in flight, bounded by this process's share of its ``max_concurrent_requests``."""

    __slots__ = ("_bound", "_gauge", "_workers", "backend", "chat_head", "in_flight")

    def __init__(self, backend: Backend, metrics: Metrics, workers: int) -> None:
        self._gauge = metrics.backend_inflight(backend.name)
        self._workers = workers
        self.in_flight = 0
        self.adopt(backend)

    def adopt(self, backend: Backend) -> None:
        """Go on with the backend as the registry has it now."""
        self.backend = backend
        bound = backend.max_concurrent_requests
        self._bound = None if bound is None else max(1, bound // self._workers)
        self.chat_head = b"" if backend.origin is None else request_head(backend, _CHAT_PATH)

    def enter(self) -> None:
        """Take a place. Raises AttemptFailed (busy) if all are taken."""
        bound = self._bound
        if bound is not None and self.in_flight >= bound:
            raise AttemptFailed("busy", f"{bound} calls in flight")
        self.in_flight += 1
        self._gauge.value += 1

    def leave(self) -> None:
        """Give the place back; once for each ``enter``."""
        self.in_flight -= 1
        self._gauge.value -= 1


class Backends:
    """The states of all backends called so far; as many as the registry has ever named.

    ``workers`` processes, this one among them, share the bounds of the backends evenly.
    """

    def __init__(self, metrics: Metrics, workers: int = 1) -> None:
        self._metrics = metrics
        self._workers = workers
        self._states: dict[str, BackendState] = {}

    def state_of(self, backend: Backend) -> BackendState:
        """The state of ``backend``."""
        state = self._states.get(backend.name)
        if state is None:
            state = self._states[backend.name] = BackendState(backend, self._metrics, self._workers)
        elif state.backend is not backend:
            state.adopt(backend)
        return state
