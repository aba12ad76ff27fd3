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
