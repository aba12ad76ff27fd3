"""Who writes statuses, how fast, and what a failure does."""

from __future__ import annotations

import threading
import time
from typing import Any

from gateway.errors import KubernetesFailure
from gateway.registry.cluster import View
from gateway.registry.credentials import ClusterSecrets
from gateway.registry.load import load_claims
from gateway.registry.resources import claims_of, parse_all
from gateway.registry.statuswriter import StatusWriter
from tests.support.waiting import eventually


class Server:
    """A Lease and the statuses that were written; ``failures`` fail first."""

    def __init__(self, holder: str = "") -> None:
        self.lease: dict[str, Any] | None = None
        if holder:
            self.lease = {
                "metadata": {},
                "spec": {"holderIdentity": holder, "renewTime": "x", "leaseDurationSeconds": 60},
            }
        self.asked = 0
        self.written: list[tuple[float, str]] = []
        self.failures: list[KubernetesFailure] = []
        self.lock = threading.Lock()

    def get(self, path: str) -> Any:
        self.asked += 1
        if self.lease is None:
            raise KubernetesFailure("404", status=404)
        return self.lease

    def request(
        self, method: str, path: str, query: Any = None, body: Any = None, content_type: str = "application/json"
    ) -> Any:
        if "leases" in path:
            self.lease = body
            return body
        if self.failures:
            raise self.failures.pop(0)
        assert (method, content_type, list(body)) == ("PATCH", "application/merge-patch+json", ["status"])
        self.written.append((time.monotonic(), path))
        return body


def view(count: int) -> View:
    """So many backends without a status."""
    backends = {
        ("registry", f"b-{number}"): {
            "metadata": {"name": f"b-{number}", "namespace": "registry", "uid": str(number), "generation": 1},
            "spec": {"provider": "echo"},
        }
        for number in range(count)
    }
    objects: Any = {"Backend": backends, "Prompt": {}, "Scenario": {}, "Tenant": {}, "ApiKey": {}}
    parsed = parse_all(objects, {})
    return View(parsed=parsed, result=load_claims(claims_of(parsed), ClusterSecrets(), None, 1.0))


def test_the_leader_writes_each_status_no_faster_than_allowed() -> None:
    """Ten a second means at least 0.4 s for five."""
    server = Server()
    writer = StatusWriter(server, "registry", "me", per_second=10)
    writer.start()
    writer.show(view(5))
    eventually(lambda: len(server.written) >= 5, 10)
    writer.stop(5)
    times = [at for at, _ in server.written[:5]]
    assert times[-1] - times[0] >= 0.39
    assert {path.rpartition("backends/")[2] for _, path in server.written[:5]} == {f"b-{n}/status" for n in range(5)}
    assert server.lease is not None
    assert "holderIdentity" not in server.lease["spec"], "the next one may lead at once"


def test_who_does_not_lead_writes_nothing() -> None:
    """It asks for the lease, and waits."""
    server = Server(holder="another")
    writer = StatusWriter(server, "registry", "me", per_second=1000)
    writer.start()
    writer.show(view(3))
    eventually(lambda: server.asked >= 1, 10)
    writer.stop(5)
    assert server.written == []
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == "another"


def test_a_failed_write_is_told_once_and_made_up_for() -> None:
    """One that is refused keeps nobody else from being written; one that is gone is no failure."""
    server = Server()
    server.failures = [KubernetesFailure("500", status=500), KubernetesFailure("404", status=404)]
    writer = StatusWriter(server, "registry", "me", per_second=1000)
    writer.start()
    writer.show(view(3))
    eventually(lambda: len(server.written) >= 1, 10)
    writer.show(view(3))
    eventually(lambda: len({path for _, path in server.written}) == 3, 10)
    writer.stop(5)
