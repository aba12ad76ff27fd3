"""The lane while its Valkey is away, stopped, slow, full, or another one than before."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from gateway.errors import RedisUnanswered, RedisUnavailable
from gateway.redis.lane import RedisLane
from gateway.redis.link import SHORT_LIFE_S
from gateway.redis.names import tenant_key
from gateway.redis.script import Script
from tests.support.redis_lane import LOOPS, Remembered, lane_to, outcome, run, until, until_answered
from tests.support.relay import Relay
from tests.support.valkey import Valkey
from tests.support.waiting import black_hole_port, refusing_port

KEY = tenant_key("acme", "test")
DEADLINE_S = 0.05


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that a test may treat badly."""
    with Valkey() as server:
        yield server


async def until_open(lane: RedisLane, *, timeout_s: float = 5.0) -> list[float]:
    """Send commands until the breaker is open; the seconds that each took."""
    seconds: list[float] = []
    async with asyncio.timeout(timeout_s):
        while lane.available:
            started_at = time.monotonic()
            await outcome(lane.send("INCR", KEY))
            seconds.append(time.monotonic() - started_at)
    return seconds


async def assert_fails_at_once(lane: RedisLane) -> None:
    """While the breaker is open a command takes no time and is not executed."""
    started_at = time.monotonic()
    failures = [await outcome(lane.send("INCR", KEY)) for _ in range(100)]
    assert all(isinstance(each, RedisUnavailable) for each in failures)
    assert time.monotonic() - started_at < DEADLINE_S


@pytest.mark.parametrize(("loop", "check_s"), [*((loop, 60.0) for loop in LOOPS), ("uvloop", 0.01)])
def test_a_stopped_server(valkey: Valkey, loop: str, check_s: float) -> None:
    """Commands wait for the deadline until the breaker opens, then not at all; it closes soon after.

    So too while the server has not answered the regular look at it, which has more time than they.
    """

    async def main() -> None:
        seen, changes = Remembered(), list[bool]()
        options = {"deadline_s": DEADLINE_S, "connect_timeout_s": 0.5, "check_s": check_s, "failures_max": 5}
        async with lane_to(valkey.url, seen, **options) as lane:
            lane.on_change(changes.append)
            await until_answered(lane)
            seen.unused.clear()
            changes.clear()
            valkey.pause()
            try:
                seconds = await until_open(lane)
                assert len(seconds) == 5
                assert max(seconds) < 0.2
                assert seen.failures["unanswered"] == 5
                await assert_fails_at_once(lane)
                await asyncio.sleep(1.0)  # several probes, and a connection that is made anew and not answered
                await assert_fails_at_once(lane)
            finally:
                valkey.resume()
            await until_answered(lane, 5.0)
            assert lane.available
            assert changes == [False, True]
            assert seen.unused == [1, 0]

    run(main(), loop)


