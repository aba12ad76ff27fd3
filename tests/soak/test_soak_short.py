"""Short cuts of the soak: errors, order, bounds and leaks, never times or memory."""

from __future__ import annotations

import pytest

from bench import soak, soak_canary, soak_keys, soak_limits, soak_reload, soak_sharing, soak_streams
from bench.soak_bounds import LimitsPlan, Rate
from bench.soak_canary import FAILING, SLOW, CanaryPlan
from bench.soak_keys import KeysPlan
from bench.soak_reload import ReloadPlan
from bench.soak_sharing import SharingPlan
from bench.soak_streams import SoakPlan

PLAN = SoakPlan(streams=100, idle=200, asked=50, seconds=5.0)


def test_streams_and_idle_connections_survive_together() -> None:
    """100 streams at once for 5 s beside 200 idle connections: every byte in order, nobody cut off, nothing left."""
    report = soak_streams.run(PLAN, lambda _: None)
    assert report.problems == []
    assert report.tally.streams >= PLAN.streams


def test_no_limit_gives_too_much_to_callers_of_several_gateways() -> None:
    """40 callers at ten times every limit: no bound is passed, the ledger is right, no other tenant notices."""
    report = soak_limits.run(LimitsPlan(gateways=2, callers=40, others=2, seconds=4.0, alone_s=0.5), lambda _: None)
    assert report.problems == []
    assert len(report.outcomes) == 5
    assert all(0 < outcome.admitted < outcome.asked for outcome in report.outcomes)
    assert report.busy.of_status(429) > report.busy.of_status(200)
    assert report.others.of_status(200) == len(report.others.latencies_s) > 0


def test_wrong_keys_are_all_refused_alike_and_leave_nothing() -> None:
    """10,000 of every kind: one answer for all of them, while a good caller is served."""
    report = soak_keys.run(KeysPlan(keys=10_000, connections=4), lambda _: None)
    assert report.problems == []
    assert report.refused == 10_000
    assert report.good.of_status(200) > 0


def test_followers_of_a_shared_call_get_its_bytes() -> None:
    """At both processes, time and again, from one call of the backend."""
    report = soak_sharing.run(SharingPlan(rounds=4, followers=6), lambda _: None)
    assert report.problems == []
    assert (len(report.near_s), len(report.far_s)) == (12, 12)


def test_no_request_has_parts_of_two_loads_of_the_registry() -> None:
    """15 reloads under load: no error, one mark and one generation per request."""
    report = soak_reload.run(ReloadPlan(reloads=15, per_s=60.0, callers=20), lambda _: None)
    assert report.problems == []
    assert report.generations >= 15


def test_bad_canaries_end_by_themselves_and_healthy_ones_do_not() -> None:
    """Over two gateways, one that fails and one that is slow, beside two that are well."""
    report = soak_canary.run(CanaryPlan(healthy=2, seconds=16.0), lambda _: None)
    assert report.problems == []
    assert set(report.withdrawn) == set(report.took_s) == {FAILING, SLOW}


def test_the_soak_sees_a_rate_that_is_exceeded_for_a_moment_only() -> None:
    """Two calls at once and one each 100 ms are allowed."""
    rate = Rate("calls", "requests", "second", amount=10, burst=2)
    assert not rate.is_exceeded([5000, 5000, 5100, 5200, 9000, 9000])
    assert rate.is_exceeded([5000, 5000, 5099, 5200, 9000, 9000])
    assert rate.is_exceeded([5000, 9000, 9000, 9000, 15000])


def test_the_command_runs_what_it_is_told_and_fails_where_something_did_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every part by default, in order, and the others too where one fails; its name and its problems are printed."""
    ran: list[str] = []

    def part(name: str, *problems: str) -> None:
        def run(*_: object) -> list[str]:
            ran.append(name)
            return list(problems)

        monkeypatch.setitem(soak.PARTS, name, run)

    part("streams")
    part("limits", "one call too many")
    for name in ("keys", "sharing", "reload", "canary", "restart"):
        part(name)
    assert soak.main([]) == 1
    assert ran == ["streams", "limits", "keys", "sharing", "reload", "canary", "restart"]
    assert capsys.readouterr().out == "limits: PROBLEM: one call too many\nsoak failed: limits\n"
    assert soak.main(["--part", "keys", "--part", "streams"]) == 0
    assert ran[7:] == ["streams", "keys"]
