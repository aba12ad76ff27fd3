"""The bound on a backend's calls in flight, shared by the workers of a replica."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.errors import AttemptFailed
from gateway.model import Backend, Origin
from gateway.telemetry import Metrics
from gateway.upstream import UpstreamLimits
from gateway.upstream.backends import Backends


def backend(bound: int | None) -> Backend:
    """A backend with this bound."""
    origin = Origin(scheme="http", host="h", port=80)
    return Backend(name="a", provider="openai", origin=origin, max_concurrent_requests=bound)


@pytest.mark.parametrize(("bound", "workers", "share"), [(8, 1, 8), (8, 4, 2), (9, 4, 2), (3, 4, 1), (1, 64, 1)])
def test_each_worker_has_its_even_share(bound: int, workers: int, share: int) -> None:
    """All of them together stay within the bound, except that each may make one call."""
    state = Backends(Metrics(version="test"), UpstreamLimits(workers=workers)).state_of(backend(bound))
    for _ in range(share):
        state.enter()
    with pytest.raises(AttemptFailed, match=f"{share} calls in flight") as caught:
        state.enter()
    assert caught.value.outcome == "busy"
    state.leave()
    state.enter()


def test_a_bound_that_changes_counts_at_once() -> None:
    """A reload keeps the calls in flight."""
    backends = Backends(Metrics(version="test"), UpstreamLimits(workers=2))
    state = backends.state_of(backend(None))
    for _ in range(3):
        state.enter()
    assert backends.state_of(backend(6)) is state
    with pytest.raises(AttemptFailed):
        state.enter()
    backends.state_of(backend(8)).enter()


def test_a_call_that_waits_keeps_the_head_of_its_own_version() -> None:
    """A reload meanwhile changes the head of later calls only."""
    backends = Backends(Metrics(version="test"), UpstreamLimits())
    before, after = (replace(backend(None), headers=((b"x-version", value),)) for value in (b"1", b"2"))
    state = backends.state_of(before)
    backends.state_of(after)
    assert b"x-version: 1" in state.head_of(before)
    assert b"x-version: 2" in state.head_of(after)
