"""The background work of the limits: slots renewed, replicas counted, what waited sent, changes told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.errors import RedisUnanswered
from gateway.limits import LimitOptions
from gateway.limits.shared import Shared
from gateway.limits.wire import LimitSet, ScriptOptions, SettleCall
from tests.support.calls import until
from tests.unit.limits.fake_lane import SCRIPTS, Asked, FakeLane, ended, packed
from tests.unit.limits.values import Counts, admit_call, admitted, limits, tenant_bound

PLACES = limits(("concurrency", None, 5))


def server(asked: Asked) -> Any:
    """What a server would say."""
    answers: dict[str, Any] = {"TIME": [b"1000", b"0"], "ZCARD": 3, "renew": packed("e1", 1, [], 2), "void": ended()}
    return answers.get(asked.what, 1)


@contextlib.asynccontextmanager
async def running(lane: FakeLane, counts: Counts) -> AsyncIterator[Shared]:
    """The background task at work."""
    shared = Shared(lane, SCRIPTS, LimitOptions(), counts)
    task = asyncio.ensure_future(shared.run())
    try:
        yield shared
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await shared.close()


def test_slots_are_renewed_and_what_expired_is_counted() -> None:
    """One script for all calls of a tenant; none where nothing is held."""

    async def main() -> None:
        lane, counts = FakeLane(), Counts()
        lane.answer = server
        shared = Shared(lane, SCRIPTS, LimitOptions(), counts)
        for lease_id in "abc":
            shared.slots.hold("acme", lease_id, PLACES)
        task = asyncio.ensure_future(shared.run())
        await until(lambda: counts.lost == 2)
        task.cancel()
        (renewal,) = [asked for asked in lane.asked if asked.what == "renew"]
        assert [lease for lease, _ in renewal.arguments[2]] == ["a", "b", "c"]

    asyncio.run(main())


def test_slots_are_renewed_three_times_in_their_lifetime() -> None:
    """Whatever that is."""

    async def main() -> None:
        lane = FakeLane()
        lane.answer = server
        shared = Shared(lane, SCRIPTS, LimitOptions(scripts=ScriptOptions(slot_ms=1500)), Counts())
        shared.slots.hold("acme", "a", PLACES)
        task = asyncio.ensure_future(shared.run())
        await until(lambda: lane.names().count("renew") == 3, 1.5)
        task.cancel()
        assert {asked.arguments[0] for asked in lane.asked if asked.what == "renew"} == {1500}

    asyncio.run(main())


def test_replicas_are_counted_and_the_last_known_count_holds() -> None:
    """Those of this replica at least."""

    async def main() -> None:
        lane = FakeLane()
        lane.answer = server
        async with running(lane, Counts()) as shared:
            await until(lambda: shared.replicas.count == 3)
            lane.answer = lambda _: RedisUnanswered("x")
            await shared.replicas.announce()
            assert shared.replicas.count == 3
            lane.answer = server
        assert lane.names()[-1] == "ZREM"
        many = Shared(lane, SCRIPTS, LimitOptions(workers=8), Counts())
        await many.replicas.announce()
        assert many.replicas.count == 8

    asyncio.run(main())


def test_what_waited_is_sent_when_redis_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """At once; each change is one line."""

    async def main() -> None:
        lane = FakeLane()
        lane.answer = server
        async with running(lane, Counts()) as shared:
            lane.change(available=True)
            lane.change(available=False)
            lane.change(available=False)
            for number in range(5):
                shared.void(admit_call(lease_id=f"a{number}"))
            assert "void" not in lane.names()
            lane.change(available=True)
            await until(lambda: lane.names().count("void") == 5)

    with caplog.at_level("INFO", logger="gateway.limits"):
        asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "5" in caplog.messages[1]


def test_what_may_have_been_lost_is_restored_without_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """Many tenants in several goes; places are renewed; one line says it."""

    async def main() -> None:
        lane, many = FakeLane(), 250
        lane.answer = lambda asked: packed("e1", 1, [0], [3], [0], [7]) if asked.what == "levels" else server(asked)
        async with running(lane, Counts()) as shared:
            await until(lambda: "ZCARD" in lane.names())
            for number in range(many):
                of_tenant = tenant_bound(f"t{number}", ("requests", "day", 10))
                shared._heard(of_tenant, admitted((10, 3, 1)))
            shared.slots.hold("t7", "a", PLACES)
            lane.lose()
            await until(lambda: lane.names().count("levels") == many)
            await until(lambda: "renew" in lane.names())
            assert not shared.seen.lost

    with caplog.at_level("INFO", logger="gateway.limits"):
        asyncio.run(main())
    assert [message for message in caplog.messages if "may have lost" in message] == [
        "Redis may have lost limits; restoring what was last seen: tenants: 250"
    ]


def test_the_end_of_a_call_does_not_overtake_a_restore() -> None:
    """What was used since is added to what was seen, and is no part of it."""

    async def main() -> None:
        lane = FakeLane()
        shared = Shared(lane, SCRIPTS, LimitOptions(), Counts())
        shared._heard(tenant_bound("acme", ("requests", "day", 10)), admitted((10, 3, 1)))
        lane.change(available=False)
        lane.lose()
        end = SettleCall(
            lease_id="a",
            admitted_ms=1,
            kind=LimitSet("acme", ()),
            usage=None,
            cost_nano=0,
            key="ci",
            scenario="chat",
            backend="main",
            status=200,
            ended_at=1.0,
        )
        shared.settle(end)
        assert lane.names() == []
        lane.change(available=True)
        shared.settle(end)
        await asyncio.sleep(0)
        assert lane.names() == ["levels", "settle"]

    asyncio.run(main())


def test_calls_that_were_let_in_without_redis_take_their_places_when_it_is_back() -> None:
    """At once, not with the next regular renewal."""

    async def main() -> None:
        lane = FakeLane()
        lane.answer = server
        async with running(lane, Counts()) as shared:
            await until(lambda: "ZCARD" in lane.names())
            lane.change(available=False)
            shared.slots.hold("acme", "a", PLACES)
            lane.change(available=True)
            await until(lambda: "renew" in lane.names())

    asyncio.run(main())


def test_without_redis_there_is_nothing_to_share() -> None:
    """Its loop waits for ever, and ends."""

    async def main() -> None:
        shared = Shared(None, None, LimitOptions(workers=4), Counts())
        task = asyncio.ensure_future(shared.run())
        await asyncio.sleep(0)
        shared.void(admit_call())
        assert not task.done()
        assert shared.replicas.count == 4
        task.cancel()
        await shared.close()

    asyncio.run(main())
