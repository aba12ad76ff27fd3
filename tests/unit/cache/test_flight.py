"""A call in flight and those who wait for it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.cache.flight import Flight, Follower, Head, Lost, Refusal
from gateway.errors import AttemptFailed, InvalidRequest, Overloaded, UpstreamFailed

STREAM = Head(status=200, content_type=b"text/event-stream")
WHOLE = Head(status=200, content_type=b"application/json", body=b"{}")


class Sizes:
    """Adds up what flights say they hold."""

    def __init__(self) -> None:
        self.held = 0

    def __call__(self, size: int) -> None:
        self.held += size


def flight(size_max: int = 1000, sizes: Sizes | None = None) -> Flight:
    """A fresh one."""
    return Flight(size_max, sizes or Sizes())


async def drained(follower: Follower) -> bytes:
    """Everything up to the end."""
    parts: list[bytes] = []
    while True:
        data = follower.take()
        if data is None:
            await follower.arrival()
        elif data:
            parts.append(data)
        else:
            return b"".join(parts)


def test_every_follower_gets_every_byte_whenever_it_came() -> None:
    """Before the first byte, in the middle, after the end."""

    async def main() -> None:
        shared = flight()
        first = shared.join()
        reading = asyncio.create_task(drained(first))
        await asyncio.sleep(0)
        shared.begin(STREAM)
        shared.push(b"one ")
        second = shared.join()
        shared.push(b"two ")
        assert await second.begun(1) == STREAM
        assert second.take() == b"one two "
        shared.push(b"three")
        shared.finish()
        third = shared.join()
        assert list(await asyncio.gather(reading, drained(second), drained(third))) == [
            b"one two three",
            b"three",
            b"one two three",
        ]
        shared.push(b"too late")
        shared.break_off(AttemptFailed("reset", "too late"))
        assert await drained(third) == b""

    asyncio.run(main())


def test_a_listener_is_told_of_each_piece_and_of_the_last() -> None:
    """As of a backend's answer."""

    async def main() -> None:
        shared = flight()
        follower, told = shared.join(), list[tuple[bytes | None, bool]]()
        assert follower.listen(lambda last: told.append((follower.take(), last)))
        shared.begin(STREAM)
        shared.push(b"a")
        shared.push(b"b")
        shared.finish()
        follower.listen(None)
        assert told == [(None, False), (b"a", False), (b"b", False), (b"", True)]

    asyncio.run(main())


def test_a_break_is_told_after_what_was_said() -> None:
    """Nobody takes it for an end; each follower has an exception of its own."""

    async def main() -> None:
        shared = flight()
        one, two = shared.join(), shared.join()
        shared.begin(STREAM)
        shared.push(b"half")
        shared.break_off(AttemptFailed("idle_timeout", "nothing came"))
        raised = []
        for each in (one, two):
            assert await each.begun(1) == STREAM
            assert each.take() == b"half"
            with pytest.raises(AttemptFailed, match="nothing came") as caught:
                each.take()
            assert caught.value.outcome == "idle_timeout"
            raised.append(caught.value)
        assert raised[0] is not raised[1]

    asyncio.run(main())


def test_a_stream_begins_with_its_first_bytes() -> None:
    """A call that is lost between its head and them can be made by another one."""

    async def main() -> None:
        shared = flight()
        follower = shared.join()
        shared.begin(STREAM)
        with pytest.raises(TimeoutError):
            await follower.begun(0.001)
        shared.lose("gone")
        shared_none = flight()
        waiting = shared_none.join()
        shared_none.lose("gone")
        with pytest.raises(Lost):
            await waiting.begun(1)

    asyncio.run(main())


def test_a_stream_of_which_nothing_came_is_lost() -> None:
    """Its head alone is no answer: whoever waits looks for another call, and nobody joins."""

    async def main() -> None:
        shared = flight()
        follower = shared.join()
        shared.begin(STREAM)
        shared.lose("gone")
        assert shared.is_lost
        with pytest.raises(Lost):
            await follower.begun(1)
        begun = flight()
        late = begun.join()
        begun.begin(STREAM)
        begun.push(b"one")
        begun.lose("gone")
        assert not begun.is_lost
        assert await late.begun(1) == STREAM

    asyncio.run(main())


def test_a_refusal_is_told_to_all_each_with_its_own_error() -> None:
    """Headers of one caller never reach another."""

    async def main() -> None:
        shared = flight()
        followers = [shared.join(), shared.join()]
        error = Overloaded("The model is overloaded.", detail="429", retry_after_s=3.0)
        refusal = Refusal.of(error)
        assert refusal is not None
        shared.refuse(refusal)
        raised = []
        for each in followers:
            with pytest.raises(Overloaded) as caught:
                await each.begun(1)
            raised.append(caught.value)
        assert raised[0] is not raised[1]
        assert (raised[0].message, raised[0].code, raised[0].retry_after_s) == (error.message, error.code, 3.0)

    asyncio.run(main())


def test_what_concerns_one_call_is_not_told_to_others() -> None:
    """A wrong request is the caller's own; a failed backend is everybody's."""
    assert Refusal.of(InvalidRequest("no")) is None
    assert Refusal.of(UpstreamFailed("no")) is not None


def test_the_last_to_leave_says_so_once_and_only_before_the_end() -> None:
    """So that the call is given up."""

    async def main() -> None:
        shared, empty = flight(), list[str]()
        shared.on_empty = lambda: empty.append("empty")
        one, two = shared.join(), shared.join()
        one.leave()
        one.leave()
        assert empty == []
        two.leave()
        assert empty == ["empty"]
        three = shared.join()
        shared.begin(WHOLE)
        three.leave()
        assert empty == ["empty"]

    asyncio.run(main())


def test_what_nobody_reads_any_more_is_let_go() -> None:
    """And the process knows what it holds."""

    async def main() -> None:
        sizes = Sizes()
        shared = flight(sizes=sizes)
        follower = shared.join()
        shared.begin(STREAM)
        shared.push(b"x" * 100)
        assert sizes.held == 100
        shared.finish()
        shared.close()
        assert sizes.held == 100
        assert await drained(follower) == b"x" * 100
        follower.leave()
        assert sizes.held == 0
        alone = flight(sizes=sizes)
        alone.begin(WHOLE)
        alone.close()
        assert sizes.held == 0
        assert not alone.joinable

    asyncio.run(main())


def test_an_answer_beyond_its_bound_is_held_only_for_those_who_are_there() -> None:
    """Nobody joins, what all have taken is dropped, and whoever makes the call waits for the slowest."""

    async def main() -> None:
        shared = flight(size_max=100)
        fast, slow = shared.join(), shared.join()
        shared.begin(STREAM)
        for _ in range(3):
            shared.push(b"x" * 50)
        assert not shared.joinable
        assert len(fast.take() or b"") == 150
        waiting = asyncio.create_task(shared.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert len(slow.take() or b"") == 150
        await asyncio.wait_for(waiting, 1)
        assert shared.said() is None
        shared.push(b"y")
        shared.finish()
        assert list(await asyncio.gather(drained(fast), drained(slow))) == [b"y", b"y"]

    asyncio.run(main())


def test_whoever_makes_the_call_waits_for_nobody_who_left() -> None:
    """A slow follower that goes away takes its backlog with it."""

    async def main() -> None:
        shared = flight(size_max=10)
        slow = shared.join()
        shared.begin(STREAM)
        shared.push(b"x" * 20)
        waiting = asyncio.create_task(shared.room())
        await asyncio.sleep(0)
        slow.leave()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(main())
