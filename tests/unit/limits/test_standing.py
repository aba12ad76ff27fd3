"""A refusal stands for a moment, so that a caller who does not wait costs Redis nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.clock import monotonic
from gateway.errors import GatewayError
from gateway.limits import NOTHING_USED, Limiter, LimitOptions
from gateway.model import ChatRequest, Limit
from tests.support.calls import until
from tests.unit.limits.door import REQUEST, Door, run
from tests.unit.limits.fake_lane import SCRIPTS, admission, settled
from tests.unit.limits.values import CHAT, a_limit


def test_a_refusal_stands_for_a_moment() -> None:
    """What asks for no less is refused again without asking; counted, with what is left of the wait."""

    async def main() -> None:
        door = Door()
        door.lane.answer = lambda _: admission(status=0, used=[10])
        first, again = await door.refused(), await door.refused()
        assert door.lane.names() == ["admit"]
        assert type(again) is type(first)
        assert again.headers == first.headers
        assert 2.4 < (again.retry_after_s or 0) <= 2.5
        assert door.counts.rejected == [("requests-day", False)] * 2
        await eventually_not_standing(door)
        await door.refused()
        assert door.lane.names() == ["admit", "admit"]

    run(main())


async def eventually_not_standing(door: Door) -> None:
    """Until what was refused is asked about again."""
    bound = door.limiter.bind(door.caller, CHAT)
    assert bound is not None
    standing = bound.standing
    assert standing is not None
    await until(lambda: monotonic() > standing.until)


@pytest.mark.parametrize(
    ("limit", "request_then", "stands"),
    [
        (a_limit("tokens", "minute", 10), {"max_output_tokens": 5}, False),  # asks for less
        (a_limit("tokens", "minute", 10), {}, True),
        (a_limit("tokens", "minute", 10), {"choices": 2}, True),
        (a_limit("requests", "minute", 10), {"max_output_tokens": 5}, True),  # one request is one request
        (a_limit("concurrency", None, 10), {}, False),  # a place may be free by now
    ],
)
def test_a_refusal_stands_for_what_asks_for_no_less(limit: Limit, request_then: dict[str, Any], stands: bool) -> None:
    """A smaller call, or one that a free place may let in, is asked about."""

    async def main() -> None:
        door = Door(limit)
        door.lane.answer = lambda _: admission(status=0, used=[10])
        await door.refused()
        with pytest.raises(GatewayError):
            await door.admit(request=ChatRequest(model="chat", fields=REQUEST.fields, **request_then))
        assert len(door.lane.asked) == (1 if stands else 2)

    run(main())


def test_a_refusal_does_not_stand_without_redis() -> None:
    """There each limit's own rule holds; nor where that was switched off, nor longer than its own wait."""

    async def main() -> None:
        door = Door(a_limit("requests", "day", 10, on_redis_loss="open"))
        door.lane.answer = lambda _: admission(status=0, used=[10])
        await door.refused()
        door.lane.available = False
        assert await door.admit()
        never = Door()
        never.limiter = Limiter(never.lane, SCRIPTS, LimitOptions(refusal_memory_s=0), never.counts)
        never.lane.answer = lambda _: admission(status=0, used=[10])
        await never.refused()
        await never.refused()
        assert never.lane.names() == ["admit", "admit"]

    run(main())


def test_the_end_of_a_call_ends_what_stands() -> None:
    """What it gives back may be what was missing."""

    async def main() -> None:
        door = Door(a_limit("tokens", "day", 10))
        door.lane.answer = lambda asked: admission() if asked.what == "admit" else settled()
        lease = await door.admit()
        door.lane.answer = lambda asked: admission(status=0, used=[10]) if asked.what == "admit" else settled()
        await door.refused()
        lease.settle(NOTHING_USED)
        await asyncio.sleep(0)
        await door.refused()
        assert door.lane.names() == ["admit", "admit", "settle", "admit"]

    run(main())
