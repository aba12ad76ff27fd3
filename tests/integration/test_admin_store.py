"""Records of keys in a real Valkey: written by comparison, read whole, put back when they were lost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.clock import monotonic
from gateway.errors import RedisFailure
from gateway.redis import names
from gateway.redis.config import Address, RedisConfig, parse_url
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.lane import RedisLane
from gateway.registry.keystore import Change, Conflict, KeyStore, StoreFull
from gateway.registry.keysync import KeySync
from gateway.registry.overlay import Overlay
from gateway.registry.records import KeyRecord, Record, Revocation, by_id, digest_entry, encode, key_document
from tests.support.relay import Relay


def key(name: str, revision: int = 1, revoked_at: float | None = None) -> KeyRecord:
    """A record of a key of tenant acme."""
    document = key_document(name, "acme", [digest_entry(name.encode().ljust(32, b"."), None)])
    return KeyRecord(document=document, revision=revision, created_at=1.0, revoked_at=revoked_at)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """One Valkey for these tests; each begins with nothing in it."""
    server = EmbeddedValkey.start()
    yield server
    server.stop()


def with_lane(server: EmbeddedValkey, work: Callable[[RedisLane], Awaitable[None]], *, empty: bool = True) -> None:
    """Run ``work`` with a lane to a server, emptied before."""

    async def main() -> None:
        lane = RedisLane(RedisConfig(server=parse_url(server.url), deadline_s=2.0))
        await lane.start()
        try:
            if empty:
                await lane.send("FLUSHALL")
            await work(lane)
        finally:
            await lane.close()

    asyncio.run(main())


class Replica:
    """One process's view of the store."""

    def __init__(self, lane: RedisLane, cache: Path | None = None) -> None:
        self.served: list[Overlay] = []
        self.sync = KeySync(KeyStore(lane), self.served.append, poll_s=0.1, cache=cache)

    @property
    def records(self) -> dict[str, Record]:
        """What it knows."""
        return dict(self.sync.overlay.records)


def test_a_write_is_on_the_state_that_was_seen_or_not_at_all(server: EmbeddedValkey) -> None:
    """Of two records that one write replaces, both change or neither."""

    async def work(lane: RedisLane) -> None:
        store = KeyStore(lane)
        one, other = key("one"), key("other")
        await store.write([Change(None, one)])
        with pytest.raises(Conflict) as caught:
            await store.write([Change(None, other), Change(None, key("one", 2))])
        assert caught.value.record_id == "key/one"
        assert await store.get(other.id) is None
        await store.write([Change(None, other), Change(encode(one), key("one", 2))])
        assert await store.get("key/one") == encode(key("one", 2))
        await store.write([Change(None, other)])  # as after an answer that was lost

    with_lane(server, work)


def test_there_is_a_bound_on_what_is_added_and_none_on_what_is_revoked(server: EmbeddedValkey) -> None:
    """A full store takes no further key and every revocation."""

    async def work(lane: RedisLane) -> None:
        store = KeyStore(lane)
        await store.write([Change(None, key("one"))], max_records=2)
        await store.write([Change(None, key("two"))], max_records=2)
        with pytest.raises(StoreFull):
            await store.write([Change(None, key("three"))], max_records=2)
        await store.write([Change(encode(key("one")), key("one", 2))], max_records=2)
        await store.write([Change(None, Revocation(sha256="ab" * 32, revoked_at=1.0))])
        assert await lane.send("HLEN", names.keys()) == 4

    with_lane(server, work)


def test_thousands_of_records_are_read_whole_and_only_when_they_changed(server: EmbeddedValkey) -> None:
    """Page by page, one state; the same state is not read twice."""

    async def work(lane: RedisLane) -> None:
        store = KeyStore(lane)
        everything = [key(f"key-{number}") for number in range(2500)]
        for start in range(0, 2500, 100):
            await store.write([Change(None, record) for record in everything[start : start + 100]])
        state = await store.changed(None)
        assert state is not None
        assert state.records == by_id(everything)
        assert await store.changed(state.head) is None
        await store.write([Change(None, key("new"))])
        assert await store.changed(state.head) is not None

    with_lane(server, work)


def test_replicas_hear_of_each_others_changes(server: EmbeddedValkey) -> None:
    """The writer at once, the others with their next look; nothing new is told twice."""

    async def work(lane: RedisLane) -> None:
        one, other = Replica(lane), Replica(lane)
        assert await one.sync.look()
        assert await other.sync.look()
        assert [overlay.records for overlay in other.served] == [{}]
        await one.sync.write([Change(None, key("made"))])
        assert one.records == by_id([key("made")])
        assert await other.sync.look()
        assert await other.sync.look()
        assert await one.sync.look()
        assert other.records == one.records
        assert (len(one.served), len(other.served)) == (2, 2)

    with_lane(server, work)


