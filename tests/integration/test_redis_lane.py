"""The lane to a real Valkey: one write per tick, answers in order, a deadline that a busy process does not trip."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Iterator

import pytest

from gateway.errors import RedisFailure, RedisRefused, RedisUnanswered, RedisUnavailable
from gateway.redis.config import RedisConfig, parse_url
from gateway.redis.lane import RedisLane
from gateway.redis.names import tenant_key
from gateway.redis.script import Script, ScriptCall, script_call
from tests.support.redis_lane import LOOPS, Remembered, lane_to, outcome, run, until, until_answered
from tests.support.relay import Relay
from tests.support.valkey import Valkey

KEY = tenant_key("acme", "test")
ECHO = Script("echo", "return {KEYS[1], ARGV[1]}")


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """One server for all tests of this module."""
    with Valkey() as server:
        yield server


@pytest.mark.parametrize("loop", LOOPS)
def test_commands_of_one_tick_leave_in_one_write_and_are_answered_in_order(valkey: Valkey, loop: str) -> None:
    """However many there are; the next tick is another write."""

    async def main() -> None:
        async with Relay(valkey.port) as relay, lane_to(relay.url) as lane:
            await until_answered(lane)
            before = relay.writes
            answers = await asyncio.gather(*(lane.send("ECHO", number) for number in range(100)))
            assert answers == [str(number).encode() for number in range(100)]
            assert relay.writes == before + 1
            await lane.send("SET", KEY, "é")
            assert await lane.send(b"GET", KEY) == "é".encode()
            assert relay.writes == before + 3
            assert relay.connections == 1

    run(main(), loop)


def test_first_commands_wait_for_the_connection(valkey: Valkey) -> None:
    """A lane that has just been started answers; one that was not started fails its commands in time."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            assert lane.available
            assert await lane.send("PING") == b"PONG"
        never_started = RedisLane(RedisConfig(server=parse_url(valkey.url), deadline_s=0.02))
        assert isinstance(await outcome(never_started.send("PING")), RedisUnavailable)
        await never_started.close()

    run(main())


def test_scripts_are_brought_along(valkey: Valkey) -> None:
    """At the first use on a connection, and again after the server forgot them; orders among them are kept."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            for _ in range(2):
                answers = await asyncio.gather(*(lane.run(ECHO, [KEY], [number]) for number in range(3)))
                assert answers == [[KEY, str(number).encode()] for number in range(3)]
                await lane.send("SCRIPT", "FLUSH")
            append = Script("append", "return redis.call('append', KEYS[1], ARGV[1])")
            await lane.send("DEL", KEY)
            await lane.run(append, [KEY], ["0"])
            await lane.send("SCRIPT", "FLUSH")
            await asyncio.gather(*(lane.run(append, [KEY], [number]) for number in range(1, 10)))
            assert await lane.send("GET", KEY) == b"0123456789"

    run(main())


class Gathered:
    """Arguments that are added until they are written, and what became of them."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = list(arguments)
        self.told: list[object] = []
        self.over = asyncio.Event()

    def written(self) -> ScriptCall:
        """See Gathering."""
        return script_call([KEY], self.arguments)

    def answered(self, answer: object) -> None:
        """See Gathering."""
        self.told.append(answer)
        self.over.set()

    def failed(self, failure: RedisFailure) -> None:
        """See Gathering."""
        self.told.append(failure)
        self.over.set()


def test_what_is_gathered_is_written_with_its_tick(valkey: Valkey) -> None:
    """All that was added until then, in its place among the commands; also where the server forgot the script."""

    async def main() -> None:
        everything = Script("everything", "redis.call('APPEND', KEYS[1], table.concat(ARGV)) return ARGV")
        async with Relay(valkey.port) as relay, lane_to(relay.url) as lane:
            await until_answered(lane)
            for _ in range(2):
                await lane.send("DEL", KEY)
                before = relay.writes
                first = lane.send("APPEND", KEY, "0")
                gathered = Gathered("1")
                lane.gather(everything, KEY, gathered)
                last = lane.send("ECHO", "x")
                gathered.arguments.append("2")
                await asyncio.gather(first, last)
                await asyncio.wait_for(gathered.over.wait(), 5.0)
                assert gathered.told == [[b"1", b"2"]]
                assert await lane.send("GET", KEY) == b"012"
                assert relay.writes - before <= 3
                await lane.send("SCRIPT", "FLUSH")

    run(main())


