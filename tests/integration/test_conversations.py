"""Turns of conversations on a real server: found by their tenant, alive as long as somebody goes on, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from gateway.cache import ConversationBounds, Conversations, load_scripts
from gateway.errors import InvalidRequest, StoreUnavailable
from gateway.redis.lane import RedisLane
from tests.support.redis_lane import lane_to, until_answered
from tests.support.valkey import Valkey

BOUNDS = ConversationBounds(ttl_s=60.0, max_turns=3, max_bytes=2000)
Test = Callable[[Conversations, RedisLane], Awaitable[None]]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A server of this module's own."""
    with Valkey() as server:
        yield server


def over(valkey: Valkey, test: Test, bounds: ConversationBounds = BOUNDS) -> None:
    """Run a test over a server with nothing on it."""

    async def run() -> None:
        async with lane_to(valkey.url) as lane:
            await until_answered(lane)
            await lane.send("FLUSHALL")
            await test(Conversations(lambda: lane, load_scripts(), bounds), lane)

    asyncio.run(run())


async def items(conversations: Conversations, response_id: str, tenant: str = "acme") -> list[str]:
    """What was said up to a response."""
    return [bytes(each).decode() for each in await conversations.items(tenant, response_id)]


async def refused(conversations: Conversations, response_id: str, tenant: str = "acme") -> str:
    """Why nobody can go on from a response."""
    with pytest.raises(InvalidRequest) as caught:
        await conversations.items(tenant, response_id)
    assert caught.value.param == "previous_response_id"
    return caught.value.code


def test_turns_are_found_in_order_by_their_tenant_alone(valkey: Valkey) -> None:
    """A response may be gone on from twice; another tenant's is as if it was never made."""

    async def test(conversations: Conversations, _: RedisLane) -> None:
        conversations.keep("acme", "resp_one_1", None, [1, 2])
        conversations.keep("acme", "resp_two_1", "resp_one_1", [3])
        conversations.keep("acme", "resp_two_2", "resp_one_1", ["x" * 1100])
        assert await items(conversations, "resp_two_1") == ["1", "2", "3"]
        assert await items(conversations, "resp_two_2") == ["1", "2", '"' + "x" * 1100 + '"']
        assert await refused(conversations, "resp_one_1", "other") == "previous_response_not_found"
        for odd in ("", "resp", "resp_one_1}:x", "*" * 20, "resp_one_1\n"):
            assert await refused(conversations, odd) == "previous_response_not_found"

    over(valkey, test)


def test_whoever_goes_on_keeps_all_turns(valkey: Valkey) -> None:
    """Their time begins anew; where one is gone, so is the conversation."""

    async def test(conversations: Conversations, lane: RedisLane) -> None:
        conversations.keep("acme", "resp_one_1", None, [1])
        conversations.keep("acme", "resp_two_1", "resp_one_1", [2])
        key = b"lgw:1:{acme}:conversation:resp_one_1"
        await lane.send("PEXPIRE", key, 1000)
        await conversations.items("acme", "resp_two_1")
        assert await lane.send("PTTL", key) > 50_000
        await lane.send("DEL", key)
        assert await refused(conversations, "resp_two_1") == "previous_response_not_found"

    over(valkey, test)


def test_a_conversation_is_bounded(valkey: Valkey) -> None:
    """In turns, in bytes as they are kept and as they are read, and in the bytes of one turn."""

    async def test(conversations: Conversations, _: RedisLane) -> None:
        previous = None
        for number in range(4):
            conversations.keep("acme", f"resp_turn_{number}", previous, [number])
            previous = f"resp_turn_{number}"
        assert len(await items(conversations, "resp_turn_2")) == 3
        assert await refused(conversations, "resp_turn_3") == "conversation_too_long"
        conversations.keep("acme", "resp_too_large", None, ["x" * 2000])
        assert await refused(conversations, "resp_too_large") == "previous_response_not_found"
        conversations.keep("acme", "resp_large_1", None, ["x" * 1500])
        conversations.keep("acme", "resp_large_2", "resp_large_1", ["y" * 1500])
        assert await refused(conversations, "resp_large_2") == "conversation_too_long"

    over(valkey, test)


def test_what_is_damaged_is_not_there(valkey: Valkey) -> None:
    """A key that holds something else is no answer, and no fault."""

    async def test(conversations: Conversations, lane: RedisLane) -> None:
        await lane.send("HSET", b"lgw:1:{acme}:conversation:resp_damaged", "p", "", "i", b"\x00nonsense")
        assert await refused(conversations, "resp_damaged") == "previous_response_not_found"

    over(valkey, test)


def test_without_redis_nothing_is_kept_and_without_an_answer_it_says_so(valkey: Valkey) -> None:
    """A 503 where it is only away, since the caller should come again; keeping never fails a call."""

    async def test(_: Conversations, lane: RedisLane) -> None:
        none = Conversations(lambda: None, load_scripts(), BOUNDS)
        none.keep("acme", "resp_one_1", None, [1])
        assert await refused(none, "resp_one_1") == "previous_response_not_found"
        away = Conversations(lambda: Away(lane), load_scripts(), BOUNDS)
        away.keep("acme", "resp_one_1", None, [1])
        with pytest.raises(StoreUnavailable):
            await away.items("acme", "resp_one_1")

    over(valkey, test)


class Away:
    """A lane whose scripts the server refuses, by a command that it does not know."""

    def __init__(self, lane: RedisLane) -> None:
        self._lane = lane

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """One command."""
        return self._lane.send("NOSUCHCOMMAND", *parts[1:])

    def run(self, *_: object) -> asyncio.Future[Any]:
        """One script."""
        return self._lane.send("NOSUCHCOMMAND")