def test_a_killed_server_and_its_empty_successor(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """The breaker opens at once, the lane comes back by itself, scripts too, and it says that data may be lost."""

    async def main() -> None:
        seen = Remembered()
        async with lane_to(valkey.url, seen, deadline_s=DEADLINE_S) as lane:
            await until_answered(lane)
            script = Script("get", "return redis.call('get', KEYS[1])")
            await lane.send("SET", KEY, "1")
            assert await lane.run(script, [KEY], []) == b"1"
            await asyncio.sleep(SHORT_LIFE_S + 0.1)  # from here on its loss is no sign that none can last
            valkey.kill()
            started_at = time.monotonic()
            await until_open(lane)
            assert time.monotonic() - started_at < 1.0
            await assert_fails_at_once(lane)
            valkey.start()
            await until_answered(lane, 5.0)
            assert await lane.run(script, [KEY], []) is None
            assert seen.notices == ["restarted"]

    with caplog.at_level(logging.INFO, "gateway.redis"):
        run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


def test_what_waited_for_an_answer_of_a_lost_connection_is_unanswered(valkey: Valkey) -> None:
    """And what was not written is sent over the next one, without the caller noticing."""

    async def main() -> None:
        async with Relay(valkey.port) as relay, lane_to(relay.url) as lane:
            await until_answered(lane)
            await asyncio.sleep(SHORT_LIFE_S + 0.1)  # from here on its loss is no sign that none can last
            relay.flowing.clear()
            asked = [lane.send("INCR", KEY) for _ in range(3)]
            await asyncio.sleep(0.05)
            relay.cut()
            outcomes = await asyncio.gather(*map(outcome, asked))
            assert [type(each) for each in outcomes] == [RedisUnanswered] * 3
            relay.flowing.set()
            assert await lane.send("PING") == b"PONG"
            assert await lane.send("GET", KEY) == b"3"
            assert relay.connections == 2
            assert lane.available

    run(main())


def test_a_server_that_is_slower_than_the_deadline(valkey: Valkey) -> None:
    """The breaker stays open, on one connection, until the server is fast again; no answer goes astray."""

    async def main() -> None:
        seen = Remembered()
        async with Relay(valkey.port) as relay, lane_to(relay.url, seen, deadline_s=DEADLINE_S) as lane:
            await until_answered(lane)
            relay.delay_s = 0.3
            await until_open(lane)
            connections = relay.connections
            await asyncio.sleep(1.5)
            assert not lane.available
            assert relay.connections == connections
            await assert_fails_at_once(lane)
            relay.delay_s = 0.0
            await until_answered(lane, 5.0)
            assert [await lane.send("ECHO", number) for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]

    run(main())


def test_lone_probes(valkey: Valkey) -> None:
    """However many callers there are, an open breaker lets one probe through at a time."""

    async def main() -> None:
        async with Relay(valkey.port) as relay, lane_to(relay.url, deadline_s=DEADLINE_S, probe_s=0.2) as lane:
            await until_answered(lane)
            relay.delay_s = 0.3
            await until_open(lane)
            writes = relay.writes
            ends_at = time.monotonic() + 1.0
            while time.monotonic() < ends_at:
                await asyncio.gather(*(outcome(lane.send("PING")) for _ in range(20)))
                await asyncio.sleep(0.01)
            assert 2 <= relay.writes - writes <= 11

    run(main())


def test_no_server_at_all() -> None:
    """Starting is no error; the breaker opens at the first refusal; no command waits longer than the deadline."""

    async def main() -> None:
        with refusing_port() as refusing, black_hole_port() as hole:
            async with lane_to(f"redis://127.0.0.1:{refusing}", deadline_s=DEADLINE_S) as lane:
                await until_open(lane)
                await assert_fails_at_once(lane)
            async with lane_to(f"redis://127.0.0.1:{hole}", deadline_s=DEADLINE_S, connect_timeout_s=20.0) as lane:
                seconds = await until_open(lane)
                assert len(seconds) == 5
                assert max(seconds) < 0.5
            async with lane_to("redis://no.such.host.invalid", deadline_s=DEADLINE_S) as lane:
                await until_open(lane, timeout_s=20.0)

    run(main())


def test_a_server_that_comes_late(valkey: Valkey) -> None:
    """The lane finds it when it is there."""

    async def main() -> None:
        valkey.kill()
        async with lane_to(valkey.url, deadline_s=DEADLINE_S) as lane:
            await until_open(lane)
            valkey.start()
            await until_answered(lane, 5.0)

    run(main())


def test_a_connection_that_never_lasts_opens_the_breaker(valkey: Valkey) -> None:
    """A proxy that accepts and closes must not be asked as fast as it can answer."""

    async def main() -> None:
        async with Relay(valkey.port) as relay, lane_to(relay.url, deadline_s=DEADLINE_S, probe_s=0.2) as lane:
            await until_answered(lane)
            relay.cut_after = 100
            relay.cut()
            await until_open(lane)
            connections = relay.connections
            await asyncio.sleep(1.0)
            assert relay.connections - connections <= 11
            relay.cut_after = None
            await until_answered(lane, 5.0)

    run(main())


def test_a_full_server(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Writes were certainly not executed, reads go on, the breaker stays closed, and it is said once."""

    async def main() -> None:
        seen = Remembered()
        async with lane_to(valkey.url, seen, check_s=0.1) as lane:
            await lane.send("SET", KEY, "1")
            await lane.send("CONFIG", "SET", "maxmemory", "1")
            write = Script("write", "redis.call('set', KEYS[1], '2') return redis.call('get', KEYS[1])")
            for _ in range(3):
                assert isinstance(await outcome(lane.run(write, [KEY], [])), RedisUnavailable)
                assert isinstance(await outcome(lane.send("SET", KEY, "3")), RedisUnavailable)
                await asyncio.sleep(0.15)  # past a check
            assert await lane.send("GET", KEY) == b"1"
            assert lane.available
            await lane.send("CONFIG", "SET", "maxmemory", "0")
            assert await lane.run(write, [KEY], []) == b"2"
            assert seen.notices == ["full"]

    with caplog.at_level(logging.WARNING, "gateway.redis"):
        run(main())
    assert len(caplog.records) == 1


def test_a_policy_that_may_drop_limits_is_said(valkey: Valkey) -> None:
    """At the first connection, and once again when it becomes so later."""

    async def main() -> None:
        valkey.command("CONFIG", "SET", "maxmemory", "100mb")
        valkey.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        seen = Remembered()

        async def noticed() -> bool:
            return bool(seen.notices)

        async with lane_to(valkey.url, seen, check_s=0.05) as lane:
            await until(noticed)
            await asyncio.sleep(0.2)
            assert seen.notices == ["eviction_policy"]
            valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await asyncio.sleep(0.2)
            seen.notices.clear()
            valkey.command("CONFIG", "SET", "maxmemory-policy", "volatile-lfu")
            await until(noticed)
            assert await lane.send("PING") == b"PONG"

    run(main())


def test_a_server_that_becomes_a_replica_is_left(valkey: Valkey) -> None:
    """Its refusals were certainly not executed; the lane comes back when a primary is there again."""

    async def main() -> None:
        seen = Remembered()
        async with lane_to(valkey.url, seen, deadline_s=DEADLINE_S) as lane:
            await until_answered(lane)
            valkey.command("REPLICAOF", "127.0.0.1", "1")
            failure = await outcome(lane.send("SET", KEY, "1"))
            assert isinstance(failure, RedisUnavailable)
            assert failure.text.startswith("READONLY")
            await until_open(lane)
            valkey.command("REPLICAOF", "NO", "ONE")
            await until_answered(lane, 5.0)
            assert await lane.send("SET", KEY, "1") == b"OK"
            assert seen.notices == ["promoted"]

    run(main())


def test_an_idle_connection_that_died_unseen_is_replaced(valkey: Valkey) -> None:
    """A firewall that forgets a connection tells nobody; the regular look at the server finds out."""

    async def main() -> None:
        options = {"connect_timeout_s": 0.2, "check_s": 0.2}
        async with Relay(valkey.port) as relay, lane_to(relay.url, None, deadline_s=DEADLINE_S, **options) as lane:
            await until_answered(lane)
            await asyncio.sleep(SHORT_LIFE_S + 0.1)  # from here on its loss is no sign that none can last
            relay.flowing.clear()

            async def replaced() -> bool:
                return relay.connections > 1

            await until(replaced)
            relay.flowing.set()
            await until_answered(lane, 5.0)

    run(main())
