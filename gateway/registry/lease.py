"""One leader among the processes of all replicas, by a Lease of the Kubernetes API.

The protocol is that of client-go's leader election: who holds the Lease renews it; who does not takes it over when it
was not renewed for its duration by the own monotonic clock, with a write that names the version it has seen. So two
leaders at once need one that is slower than the duration; what leaders write here is the same whoever writes it.

Not thread-safe: one thread asks. Raises KubernetesFailure wherever the API server is asked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Protocol

from gateway.clock import monotonic, wall
from gateway.errors import KubernetesFailure

LEASE_NAME: Final = "llm-gateway-registry"
DURATION_S: Final = 30
"""How long a leader that says nothing is still believed to lead."""

RENEW_S: Final = 10.0
"""How often the leader renews, and how often the others look."""

_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


class Client(Protocol):
    """What this needs of the client."""

    def get(self, path: str) -> Any:
        """Return what is at a path. Raises KubernetesFailure."""

    def request(self, method: str, path: str, query: Any = None, body: object = None) -> Any:
        """Make one request. Raises KubernetesFailure."""


class Lease:
    """The Lease of one namespace as this process sees it; ``identity`` names the process among all others."""

    def __init__(self, client: Client, namespace: str, identity: str) -> None:
        self._client = client
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._identity = identity
        self._renewed_at: float | None = None  # monotonic, of our own last renewal
        self._seen: tuple[str, str] | None = None  # whose lease was seen last, as of which renewal
        self._seen_at = 0.0

    @property
    def leads(self) -> bool:
        """Whether this process leads, and is sure of it for a third of the duration."""
        return self._renewed_at is not None and monotonic() - self._renewed_at < DURATION_S * 2 / 3

    def hold(self) -> bool:
        """Renew the lease, or take it where nobody holds it; tell whether this process leads now."""
        asked_at = monotonic()
        try:
            held = self._client.get(f"{self._path}/{LEASE_NAME}")
        except KubernetesFailure as error:
            if error.status != _NOT_FOUND:
                raise
            return self._write("POST", self._path, {"metadata": {"name": LEASE_NAME}}, asked_at)
        if self._belongs_to_other(held["spec"], asked_at):
            self._renewed_at = None
            return False
        return self._write("PUT", f"{self._path}/{LEASE_NAME}", held, asked_at)

    def release(self) -> None:
        """Let the next one lead at once, where this process leads."""
        if not self.leads:
            return
        held = self._client.get(f"{self._path}/{LEASE_NAME}")
        if held["spec"].get("holderIdentity") == self._identity:
            self._renewed_at = None
            spec = {name: value for name, value in held["spec"].items() if name != "holderIdentity"}
            self._client.request("PUT", f"{self._path}/{LEASE_NAME}", None, {**held, "spec": spec})

    def _belongs_to_other(self, spec: dict[str, Any], now: float) -> bool:
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return False
        renewal = (holder, str(spec.get("renewTime")))
        if renewal != self._seen:
            self._seen, self._seen_at = renewal, now
        return now - self._seen_at < (spec.get("leaseDurationSeconds") or DURATION_S)

    def _write(self, method: str, path: str, held: dict[str, Any], asked_at: float) -> bool:
        before = held.get("spec", {})
        mine = before.get("holderIdentity") == self._identity
        now = datetime.fromtimestamp(wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if mine or not before else 1),
        }
        body = {**held, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        try:
            self._client.request(method, path, None, body)
        except KubernetesFailure as error:
            if error.status != _CONFLICT:
                raise
            self._renewed_at = None
            return False
        self._renewed_at = asked_at
        return True
