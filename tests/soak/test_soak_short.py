"""A short cut of the soak: errors, order and leaks, never times or memory."""

from __future__ import annotations

from bench.soak import SoakPlan, run

PLAN = SoakPlan(streams=100, idle=200, asked=50, seconds=5.0)


def test_streams_and_idle_connections_survive_together() -> None:
    """100 streams at once for 5 s beside 200 idle connections: every byte in order, nobody cut off, nothing left."""
    report = run(PLAN, lambda _: None)
    assert report.problems == []
    assert report.tally.streams >= PLAN.streams
