"""A rolling restart under load, shorter than ``make soak`` has it: what clients see, never times."""

from __future__ import annotations

from bench import soak_restart
from bench.soak_restart import RestartPlan

PLAN = RestartPlan(streams=60, calls_per_s=60, connections=30, lag_s=0.4, pre_stop_s=2.0, delay_s=2.0, steady_s=0.5)


def test_no_client_notices_that_every_replica_was_replaced() -> None:
    """Two processes end as the kubelet ends pods, with streams open on each: no call fails, none is counted twice."""
    report = soak_restart.run(PLAN, lambda _: None)
    assert soak_restart.judge(report, lambda _: None) == []
    assert len(report.drained_s) == 2
    assert min(report.open_at_signal) >= PLAN.streams // 6
    assert report.tally.streams >= PLAN.streams
    assert report.caller.answered == report.caller.asked > PLAN.calls_per_s
    assert report.caller.told > 0
