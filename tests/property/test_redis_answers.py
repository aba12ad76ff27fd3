"""No command is ever answered with another's answer, whatever is cancelled, late or cut, and whenever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import RedisRefused, RedisUnanswered, RedisUnavailable
from gateway.redis.lane import RedisLane
from gateway.redis.names import tenant_key
from gateway.redis.script import Script
from tests.support.redis_lane import LOOPS, lane_to, run, until_answered
from tests.support.relay import Relay
from tests.support.valkey import Valkey

KEY = tenant_key("acme", "executed")
RUN = Script("mark", "redis.call('sadd', KEYS[1], ARGV[1]) return {ARGV[1]}")
DEADLINE_S = 0.03

Step = tuple[str, int]

CALLS: st.SearchStrategy[list[Step]] = st.one_of(
    st.tuples(st.sampled_from(["send", "run", "error"]), st.integers(1, 8)),
    st.tuples(st.sampled_from(["cancel", "turn"]), st.integers(0, 30)),
    st.tuples(st.sampled_from(["hold", "flow", "wait", "flush"]), st.just(0)),
).map(lambda step: [step])
BREAKS: st.SearchStrategy[list[Step]] = st.one_of(
    st.tuples(st.sampled_from(["delay"]), st.sampled_from([0, 1, 20, 60])),
    st.tuples(st.sampled_from(["cut"]), st.just(0)),
    st.tuples(st.sampled_from(["cut_after"]), st.integers(1, 400)),
).map(lambda step: [step])
LATE: st.SearchStrategy[list[Step]] = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(0, 3)).map(
    lambda n: [("hold", 0), ("run", n[0]), ("wait", 0), ("wait", 0), ("run", n[1]), ("turn", n[2]), ("flow", 0)]
)
"""Answers that come when their commands have expired and others wait."""
STEPS = st.one_of(
    st.lists(st.one_of(CALLS, LATE), min_size=3, max_size=15),  # on one connection
    st.lists(st.one_of(CALLS, LATE, BREAKS), min_size=5, max_size=30),
).map(lambda parts: [step for part in parts for step in part])


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server for all examples; each looks at what it marked itself."""
    with Valkey() as server:
        yield server


class Sender:
    """Sends commands that each ask for their own number, and knows what became of each."""

    def __init__(self, lane: RedisLane) -> None:
        self._lane = lane
        self._tasks: list[asyncio.Task[None]] = []
        self.answered: set[int] = set()
        self.untouched: set[int] = set()

    def send(self, kind: str) -> None:
        """One more caller."""
        number = len(self._tasks)
        self._tasks.append(asyncio.get_running_loop().create_task(self._ask(kind, number)))

    def cancel(self, index: int) -> None:
        """A caller leaves."""
        if self._tasks:
            self._tasks[index % len(self._tasks)].cancel()

    async def finish(self) -> None:
        """Wait for everyone who stayed; a crossed answer or an unexpected failure fails the test here."""
        async with asyncio.timeout(5.0):
            for each in await asyncio.gather(*self._tasks, return_exceptions=True):
                if each is not None and not isinstance(each, asyncio.CancelledError):
                    raise each

    async def _ask(self, kind: str, number: int) -> None:
        try:
            await self._ask_once(kind, number)
            self.answered.add(number)
        except RedisUnanswered:
            pass
        except RedisUnavailable:
            self.untouched.add(number)

    async def _ask_once(self, kind: str, number: int) -> None:
        if kind == "run":
            assert await self._lane.run(RUN, [KEY], [number]) == [str(number).encode()]
        elif kind == "send":
            answer = await self._lane.send("SADD", KEY, number)
            assert answer in {0, 1}
            assert await self._lane.send("ECHO", number) == str(number).encode()
        else:
            with pytest.raises(RedisRefused, match=f"NONSENSE{number}'"):
                await self._lane.send(f"NONSENSE{number}")


async def play(relay: Relay, sender: Sender, lane: RedisLane, steps: list[Step]) -> None:
    """Do what the steps say."""
    for what, number in steps:
        match what:
            case "send" | "run" | "error":
                for _ in range(number):
                    sender.send(what)
            case "cancel":
                sender.cancel(number)
            case "turn":
                for _ in range(number):
                    await asyncio.sleep(0)
            case "flush":
                sent = lane.send("SCRIPT", "FLUSH")
                sent.add_done_callback(lambda future: future.cancelled() or future.exception())
            case "wait":
                await asyncio.sleep(DEADLINE_S * 0.7)
            case _:
                treat(relay, what, number)


def treat(relay: Relay, what: str, number: int) -> None:
    """Do something to the way between."""
    match what:
        case "delay":
            relay.delay_s = number / 1000
        case "hold":
            relay.flowing.clear()
        case "flow":
            relay.flowing.set()
        case "cut":
            relay.cut()
        case _:
            relay.cut_after = number


@asynccontextmanager
async def lane_through_relay(valkey: Valkey, failures_max: int) -> AsyncIterator[tuple[Relay, RedisLane]]:
    """A lane that answers, to a server that remembers nothing."""
    valkey.command("DEL", KEY.decode())
    async with (
        Relay(valkey.port) as relay,
        lane_to(
            relay.url, deadline_s=DEADLINE_S, probe_s=0.05, connect_timeout_s=0.3, failures_max=failures_max
        ) as lane,
    ):
        await until_answered(lane)
        yield relay, lane


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, failures_max=st.sampled_from([5, 1000]))
def test_every_answer_belongs_to_its_command(valkey: Valkey, loop: str, steps: list[Step], failures_max: int) -> None:
    """Each caller gets its own number, a failure that tells the truth, or leaves; then the lane works as before."""

    async def main() -> None:
        async with lane_through_relay(valkey, failures_max) as (relay, lane):
            sender = Sender(lane)
            await play(relay, sender, lane, steps)
            await sender.finish()
            relay.flowing.set()
            relay.delay_s, relay.cut_after = 0.0, None
            await until_answered(lane)
            last = Sender(lane)
            last.send("run")
            await last.finish()

    run(main(), loop)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, failures_max=st.sampled_from([5, 1000]))
def test_what_is_unavailable_was_not_executed(valkey: Valkey, steps: list[Step], failures_max: int) -> None:
    """And what was answered was; of the rest nobody knows."""

    async def main() -> None:
        async with lane_through_relay(valkey, failures_max) as (relay, lane):
            sender = Sender(lane)
            await play(relay, sender, lane, [("run", n) if what == "send" else (what, n) for what, n in steps])
            await sender.finish()
        async with lane_to(valkey.url) as direct:
            executed = {int(each) for each in await direct.send("SMEMBERS", KEY)}
        assert not executed & sender.untouched

    run(main())