def test_what_is_gathered_fails_once(valkey: Valkey) -> None:
    """By an error of the server, for want of a connection, or since none will be there; with its tick it is written."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            refused = Gathered()
            lane.gather(Script("wrong", "return redis.call('NONSENSE')"), KEY, refused)
            await asyncio.wait_for(refused.over.wait(), 5.0)
            assert isinstance(refused.told[0], RedisRefused)
        never_started = RedisLane(RedisConfig(server=parse_url(valkey.url), deadline_s=0.02))
        waiting = Gathered("1")
        never_started.gather(ECHO, KEY, waiting)
        await asyncio.wait_for(waiting.over.wait(), 5.0)
        await never_started.close()
        closed = Gathered("1")
        never_started.gather(ECHO, KEY, closed)
        assert [type(each) for each in waiting.told + closed.told] == [RedisUnavailable] * 2

    run(main())


def test_errors_of_the_server_are_refusals(valkey: Valkey) -> None:
    """Each fails its own command only."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            wrong, right = lane.send("NONSENSE"), lane.send("PING")
            with pytest.raises(RedisRefused, match="unknown command"):
                await wrong
            assert await right == b"PONG"
            broken = Script("broken", "return redis.error_reply('MINE because')")
            with pytest.raises(RedisRefused, match="^MINE because"):
                await lane.run(broken, [KEY], [])
            assert lane.available

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_late_answer_is_given_to_nobody(valkey: Valkey, loop: str) -> None:
    """The command is unanswered at the deadline and keeps its place; those after it get their own answers."""

    async def main() -> None:
        seen = Remembered()
        async with Relay(valkey.port) as relay, lane_to(relay.url, seen, deadline_s=0.05, failures_max=100) as lane:
            await until_answered(lane)
            relay.flowing.clear()
            started_at = time.monotonic()
            late = lane.send("ECHO", "late")
            assert isinstance(await outcome(late), RedisUnanswered)
            assert 0.05 <= time.monotonic() - started_at < 0.5
            later = lane.send("ECHO", "later")
            relay.flowing.set()
            assert await later == b"later"
            assert relay.connections == 1
            assert seen.failures["unanswered"] == 1

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_busy_process_does_not_take_its_own_slowness_for_the_servers(valkey: Valkey, loop: str) -> None:
    """The answer had arrived before the deadline; that nobody came to read it is not the server's fault."""

    async def main() -> None:
        seen = Remembered()
        async with lane_to(valkey.url, seen, deadline_s=0.05) as lane:
            await until_answered(lane)
            for busy_s in (0.0, 0.06, 0.12):
                asked = [lane.send("ECHO", number) for number in range(2000)]
                await asyncio.sleep(0)  # now they are written
                time.sleep(busy_s)  # noqa: ASYNC251  # on purpose: the loop must stand still
                assert await asyncio.gather(*asked) == [str(number).encode() for number in range(2000)]
                await asyncio.sleep(0.01)
            assert seen.failures == {"unavailable": 0, "unanswered": 0}

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_deadline_counts_after_what_had_arrived_was_read(valkey: Valkey, loop: str) -> None:
    """Also where the loop stood still while it handled sockets: then timers run before the others are read."""

    async def main() -> None:
        seen = Remembered()
        mine, other = socket.socketpair()
        async with lane_to(valkey.url, seen, deadline_s=0.05) as lane:
            await until_answered(lane)

            def stand_still() -> None:
                mine.recv(1)
                time.sleep(0.08)

            asyncio.get_running_loop().add_reader(mine, stand_still)
            for _ in range(10):
                asked = lane.send("PING")
                await asyncio.sleep(0)  # now it is written
                other.send(b"x")
                assert await asked == b"PONG"
            asyncio.get_running_loop().remove_reader(mine)
        mine.close()
        other.close()
        assert seen.failures == {"unavailable": 0, "unanswered": 0}

    run(main(), loop)


