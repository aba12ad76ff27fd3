"""What this process knows of each backend while it runs: calls in flight, who waits, and its prepared head.

Kept by name over reloads of the registry, so that a changed backend does not forget its calls in flight.
"""

from __future__ import annotations

from gateway.dialects.openai.request import request_head
from gateway.errors import AttemptFailed
from gateway.model import Backend
from gateway.telemetry import Metrics
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.queue import BackendQueue
from gateway.upstream.signing import Signer, SignerOf, no_signer

CHAT_PATH = "/chat/completions"
_HEADS_MAX = 16


class BackendState:
    """One backend's calls in flight, bounded by this process's share of its ``max_concurrent_requests``."""

    __slots__ = (
        "_bound",
        "_chat_head",
        "_gauge",
        "_heads",
        "_limits",
        "_metrics",
        "_signer",
        "_signer_of",
        "backend",
        "in_flight",
        "queue",
    )

    def __init__(
        self, backend: Backend, metrics: Metrics, limits: UpstreamLimits, signer_of: SignerOf = no_signer
    ) -> None:
        self._signer_of = signer_of
        self._gauge = metrics.backend_inflight(backend.name)
        self._metrics = metrics
        self._limits = limits
        self.in_flight = 0
        self.queue: BackendQueue | None = None  # from the first version of the backend that has one
        self.adopt(backend)

    def adopt(self, backend: Backend) -> None:
        """Go on with the backend as the registry has it now."""
        self.backend = backend
        bound, workers = backend.max_concurrent_requests, self._limits.workers
        self._bound = None if bound is None else max(1, bound // workers)
        self._chat_head = b"" if backend.origin is None else request_head(backend, CHAT_PATH)
        self._heads: dict[str, bytes] = {}
        self._signer = self._signer_of(backend)
        if backend.queue is not None:
            if self.queue is None:
                self.queue = BackendQueue(backend, self, self._metrics, self._limits.queue_probe_s)
            self.queue.adopt(max(1, backend.queue.max_waiting // workers), backend.queue.wait_s)
        if self.queue is not None:
            self.queue.release()

    def head_of(self, backend: Backend, path: str = CHAT_PATH) -> bytes:
        """The prepared head for this version of the backend, which a reload may have replaced while a call waited."""
        if backend is not self.backend:
            return request_head(backend, path)
        if path is CHAT_PATH:
            return self._chat_head
        head = self._heads.get(path)
        if head is None:
            head = request_head(backend, path)
            if len(self._heads) < _HEADS_MAX:  # a path may hold the model's name, of which scenarios bring several
                self._heads[path] = head
        return head

    @property
    def signs(self) -> bool:
        """Whether requests are signed, in the present version."""
        return self._signer is not None

    def signer_of(self, backend: Backend) -> Signer | None:
        """Who signs requests to this version of the backend; None where its headers say all."""
        return self._signer if backend is self.backend else self._signer_of(backend)

    @property
    def has_room(self) -> bool:
        """Whether a place is free."""
        return self._bound is None or self.in_flight < self._bound

    @property
    def is_half_empty(self) -> bool:
        """Whether less than half of the places are taken."""
        return self._bound is None or self.in_flight * 2 < self._bound

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
        if self.queue is not None:
            self.queue.release()


class Backends:
    """The states of all backends called so far; as many as the registry has ever named.

    The workers of this replica share the bounds of the backends evenly.
    """

    def __init__(self, metrics: Metrics, limits: UpstreamLimits, signer_of: SignerOf = no_signer) -> None:
        self._signer_of = signer_of
        self._metrics = metrics
        self._limits = limits
        self._states: dict[str, BackendState] = {}

    def state_of(self, backend: Backend) -> BackendState:
        """The state of ``backend``."""
        state = self._states.get(backend.name)
        if state is None:
            state = self._states[backend.name] = BackendState(backend, self._metrics, self._limits, self._signer_of)
        elif state.backend is not backend:
            state.adopt(backend)
        return state
