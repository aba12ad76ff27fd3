"""The life of canaries in one process, with a scripted Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from gateway.errors import RedisRefused, RedisUnanswered, RedisUnavailable
from gateway.model import Scenario, Snapshot
from gateway.redis.script import Script
from gateway.rollout import RolloutOptions, Rollouts, Shadows
from gateway.telemetry import Metrics, RequestRecord, RolloutCounts
from tests.unit.rollout.values import principal, record, request, scenario, snapshot

RUNS = [b"since", b"1000", b"pane", b"0", b"opened", b"1000"]
WITHDRAWN = [*RUNS, b"withdrawn", b"2000", b"reason", b"it was bad"]
BAD = [*RUNS, b"0:requests", b"100", b"0:failures", b"100", b"t:requests", b"100", b"t:base.requests", b"7"]


class Registry:
    """What serves."""

    def __init__(self, *scenarios: Scenario) -> None:
        self.snapshot: Snapshot = snapshot(*scenarios)

    def change(self, *scenarios: Scenario) -> None:
        """Another load."""
        self.snapshot = snapshot(*scenarios)


class ScriptedLane:
    """Answers each script with the next of ``answers``, the last one again and again; remembers the arguments."""

    def __init__(self, *answers: list[bytes] | Exception) -> None:
        self.available = True
        self.answers = list(answers)
        self.batches: list[dict[str, int]] = []
        self.reasons: list[str] = []

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """See LaneLike."""
        self.reasons.append(str(args[4]))
        self.batches.append(dict(zip(map(str, args[5::2]), map(int, args[6::2]), strict=True)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def rollouts_of(registry: Registry, lane: ScriptedLane | None) -> Rollouts:
    """The rollouts of a process; shadows have tests of their own."""
    return Rollouts(registry, lane, RolloutOptions(), RolloutCounts(Metrics(version="0")), cast("Shadows", None))


def chosen(rollouts: Rollouts, asked: Scenario) -> str:
    """The variant that a request gets, as its record says, too."""
    noted = RequestRecord()
    found = rollouts.choose(asked, principal(), request(), noted)
    assert found.variant == noted.variant
    assert noted.rollout == "r1"
    return noted.variant


def gauge(rollouts: Rollouts) -> float:
    """What the metric shows of the scenario ``chat``."""
    cells = {spec.name: numbers for spec, numbers in rollouts._counts._numbers.items()}
    return cells["llm_gateway_canary_withdrawn"].child("chat").value


CHAT = scenario()


async def _waits(answer: Exception) -> None:
    lane = ScriptedLane(answer, RUNS)
    rollouts = rollouts_of(Registry(CHAT), lane)
    assert chosen(rollouts, CHAT) == "base"
    await rollouts.synchronize()
    assert chosen(rollouts, CHAT) == "base"
    assert [each.state for each in rollouts.status()] == ["waiting"]
    await rollouts.synchronize()
    assert chosen(rollouts, CHAT) == "canary"
    assert [each.state for each in rollouts.status()] == ["running"]


@pytest.mark.parametrize("answer", [RedisUnavailable("away"), RedisUnanswered("late"), RedisRefused("ERR no")])
def test_nothing_goes_to_a_canary_before_redis_has_said_that_it_runs(answer: Exception) -> None:
    """A process that has just started may not know that it was withdrawn."""
    asyncio.run(_waits(answer))


def test_a_canary_that_was_withdrawn_stays_so_for_a_process_that_starts(caplog: pytest.LogCaptureFixture) -> None:
    """It learns the reason, tells it once, and gives it no call."""

    async def run() -> None:
        rollouts = rollouts_of(Registry(CHAT), ScriptedLane(WITHDRAWN))
        for _ in range(3):
            await rollouts.synchronize()
            assert chosen(rollouts, CHAT) == "base"
        (status,) = rollouts.status()
        assert (status.state, status.reason, status.since) == ("withdrawn", "it was bad", 2.0)
        assert gauge(rollouts) == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert [each.message for each in caplog.records] == ["the canary of scenario chat is withdrawn: it was bad"]


def test_what_all_replicas_saw_is_judged_and_the_end_told_at_once() -> None:
    """Evidence from others alone is enough; the second exchange of the same turn carries the reason."""

    async def run() -> None:
        lane = ScriptedLane(RUNS, BAD, WITHDRAWN)
        rollouts = rollouts_of(Registry(CHAT), lane)
        await rollouts.synchronize()
        assert chosen(rollouts, CHAT) == "canary"
        await rollouts.synchronize()
        assert chosen(rollouts, CHAT) == "base"
        assert lane.reasons[:2] == ["", ""]
        assert lane.reasons[2].startswith("100 of 100 calls failed")
        await rollouts.synchronize()
        assert lane.reasons[3:] == [""]  # it is written down

    asyncio.run(run())


def test_redis_is_told_again_where_it_has_forgotten() -> None:
    """A server that lost its data does not bring a withdrawn canary back."""

    async def run() -> None:
        lane = ScriptedLane(WITHDRAWN, RUNS, WITHDRAWN)
        rollouts = rollouts_of(Registry(CHAT), lane)
        for _ in range(3):
            await rollouts.synchronize()
            assert chosen(rollouts, CHAT) == "base"
        assert lane.reasons == ["", "", "it was bad"]

    asyncio.run(run())


def test_another_content_of_the_scenario_is_another_rollout() -> None:
    """It runs once Redis says so; what is still in flight of the old one counts nowhere."""

    async def run() -> None:
        lane = ScriptedLane(WITHDRAWN, RUNS)
        registry = Registry(CHAT)
        rollouts = rollouts_of(registry, lane)
        await rollouts.synchronize()
        changed = scenario(rollout="r2")
        registry.change(changed)
        await rollouts.synchronize()
        assert rollouts.choose(changed, principal(), request(), RequestRecord()).variant == "canary"
        assert gauge(rollouts) == 0
        rollouts.finished(record(502))
        await rollouts.synchronize()
        assert lane.batches[-1] == {}

    asyncio.run(run())


def test_a_scenario_without_its_canary_is_shown_as_running() -> None:
    """The metric of a canary that is gone does not stay at 1, and nothing is asked for it."""

    async def run() -> None:
        lane = ScriptedLane(WITHDRAWN)
        registry = Registry(CHAT)
        rollouts = rollouts_of(registry, lane)
        await rollouts.synchronize()
        registry.change(replace(CHAT, canary=None))
        await rollouts.synchronize()
        assert gauge(rollouts) == 0
        assert list(rollouts.status()) == []
        assert len(lane.batches) == 1

    asyncio.run(run())


def test_counts_are_sent_once_in_one_batch() -> None:
    """Both variants; what was not executed is sent again, what perhaps was is not."""

    async def run() -> None:
        lane = ScriptedLane(RUNS, RedisUnavailable("away"), RedisUnanswered("late"), RUNS)
        rollouts = rollouts_of(Registry(CHAT), lane)
        await rollouts.synchronize()
        for status in (200, 200, 502):
            rollouts.finished(record(status))
        rollouts.finished(record(variant="base"))
        for _ in range(2):
            await rollouts.synchronize()
        rollouts.finished(record())
        await rollouts.synchronize()
        first = {"requests": 3, "failures": 1, "base.requests": 1}
        assert lane.batches == [{}, first, first, {"requests": 1}]

    asyncio.run(run())


def test_without_redis_what_this_process_sees_is_judged() -> None:
    """The canary runs at once, and is withdrawn by itself."""

    async def run() -> None:
        rollouts = rollouts_of(Registry(CHAT), None)
        await rollouts.synchronize()
        assert chosen(rollouts, CHAT) == "canary"
        for _ in range(60):
            rollouts.finished(record(502))
        await rollouts.synchronize()
        assert chosen(rollouts, CHAT) == "base"
        (status,) = rollouts.status()
        assert (status.state, status.counts["failures"]) == ("withdrawn", 60)

    asyncio.run(run())


def test_while_redis_is_away_this_process_judges_alone_and_tells_later() -> None:
    """It does not wait for Redis to withdraw what it sees failing; the counts and the reason arrive when it is back."""

    async def run() -> None:
        lane = ScriptedLane(RUNS)
        rollouts = rollouts_of(Registry(CHAT), lane)
        await rollouts.synchronize()
        lane.available = False
        for calls in (10, 10, 40):  # what is told later counts here only once
            assert chosen(rollouts, CHAT) == "canary"
            for _ in range(calls):
                rollouts.finished(record(502))
            await rollouts.synchronize()
        assert chosen(rollouts, CHAT) == "base"
        assert len(lane.batches) == 1
        lane.available = True
        await rollouts.synchronize()
        assert lane.batches[1] == {"requests": 60, "failures": 60}
        assert lane.reasons[1].startswith("60 of 60 calls failed")

    asyncio.run(run())


def test_an_abort_that_is_not_there_withdraws_nothing() -> None:
    """A canary without bounds is the operator's to judge."""

    async def run() -> None:
        free = scenario(abort=None)
        rollouts = rollouts_of(Registry(free), ScriptedLane(BAD))
        await rollouts.synchronize()
        assert chosen(rollouts, free) == "canary"
        (status,) = rollouts.status()
        assert (status.counts, status.base) == ({"requests": 100}, {"requests": 7})

    asyncio.run(run())