def test_cancelled_commands_disturb_no_other(valkey: Valkey) -> None:
    """Before they are written they are not sent at all; after it their answers go to nobody."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            await until_answered(lane)
            await lane.send("DEL", KEY)
            asked = [lane.send("INCR", KEY) for _ in range(4)]
            asked[1].cancel()
            asked[2].cancel()
            assert list(await asyncio.gather(asked[0], asked[3])) == [1, 2]
            asked = [lane.send("INCR", KEY) for _ in range(4)]
            await asyncio.sleep(0)
            asked[1].cancel()
            asked[2].cancel()
            assert list(await asyncio.gather(asked[0], asked[3])) == [3, 6]

    run(main())


def test_waiting_commands_are_bounded(valkey: Valkey) -> None:
    """One more fails at once and was certainly not executed."""

    async def main() -> None:
        seen = Remembered()
        async with lane_to(valkey.url, seen, pending_max=100) as lane:
            await until_answered(lane)
            await lane.send("DEL", KEY)
            outcomes = await asyncio.gather(*(outcome(lane.send("INCR", KEY)) for _ in range(150)))
            refused = [each for each in outcomes if isinstance(each, RedisUnavailable)]
            assert len(refused) == seen.failures["unavailable"] == 50
            assert await lane.send("GET", KEY) == b"100"

    run(main())


def test_closing_waits_for_what_was_sent(valkey: Valkey) -> None:
    """A command sent just before is executed; one sent after fails; nothing stays behind."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            await lane.send("SET", KEY, "0")
            last = lane.send("INCR", KEY)
            await lane.close()
            assert await last == 1
            assert isinstance(await outcome(lane.send("INCR", KEY)), RedisUnavailable)
            assert len(asyncio.all_tasks()) == 1

    run(main())


def test_failures_that_nobody_reads_are_no_news(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """The event loop reports exceptions that were never retrieved; a settlement sent and forgotten is none of them."""

    async def main() -> None:
        async with lane_to(valkey.url) as lane:
            _ = lane.send("NONSENSE")
            await lane.send("PING")
            _ = lane.send("PING")
        _ = lane.send("PING")

    with caplog.at_level(logging.ERROR):
        run(main())
        gc.collect()
    assert not caplog.records


def test_large_values_pass(valkey: Valkey) -> None:
    """More than the socket takes at once, in both directions, in order."""

    async def main() -> None:
        async with lane_to(valkey.url, deadline_s=20.0) as lane:
            values = [bytes([65 + number]) * 3_000_000 for number in range(5)]
            answers = await asyncio.gather(*(lane.send("ECHO", value) for value in values))
            assert answers == values
            assert await lane.send("PING") == b"PONG"

    run(main())


def test_answers_are_timed(valkey: Valkey) -> None:
    """Once per read, from the write of the oldest command."""

    async def main() -> None:
        seen = Remembered()
        async with Relay(valkey.port) as relay, lane_to(relay.url, seen) as lane:
            await until_answered(lane)
            relay.delay_s = 0.1
            seen.seconds.clear()
            await asyncio.gather(*(lane.send("PING") for _ in range(10)))
            assert len(seen.seconds) == 1
            assert 0.1 <= seen.seconds[0] < 1.0

    run(main())


def test_looks_at_the_server_are_timed_like_commands(valkey: Valkey) -> None:
    """Though they have more time than the deadline: what is measured is the wait, not what was left of the time."""

    async def main() -> None:
        seen = Remembered()
        options = {"deadline_s": 0.5, "connect_timeout_s": 20.0, "check_s": 0.02}
        async with lane_to(valkey.url, seen, **options):
            await until(lambda: asyncio.sleep(0, len(seen.seconds) >= 5))
        assert all(0 <= seconds < 5 for seconds in seen.seconds), seen.seconds

    run(main())
