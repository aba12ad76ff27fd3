"""Evidence kept in Redis and in one process: one body of tests over both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from gateway.redis.lane import RedisLane
from gateway.rollout.evidence import PANES, Batch, Evidence
from gateway.rollout.local import LocalEvidence
from gateway.rollout.shared import SharedEvidence
from tests.support.redis_lane import lane_to, until_answered
from tests.support.valkey import Valkey


class Store(Protocol):
    """What both are."""

    async def exchange(self, batch: Batch) -> Evidence:
        """Add, and tell."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A server of this module's own."""
    with Valkey() as server:
        yield server


@asynccontextmanager
async def store(kind: str, valkey: Valkey, pane_s: float) -> AsyncIterator[Store]:
    """A store of a kind."""
    if kind == "local":
        yield LocalEvidence(pane_s)
        return
    async with lane_to(valkey.url) as lane:
        await until_answered(lane)
        await lane.send("FLUSHALL")
        yield SharedEvidence(lane, pane_s)


def over(kind: str, valkey: Valkey, test: Callable[[Store], Awaitable[None]], pane_s: float = 0.0) -> None:
    """Run a test over a store; its panes last no longer than their calls unless ``pane_s`` says so."""

    async def run() -> None:
        async with store(kind, valkey, pane_s) as found:
            await test(found)

    asyncio.run(run())


def batch(reason: str = "", rollout: str = "r1", least: int = 10, **counts: int) -> Batch:
    """What one process tells."""
    named = {name.replace("base_", "base."): value for name, value in counts.items()}
    return Batch(scenario="chat", rollout=rollout, min_requests=least, counts=named, reason=reason)


KINDS = pytest.mark.parametrize("kind", ["local", "shared"])


@KINDS
def test_counts_add_up_and_the_base_is_in_no_pane(kind: str, valkey: Valkey) -> None:
    """Totals of both variants, panes of the canary; each rollout for itself."""

    async def test(found: Store) -> None:
        await found.exchange(batch(requests=3, failures=1, h4=2, base_requests=7))
        seen = await found.exchange(batch(requests=2, base_requests=1))
        assert dict(seen.totals) == {"requests": 5, "failures": 1, "h4": 2, "base.requests": 8}
        assert [dict(pane) for pane in seen.panes] == [{"requests": 5, "failures": 1, "h4": 2}]
        assert seen.since > 1_700_000_000
        assert (seen.withdrawn_at, seen.reason) == (None, "")
        assert dict((await found.exchange(batch(rollout="r2"))).totals) == {}

    over(kind, valkey, test)


@KINDS
def test_a_pane_ends_when_it_has_enough_and_six_are_kept(kind: str, valkey: Valkey) -> None:
    """The newest comes first; totals go on."""

    async def test(found: Store) -> None:
        for number in range(1, 9):
            await found.exchange(batch(requests=10, failures=number))
        seen = await found.exchange(batch(requests=10, failures=9))
        assert [pane["failures"] for pane in seen.panes] == [9, 8, 7, 6, 5, 4]
        assert len(seen.panes) == PANES
        assert seen.totals["requests"] == 90

    over(kind, valkey, test)


@KINDS
def test_a_pane_goes_on_until_it_has_enough(kind: str, valkey: Valkey) -> None:
    """However long it lasts; and it lasts its time however many calls there are."""

    async def few(found: Store) -> None:
        for _ in range(4):
            await found.exchange(batch(requests=1))
        seen = await found.exchange(batch(requests=1))
        assert [pane["requests"] for pane in seen.panes] == [5]

    async def soon(found: Store) -> None:
        for _ in range(4):
            await found.exchange(batch(requests=50))
        seen = await found.exchange(batch(requests=50))
        assert [pane["requests"] for pane in seen.panes] == [250]

    over(kind, valkey, few)
    over(kind, valkey, soon, pane_s=60.0)


@KINDS
def test_the_first_reason_stays(kind: str, valkey: Valkey) -> None:
    """A canary is withdrawn once, at one time, for one reason, whoever else finds another."""

    async def test(found: Store) -> None:
        first = await found.exchange(batch("it failed", requests=1))
        again = await found.exchange(batch("it was slow", requests=1))
        quiet = await found.exchange(batch())
        assert {(each.reason, each.withdrawn_at) for each in (first, again, quiet)} == {
            ("it failed", first.withdrawn_at)
        }
        assert first.withdrawn_at is not None
        assert again.totals["requests"] == 2

    over(kind, valkey, test)


def test_what_is_shared_outlives_its_processes_for_long(valkey: Valkey) -> None:
    """Weeks after the last process that served it, not for ever."""

    async def run() -> Any:
        async with lane_to(valkey.url) as lane:
            await until_answered(lane)
            return await _left_ms(lane)

    assert 80 * 86_400_000 < asyncio.run(run()) <= 90 * 86_400_000


async def _left_ms(lane: RedisLane) -> int:
    await SharedEvidence(lane, 1.0).exchange(batch())
    (key,) = await lane.send("KEYS", "*rollout*r1")
    return int(await lane.send("PTTL", key))
