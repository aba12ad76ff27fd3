"""One leader among many: who takes the lease, who waits, and when it changes hands."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.errors import KubernetesFailure
from gateway.registry import lease as module
from gateway.registry.lease import DURATION_S, Lease


class Server:
    """One Lease, replaced by version as an API server does."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away = False

    def get(self, path: str) -> Any:
        self._check()
        if self.lease is None:
            raise KubernetesFailure("404", status=404)
        return copy.deepcopy(self.lease)

    def request(self, method: str, path: str, query: Any = None, body: object = None) -> Any:
        self._check()
        assert isinstance(body, dict)
        if method == "POST" and self.lease is not None:
            raise KubernetesFailure("409", status=409)
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            raise KubernetesFailure("409", status=409)
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.lease

    def _check(self) -> None:
        if self.away:
            raise KubernetesFailure("no answer")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as its only element."""
    clock = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "wall", lambda: clock[0] + 1e9)
    return clock


def test_the_first_leads_the_others_wait_and_a_release_hands_over_at_once(now: list[float]) -> None:
    """A clean end leaves no gap."""
    server = Server()
    one, two = Lease(server, "registry", "one"), Lease(server, "registry", "two")
    assert one.hold()
    assert not two.hold()
    assert (one.leads, two.leads) == (True, False)
    now[0] += 10
    assert one.hold()
    one.release()
    assert not one.leads
    assert two.hold()
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1


def test_a_leader_that_died_is_replaced_after_its_duration(now: list[float]) -> None:
    """By the clock of who watches, from the last renewal that it saw."""
    server = Server()
    one, two = Lease(server, "registry", "one"), Lease(server, "registry", "two")
    one.hold()
    assert not two.hold()
    now[0] += DURATION_S - 1
    assert not two.hold()
    now[0] += 2
    assert two.hold()
    assert not one.leads
    assert not one.hold()


def test_a_leader_that_cannot_renew_stops_before_another_may_begin(now: list[float]) -> None:
    """It does not lead any more when two thirds of the duration are over."""
    server = Server()
    one = Lease(server, "registry", "one")
    one.hold()
    server.away = True
    now[0] += DURATION_S * 2 / 3 - 1
    with pytest.raises(KubernetesFailure):
        one.hold()
    assert one.leads
    now[0] += 2
    assert not one.leads


def test_of_two_who_take_it_at_once_one_gets_it(now: list[float]) -> None:
    """The write names the version that was seen."""
    server = Server()
    one, two = Lease(server, "registry", "one"), Lease(server, "registry", "two")
    one.hold()
    one.release()
    seen = server.get("")
    assert two.hold()
    server_get, server.get = server.get, lambda path: seen  # type: ignore[method-assign]
    assert not one.hold()
    server.get = server_get  # type: ignore[method-assign]
    assert two.leads
