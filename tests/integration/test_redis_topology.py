"""The lane with several servers: a primary that Sentinels name, and the nodes of a cluster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import RedisUnavailable
from gateway.redis.cluster import slot_of
from gateway.redis.names import fleet_key, tenant_key
from gateway.redis.script import Script
from tests.support.redis_lane import Remembered, lane_to, outcome, run, until, until_answered
from tests.support.valkey import SERVICE, Valkey, service, valkeys
from tests.support.waiting import black_hole_port, eventually, refusing_port

KEY = tenant_key("acme", "test")
ROLE = Script("role", "return redis.call('get', KEYS[1])")


# Sentinel


@contextmanager
def alone() -> Iterator[tuple[Valkey, Valkey]]:
    """A primary and a Sentinel that knows it."""
    with (
        Valkey() as primary,
        Valkey(f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1", sentinel=True) as sentinel,
    ):
        yield primary, sentinel


def test_the_primary_is_found_through_any_sentinel_that_answers() -> None:
    """One that is away is passed over."""

    async def main() -> None:
        with alone() as (primary, sentinel), refusing_port() as gone, black_hole_port() as hole:
            url = f"redis+sentinel://127.0.0.1:{gone},127.0.0.1:{hole},127.0.0.1:{sentinel.port}/{SERVICE}/1"
            async with lane_to(url, connect_timeout_s=0.3) as lane:
                await lane.send("SET", KEY, "1")
                assert "db1:keys=1" in primary.command("INFO", "keyspace")

    run(main())


def test_the_password_of_sentinels_may_change_in_the_file_of_the_address(tmp_path: Path) -> None:
    """It is read at every question, so that a Sentinel that was given another password is asked with that."""
    file = tmp_path / "url"

    async def main() -> None:
        with (
            Valkey() as primary,
            Valkey(
                f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1", "requirepass rotated", sentinel=True
            ) as sentinel,
        ):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}?sentinel_password="
            file.write_text(f"{url}before")
            async with lane_to(f"{url}before", url_file=file) as lane:

                async def closed() -> bool:
                    return not lane.available

                await until(closed)
                file.write_text(f"{url}rotated\n")
                await until_answered(lane)

    run(main())


def test_a_service_that_no_sentinel_knows() -> None:
    """The breaker opens, saying which."""

    async def main() -> None:
        with alone() as (_, sentinel):
            async with lane_to(f"redis+sentinel://127.0.0.1:{sentinel.port}/others") as lane:

                async def closed() -> bool:
                    return not lane.available

                await until(closed)
                assert "does not know the service 'others'" in str(await outcome(lane.send("PING")))

    run(main())


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_failover(end: str) -> None:
    """The primary goes; the lane finds the promoted replica by itself and says that writes may be lost."""

    async def main() -> None:
        with service() as (primary, replica, sentinel):
            seen = Remembered()
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
            async with lane_to(url, seen, deadline_s=0.2, connect_timeout_s=0.5, probe_s=0.3) as lane:
                await until_answered(lane)
                await lane.run(ROLE, [KEY], [])
                await lane.send("SET", KEY, "1")
                eventually(lambda: replica.command("GET", KEY.decode()).endswith("1\r\n"), 5.0)
                {"killed": primary.kill, "stopped": primary.pause}[end]()

                async def written() -> bool:
                    return bool(await lane.send("SET", KEY, "2") == b"OK")

                await until(written, 30.0)
                assert replica.command("GET", KEY.decode()).endswith("2\r\n")
                assert await lane.run(ROLE, [KEY], []) == b"2"
                assert "promoted" in seen.notices

    run(main())


def test_an_ordered_failover_is_followed_while_both_servers_live() -> None:
    """The former primary answers still; the lane leaves it."""

    async def main() -> None:
        with service() as (primary, replica, sentinel):
            url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
            async with lane_to(url, check_s=0.2, deadline_s=0.2) as lane:
                await until_answered(lane)
                assert sentinel.command("SENTINEL", "FAILOVER", SERVICE).startswith("+OK")
                eventually(lambda: "role:master" in replica.command("INFO", "replication"), 20.0)
                eventually(lambda: "role:slave" in primary.command("INFO", "replication"), 20.0)

                async def written() -> bool:
                    return bool(await lane.send("SET", KEY, "2") == b"OK")

                await until(written, 20.0)
                assert replica.command("GET", KEY.decode()).endswith("2\r\n")

    run(main())


# Cluster


@contextmanager
def cluster(split: int = 8192) -> Iterator[tuple[Valkey, Valkey]]:
    """Two nodes: the first has the slots below ``split``."""
    with valkeys(2, "cluster-enabled yes", "cluster-node-timeout 1000") as nodes:
        first, second = nodes
        first.command("CLUSTER", "ADDSLOTSRANGE", "0", str(split - 1))
        second.command("CLUSTER", "ADDSLOTSRANGE", str(split), "16383")
        first.command("CLUSTER", "MEET", "127.0.0.1", str(second.port))
        wait_until_whole(nodes)
        yield first, second


def wait_until_whole(nodes: Sequence[Valkey]) -> None:
    """Wait until every node serves its slots and knows who serves the others."""

    def whole() -> bool:
        said = [node.command("CLUSTER", "INFO") for node in nodes]
        return all("cluster_state:ok" in text and "cluster_slots_ok:16384" in text for text in said)

    eventually(whole, 20.0)


def key_between(first: int, last: int) -> bytes:
    """A key whose slot is in a range."""
    return next(
        key for key in (tenant_key(f"t{number}", "test") for number in range(100_000)) if first <= slot_of(key) <= last
    )


def url_of(*nodes: Valkey) -> str:
    """The address of a cluster by some of its nodes."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def node_id(node: Valkey) -> str:
    """The name of a node."""
    found = re.search(r"[0-9a-f]{40}", node.command("CLUSTER", "MYID"))
    assert found
    return found[0]


