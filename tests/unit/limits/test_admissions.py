"""Admissions of one turn of the loop are asked for together, and each has its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from gateway.errors import GatewayError, RedisRefused, RedisUnavailable
from gateway.limits.admissions import TOGETHER_MAX
from gateway.limits.lease import AdmittedLease
from tests.unit.limits.door import PLAN, REQUEST, TEN, Door, run
from tests.unit.limits.fake_lane import Asked, admission, ended, packed, settled
from tests.unit.limits.values import a_limit

MAIN = PLAN.attempts[0]
OTHER = msgspec.structs.replace(PLAN, attempts=(msgspec.structs.replace(MAIN, name="other"),))


def a_door(*limits: Any) -> Door:
    """One whose lane writes at the end of a turn."""
    door = Door(*limits)
    door.lane.gathers = True
    return door


async def together(door: Door, many: int) -> list[AdmittedLease | BaseException]:
    """So many calls in one turn."""
    return await asyncio.gather(*(door.admit() for _ in range(many)), return_exceptions=True)


def admits(asked: Asked) -> bytes:
    """Every call is admitted, every void executed."""
    return admission(calls=len(asked.calls)) if asked.what == "admit" else ended()


def test_calls_of_one_turn_are_one_run() -> None:
    """Of the next turn another; a run has a bound."""

    async def main() -> None:
        door = a_door()
        door.lane.answer = admits
        leases = await together(door, 3)
        assert door.lane.names() == ["admit"]
        assert [call[0] for call in door.lane.asked[0].calls] == [each.call.lease_id for each in leases]  # type: ignore[union-attr]
        await door.admit()
        assert door.lane.names() == ["admit"] * 2
        await together(door, TOGETHER_MAX + 1)
        assert sorted(len(each.calls) for each in door.lane.asked[2:]) == [1, TOGETHER_MAX]

    run(main())


def test_calls_to_other_backends_are_another_run() -> None:
    """Each run reads what was learned of one backend."""

    async def main() -> None:
        door = a_door()
        door.lane.answer = admits
        await asyncio.gather(door.admit(), door.admit(OTHER), door.admit())
        assert [(each.arguments[5], len(each.calls)) for each in door.lane.asked] == [("main", 2), ("other", 1)]

    run(main())


def test_each_call_has_its_own_answer() -> None:
    """One is refused, the others are not; what was seen last is remembered."""

    async def main() -> None:
        door = a_door()
        answers = [*(0, 0, -1, 20, 30, 0, 9), *(1, 2500, -1, 20, 30, 0, 9), *(0, 0, -1, 20, 30, 0, 10)]
        door.lane.answer = lambda _: packed("e1", 1_000_000, 2, [0], [0], answers)
        first, second, third = await together(door, 3)
        assert isinstance(first, AdmittedLease)
        assert isinstance(second, GatewayError)
        assert isinstance(third, AdmittedLease)
        assert [dict(each.headers())[b"x-ratelimit-remaining-requests"] for each in (first, third)] == [b"1", b"0"]
        assert door.counts.lost == 2, "expired slots are of the run, and counted once"
        door.limiter.shared.seen.show()
        assert door.counts.cells["requests-day"].value == 10_000

    run(main())


def test_a_run_that_fails_is_undone_for_each_call() -> None:
    """Each has a failure of its own and goes on under an id of its own."""

    async def main() -> None:
        door = a_door()
        door.lane.answer = lambda asked: RedisRefused("ERR no") if asked.what == "admit" else ended()
        leases = await together(door, 3)
        assert door.lane.names() == ["admit", "void", "void", "void"]
        asked = [call[0] for call in door.lane.asked[0].calls]
        assert [each.arguments[0] for each in door.lane.asked[1:]] == asked
        assert not {each.call.lease_id for each in leases} & set(asked)  # type: ignore[union-attr]

    run(main())


def test_a_call_that_leaves_disturbs_no_other() -> None:
    """It alone is undone, behind the run."""

    async def main() -> None:
        door = a_door()
        door.lane.answer = admits
        first, second = (asyncio.ensure_future(door.admit()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).reply is not None
        await asyncio.gather(first, return_exceptions=True)
        assert sorted(door.lane.names()) == ["admit", "void"]
        (undone,) = (each.arguments[0] for each in door.lane.asked if each.what == "void")
        assert undone == next(each for each in door.lane.asked if each.what == "admit").calls[0][0]

    run(main())


def test_no_call_joins_a_run_that_was_turned_away() -> None:
    """Neither at once, where the lane takes nothing, nor once that is over."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda _: RedisUnavailable("x")
        assert (await door.admit()).reply is None
        door.lane.answer = admits
        assert (await door.admit()).reply is not None

    run(main())


def test_what_has_to_come_first_ends_the_runs_before_it() -> None:
    """After a restore has been sent, a call is asked for behind it, though a run is still open."""

    async def main() -> None:
        door = a_door(TEN, a_limit("tokens", "day", 10))
        answers: dict[str, Any] = {"settle": settled(), "levels": packed("e1", 1, [0, 0], [3, 4], [0, 0], [7, 1])}
        door.lane.answer = lambda asked: (
            admission(used=(7, 1), calls=len(asked.calls)) if asked.what == "admit" else answers[asked.what]
        )
        await door.admit()
        before = asyncio.ensure_future(door.admit())
        await asyncio.sleep(0)
        door.lane.lose()
        after = asyncio.ensure_future(door.admit(request=REQUEST))
        await asyncio.gather(before, after)
        admitted = [each.calls for each in door.lane.asked if each.what == "admit"]
        assert [len(calls) for calls in admitted] == [1, 1, 1]
        assert door.lane.names().count("levels") == 1

    run(main())