def test_a_change_arrives_in_time_from_a_slow_store(server: EmbeddedValkey) -> None:
    """With 300 ms for every answer a revocation is on the other replica within two seconds."""
    target = parse_url(server.url)

    async def work(lane: RedisLane) -> None:
        async with Relay(target.addresses[0].port) as relay:
            address = Address("127.0.0.1", relay.port)
            slow = RedisLane(RedisConfig(server=target._replace(addresses=(address,)), deadline_s=1.0))
            await slow.start()
            replica, writer = Replica(slow), Replica(lane)
            await writer.sync.write([Change(None, key("made"))])
            replica.sync._poll_s = 0.5
            running = asyncio.create_task(replica.sync.run())
            await until(lambda: replica.records, 10)
            relay.delay_s, asked = 0.3, relay.writes
            await until(lambda: relay.writes > asked, 2)  # it is in the middle of a look that is slow
            await writer.sync.write([Change(encode(key("made")), key("made", 2, revoked_at=5.0))])
            await until(lambda: replica.records == writer.records, 2.0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await slow.close()

    with_lane(server, work)


async def until(probe: Callable[[], object], within_s: float) -> None:
    """Wait for a condition, or fail at the deadline."""
    deadline = monotonic() + within_s
    while not probe():
        assert monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


def test_a_store_that_lost_everything_gets_it_back(server: EmbeddedValkey, caplog: pytest.LogCaptureFixture) -> None:
    """From any replica that knew it, several at once; that is said, and the replicas never served less."""

    async def work(lane: RedisLane) -> None:
        replicas = [Replica(lane) for _ in range(3)]
        revoked: list[Record] = [key("made", 2, revoked_at=5.0), Revocation(sha256="ab" * 32, revoked_at=5.0)]
        await replicas[0].sync.write([Change(None, each) for each in revoked])
        for replica in replicas:
            await replica.sync.look()
        await lane.send("FLUSHALL")
        await asyncio.gather(*(replica.sync.look() for replica in replicas))
        fresh = Replica(lane)
        await fresh.sync.look()
        for replica in (*replicas, fresh):
            await replica.sync.look()
            assert replica.records == by_id(revoked)
        assert all(overlay.records for replica in replicas for overlay in replica.served[1:])

    with caplog.at_level(logging.WARNING, "gateway.registry"):
        with_lane(server, work)
    assert "Redis has lost 2 records" in caplog.text


def test_a_store_that_lost_its_last_writes_gets_those_back(server: EmbeddedValkey) -> None:
    """As after a failover to a replica that was behind; what was written since then stays."""

    async def work(lane: RedisLane) -> None:
        replica = Replica(lane)
        await replica.sync.write([Change(None, key("made"))])
        await replica.sync.look()
        await replica.sync.write([Change(encode(key("made")), key("made", 2, revoked_at=9.0))])
        await lane.send(
            "HSET", names.keys(), "head", "old", "key/made", encode(key("made")), "key/new", encode(key("new"))
        )
        await replica.sync.look()
        await replica.sync.look()
        wanted = by_id([key("made", 2, revoked_at=9.0), key("new")])
        assert replica.records == wanted
        state = await KeyStore(lane).changed(None)
        assert state is not None
        assert state.records == wanted

    with_lane(server, work)


def test_a_record_that_cannot_be_read_harms_no_other(server: EmbeddedValkey, caplog: pytest.LogCaptureFixture) -> None:
    """It is named once, kept as it is, and not written over."""

    async def work(lane: RedisLane) -> None:
        replica = Replica(lane)
        await replica.sync.write([Change(None, key("made")), Change(None, key("broken"))])
        await lane.send("HSET", names.keys(), "head", "x", "key/broken", "{", "key/other", encode(key("made")))
        for _ in range(3):
            assert await replica.sync.look()
        assert replica.records == by_id([key("made"), key("broken")])
        assert await lane.send("HGET", names.keys(), "key/broken") == b"{"

    with caplog.at_level(logging.ERROR, "gateway.registry"):
        with_lane(server, work)
    assert len([record for record in caplog.records if "cannot be read" in record.getMessage()]) == 2


def test_what_was_known_serves_while_the_store_is_away_and_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it goes; the cache file brings a new process to what the old one knew, and holds no key."""
    server, cache = EmbeddedValkey.start(), tmp_path / "keys.json"

    async def work(lane: RedisLane) -> None:
        replica = Replica(lane, cache)
        replica.sync.remember()
        assert not replica.sync.known
        await replica.sync.write(
            [Change(None, key("made")), Change(None, Revocation(sha256="ab" * 32, revoked_at=5.0))]
        )
        known = replica.records
        server.stop()
        for _ in range(3):
            assert not await replica.sync.look()
        assert replica.records == known
        with pytest.raises(RedisFailure):
            await replica.sync.write([Change(None, key("late"))])
        fresh = Replica(lane, cache)
        fresh.sync.remember()
        assert fresh.sync.known
        assert fresh.records == known
        assert not await fresh.sync.look()

    with caplog.at_level(logging.WARNING, "gateway.registry"):
        with_lane(server, work, empty=False)
    lines = [record for record in caplog.records if "cannot be read from Redis" in record.getMessage()]
    assert len(lines) == 2  # one for each of the two
    assert [json.loads(line)["type"] for line in cache.read_text().splitlines()] == ["key", "revocation"]
    assert cache.stat().st_mode & 0o077 == 0


def test_a_cache_file_that_is_broken_is_said_and_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The gateway waits for the store then."""
    cache = tmp_path / "keys.json"
    cache.write_text("{")

    async def main() -> None:
        lane = RedisLane(RedisConfig(server=parse_url("redis://127.0.0.1:1")))
        replica = Replica(lane, cache)
        replica.sync.remember()
        assert not replica.sync.known

    asyncio.run(main())
    assert "cannot be read: Unreadable" in caplog.text
