"""What /readyz says."""

from __future__ import annotations

from gateway.app.readiness import Readiness


def test_reasons_follow_the_life_of_a_worker() -> None:
    """Starting, ready, draining; a registry that is not loaded is a reason at any time."""
    loaded = [False]
    readiness = Readiness(lambda: loaded[0])
    assert readiness.reasons() == ["starting", "registry not loaded"]
    loaded[0] = True
    readiness.listening = True
    assert readiness.reasons() == []
    readiness.draining = True
    assert readiness.reasons() == ["draining"]


def test_what_was_not_read_yet_is_waited_for() -> None:
    """A loaded registry whose backends' endpoints are not known answers nobody yet."""
    missing = ["endpointslices of models"]
    loaded = [False]
    readiness = Readiness(lambda: loaded[0], waiting_for=lambda: missing)
    readiness.listening = True
    assert readiness.reasons() == ["registry not loaded: waiting for endpointslices of models"]
    loaded[0] = True
    assert readiness.reasons() == ["waiting for endpointslices of models"]
    assert not readiness.informed
    missing.clear()
    assert readiness.reasons() == []
    assert readiness.informed