def test_commands_go_to_the_node_of_their_key() -> None:
    """Known by one node; scripts, commands and commands without a key, in any mixture."""

    async def main() -> None:
        with cluster() as (first, second):
            async with lane_to(url_of(first)) as lane:
                keys = [tenant_key(f"t{number}", "test") for number in range(200)] + [fleet_key("test")]
                await asyncio.gather(*(lane.send("SET", key, key) for key in keys))
                assert await asyncio.gather(*(lane.send("GET", key) for key in keys)) == keys
                assert await asyncio.gather(*(lane.run(ROLE, [key], []) for key in keys)) == keys
                assert await lane.send("PING") == b"PONG"
                assert await lane.send("XGROUP", "CREATE", keys[0] + b"s", "readers", "0", "MKSTREAM") == b"OK"
                sizes = [int(node.command("DBSIZE").strip()[1:]) for node in (first, second)]
                assert sum(sizes) == len(keys) + 1
                assert min(sizes) > 50

    run(main())


def test_slots_that_move_are_followed() -> None:
    """While a slot is on its way (ASK) and after it has arrived (MOVED), no command is lost."""

    async def main() -> None:
        with cluster() as (first, second):
            key = key_between(0, 8191)
            slot = str(slot_of(key))
            async with lane_to(url_of(first, second)) as lane:
                await until_answered(lane)
                await lane.send("SET", key, "1")
                second.command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(first))
                first.command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(second))
                first.command("MIGRATE", "127.0.0.1", str(second.port), key.decode(), "0", "1000")
                assert await asyncio.gather(*(lane.send("INCR", key) for _ in range(5))) == [2, 3, 4, 5, 6]
                assert await lane.run(ROLE, [key], []) == b"6"
                for node in (second, first):
                    node.command("CLUSTER", "SETSLOT", slot, "NODE", node_id(second))
                assert await asyncio.gather(*(lane.send("INCR", key) for _ in range(5))) == [7, 8, 9, 10, 11]

    run(main())


def test_a_node_that_is_away_hurts_its_own_slots_only() -> None:
    """Commands to the other are answered; the lane as a whole stays available."""

    async def main() -> None:
        with valkeys(
            2, "cluster-enabled yes", "cluster-node-timeout 1000", "cluster-require-full-coverage no"
        ) as nodes:
            first, second = nodes
            first.command("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
            second.command("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
            first.command("CLUSTER", "MEET", "127.0.0.1", str(second.port))
            wait_until_whole(nodes)
            here, there = key_between(0, 8191), key_between(8192, 16383)
            changes: list[bool] = []
            seen = Remembered()
            async with lane_to(url_of(second, first), seen, deadline_s=0.3) as lane:
                lane.on_change(changes.append)
                await asyncio.gather(lane.send("SET", here, "1"), lane.send("SET", there, "2"))
                second.kill()

                async def unavailable() -> bool:
                    return isinstance(await outcome(lane.send("GET", there)), RedisUnavailable)

                await until(unavailable)
                assert await lane.send("GET", here) == b"1"
                assert lane.available
                assert await lane.send("PING") == b"PONG"
                second.start()

                async def written() -> bool:
                    return bool(await lane.send("SET", there, "3") == b"OK")

                await until(written, 20.0)
                assert changes
                assert all(changes)
                assert set(seen.unused) == {0, 1}
                assert seen.unused[-1] == 0

    run(main())


def test_a_promoted_node_of_a_cluster_is_found_and_said() -> None:
    """Its primary goes; the replica takes over and the lane follows."""

    async def main() -> None:
        with valkeys(2, "cluster-enabled yes", "cluster-node-timeout 1000") as (primary, replica):
            primary.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            primary.command("CLUSTER", "MEET", "127.0.0.1", str(replica.port))
            eventually(lambda: node_id(primary) in replica.command("CLUSTER", "NODES"), 20.0)
            eventually(lambda: replica.command("CLUSTER", "REPLICATE", node_id(primary)).startswith("+OK"), 20.0)
            eventually(lambda: "master_link_status:up" in replica.command("INFO", "replication"), 20.0)
            eventually(lambda: str(replica.port) in primary.command("CLUSTER", "SLOTS"), 20.0)
            wait_until_whole((primary, replica))
            seen = Remembered()
            async with lane_to(url_of(primary, replica), seen, check_s=0.1) as lane:
                await lane.send("SET", KEY, "1")
                await asyncio.sleep(0.5)  # past a few looks at who serves what
                eventually(lambda: replica.command("CLUSTER", "FAILOVER").startswith("+OK"), 10.0)

                async def promoted() -> bool:
                    return set(seen.notices) == {"promoted"}

                await until(promoted, 20.0)
                assert await lane.send("INCR", KEY) == 2
                assert "role:master" in replica.command("INFO", "replication")

    run(main())
