"""Usage events come out of a real Valkey at least once each, whatever happens to who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
import redis as redis_py

from gateway.errors import RedisFailure
from gateway.meter.export import Exporter, ExportOptions, UsageWatch
from gateway.redis import names
from gateway.redis.config import RedisConfig, parse_url
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.lane import RedisLane
from gateway.redis.ledger_format import UsageEvent
from tests.support.usage import Valkey, write_events
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """One server for this module."""
    valkey = EmbeddedValkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def valkey(server: EmbeddedValkey) -> Iterator[Valkey]:
    """An empty database."""
    with redis_py.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@asynccontextmanager
async def lane_to(url: str) -> AsyncIterator[RedisLane]:
    """A patient lane."""
    lane = RedisLane(RedisConfig(server=parse_url(url), deadline_s=5.0))
    await lane.start()
    try:
        yield lane
    finally:
        await lane.close()


class Taken:
    """A sink that keeps what it is given, and fails when told to."""

    def __init__(self) -> None:
        self.batches: list[list[UsageEvent]] = []
        self.fails = False
        self.lost_count = 0

    def lost(self, tenant: str, events: int) -> None:
        """Count."""
        self.lost_count += events

    async def take(self, events: Sequence[UsageEvent]) -> None:
        if self.fails:
            raise OSError("disk full")
        self.batches.append(list(events))

    @property
    def ids(self) -> list[int]:
        """In the order in which they came."""
        return [int(event.id) for batch in self.batches for event in batch]


def exported(url: str, use: Callable[[RedisLane, Taken], Awaitable[None]]) -> Taken:
    """What ``use`` has exported."""
    taken = Taken()

    async def main() -> None:
        async with lane_to(url) as lane:
            await use(lane, taken)

    asyncio.run(main())
    return taken


def drain(url: str, *tenants: str, **options: object) -> Taken:
    """One run over these tenants, from start to end."""

    async def use(lane: RedisLane, taken: Taken) -> None:
        await Exporter(lane, taken, ExportOptions(**options)).drain(tenants or ("acme",))  # type: ignore[arg-type]

    return exported(url, use)


def take_and_die(url: str, **options: object) -> None:
    """Take a batch of acme's and write none of it."""

    async def dies(lane: RedisLane, taken: Taken) -> None:
        taken.fails = True
        with pytest.raises(OSError, match="disk full"):
            await Exporter(lane, taken, ExportOptions(**options)).drain(["acme"])  # type: ignore[arg-type]

    exported(url, dies)


def lag_and_lost(url: str, *tenants: str) -> tuple[int, int]:
    """What the watch says of these tenants."""
    seen = Seen()

    async def use(lane: RedisLane, _: Taken) -> None:
        await UsageWatch(lane, lambda: tenants or ("acme",), seen, period_s=10, retention_s=86400).look()

    exported(url, use)
    return seen.lag, seen.lost


class Seen:
    """Metrics that only keep these two."""

    def __init__(self) -> None:
        self.lag = self.lost = 0

    def usage_export_lag(self, events: int) -> None:
        """The gauge."""
        self.lag = events

    def usage_lost(self, events: int) -> None:
        """The counter."""
        self.lost += events


def forget_leader(valkey: Valkey) -> None:
    """Let the next one look."""
    valkey.delete(names.usage_watch())


def test_each_event_comes_once_in_the_order_of_its_tenant(valkey: Valkey, server: EmbeddedValkey) -> None:
    """In batches, so that memory is bounded; a second run has nothing to do, a third one what came since."""
    write_events(valkey, "acme", 1, 25)
    write_events(valkey, "beta", 101, 103)
    taken = drain(server.url, "acme", "beta", "nobody", batch=10)
    assert [number for number in taken.ids if number < 100] == list(range(1, 26))
    assert [number for number in taken.ids if number > 100] == [101, 102, 103]
    assert max(len(batch) for batch in taken.batches) == 10
    assert (len(taken.ids), taken.lost_count) == (28, 0)
    assert drain(server.url, "acme", "beta").ids == []
    write_events(valkey, "acme", 26, 27)
    assert drain(server.url, "acme", "beta").ids == [26, 27]


def test_what_is_exported_is_what_was_written(valkey: Valkey, server: EmbeddedValkey) -> None:
    """With its tenant, and the time and place that the server gave it."""
    write_events(valkey, "acme", 7, 7)
    ((event,),) = drain(server.url).batches
    place = valkey.xinfo_stream(names.events("acme"))["last-generated-id"]
    assert isinstance(place, bytes)
    assert (event.tenant, event.id, event.input_tokens, event.cost_nano_usd) == ("acme", "7", 7, 5)
    assert (event.stream_id, event.time_ms) == (place.decode(), int(place.partition(b"-")[0]))


def test_what_was_not_written_comes_again_at_the_next_start(valkey: Valkey, server: EmbeddedValkey) -> None:
    """An exporter that dies between taking and writing loses nothing; what it had written does not come again."""
    write_events(valkey, "acme", 1, 25)

    async def dies(lane: RedisLane, taken: Taken) -> None:
        exporter = Exporter(lane, taken, ExportOptions(batch=10))
        while len(taken.ids) < 10:
            await exporter.step(["acme"])
        taken.fails = True
        with pytest.raises(OSError, match="disk full"):
            await exporter.drain(["acme"])

    assert exported(server.url, dies).ids == list(range(1, 11))
    assert drain(server.url, batch=10).ids == list(range(11, 26))


def test_same_exporter_goes_on_after_its_sink_failed(valkey: Valkey, server: EmbeddedValkey) -> None:
    """What the sink refused is asked for again, without a new start."""
    write_events(valkey, "acme", 1, 5)

    async def recovers(lane: RedisLane, taken: Taken) -> None:
        exporter = Exporter(lane, taken, ExportOptions(batch=2))
        taken.fails = True
        with pytest.raises(OSError, match="disk full"):
            await exporter.drain(["acme"])
        taken.fails = False
        await exporter.drain(["acme"])

    assert exported(server.url, recovers).ids == [1, 2, 3, 4, 5]


def test_events_of_a_dead_consumer_are_claimed(valkey: Valkey, server: EmbeddedValkey) -> None:
    """By one of another name, after the time that is set; until then they are left to who has them."""
    write_events(valkey, "acme", 1, 3)
    drain(server.url, "acme", batch=1)
    write_events(valkey, "acme", 4, 6)
    take_and_die(server.url, consumer="dead", batch=2)
    assert drain(server.url, consumer="other", claim_after_s=3600).ids == [6]
    assert drain(server.url, consumer="other", claim_after_s=0).ids == [4, 5]
    assert valkey.xpending(names.events("acme"), "export")["pending"] == 0


def test_two_consumers_share_the_work(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Each event goes to one of them."""
    write_events(valkey, "acme", 1, 40)

    async def both(lane: RedisLane, taken: Taken) -> None:
        other = Taken()
        pairs = [("one", taken), ("two", other)]
        exporters = [Exporter(lane, sink, ExportOptions(consumer=name, batch=3)) for name, sink in pairs]
        await asyncio.gather(*(exporter.drain(["acme"]) for exporter in exporters))
        assert taken.ids
        assert other.ids
        assert sorted(taken.ids + other.ids) == list(range(1, 41))

    exported(server.url, both)


def test_groups_are_independent(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Each gets every event."""
    write_events(valkey, "acme", 1, 4)
    assert drain(server.url, group="billing").ids == [1, 2, 3, 4]
    assert drain(server.url, group="finance").ids == [1, 2, 3, 4]


def test_trimmed_events_are_counted_once(valkey: Valkey, server: EmbeddedValkey) -> None:
    """By who comes first, the exporter or the watch; the metric hears of each once."""
    write_events(valkey, "acme", 1, 10)
    assert drain(server.url).ids == list(range(1, 11))
    write_events(valkey, "acme", 11, 30, maxlen=8)
    assert lag_and_lost(server.url) == (8, 12)
    forget_leader(valkey)
    write_events(valkey, "acme", 31, 33, maxlen=8)
    taken = drain(server.url)
    assert taken.ids == list(range(26, 34))
    assert taken.lost_count == 3
    assert lag_and_lost(server.url) == (0, 3)
    forget_leader(valkey)
    assert lag_and_lost(server.url) == (0, 0)


def test_events_before_the_first_export_are_not_lost(valkey: Valkey, server: EmbeddedValkey) -> None:
    """A group begins with what there is; before it there was nobody to lose something."""
    write_events(valkey, "acme", 1, 30, maxlen=8)
    assert lag_and_lost(server.url) == (0, 0)
    forget_leader(valkey)
    taken = drain(server.url)
    assert (taken.ids, taken.lost_count) == (list(range(23, 31)), 0)
    assert lag_and_lost(server.url) == (0, 0)


@pytest.mark.parametrize("consumer", ["exporter", "other"])
def test_events_trimmed_while_taken_and_not_written_are_lost(
    valkey: Valkey, server: EmbeddedValkey, consumer: str
) -> None:
    """They were handed out, perhaps written: what is certain is that they were never acknowledged."""
    write_events(valkey, "acme", 1, 2)
    drain(server.url)
    write_events(valkey, "acme", 3, 6)
    take_and_die(server.url)
    write_events(valkey, "acme", 7, 7, maxlen=3)
    taken = drain(server.url, consumer=consumer, claim_after_s=0)
    assert taken.ids == [5, 6, 7]
    assert taken.lost_count == 2
    assert lag_and_lost(server.url) == (0, 2)


def test_lag_is_what_is_not_acknowledged(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Of the slowest group of each tenant, over all tenants that were ever named."""
    write_events(valkey, "acme", 1, 10)
    write_events(valkey, "beta", 1, 5)
    drain(server.url, "acme", "beta")
    drain(server.url, "acme", group="billing")
    write_events(valkey, "acme", 11, 13)
    write_events(valkey, "beta", 6, 6)
    take_and_die(server.url, group="billing", batch=1)
    drain(server.url, "acme")
    assert lag_and_lost(server.url, "acme", "beta") == (3 + 1, 0)
    forget_leader(valkey)
    assert lag_and_lost(server.url, "acme") == (3 + 1, 0)  # beta has left the registry, not its usage


def test_one_replica_tells_the_lag(valkey: Valkey, server: EmbeddedValkey) -> None:
    """The others say 0, so that the sum over replicas is right; one that is gone is followed by another."""
    write_events(valkey, "acme", 1, 1)
    drain(server.url)
    write_events(valkey, "acme", 2, 4)
    seen = [Seen(), Seen()]

    async def use(lane: RedisLane, _: Taken) -> None:
        one, two = (UsageWatch(lane, lambda: ["acme"], each, period_s=10, retention_s=86400) for each in seen)
        for watch in (one, two, one, two):
            await watch.look()
        assert [each.lag for each in seen] == [3, 0]
        forget_leader(valkey)
        for watch in (two, one):
            await watch.look()
        assert [each.lag for each in seen] == [0, 3]

    exported(server.url, use)
    assert valkey.zrange(names.tenants(), 0, -1) == [b"acme"]


def test_tenants_are_forgotten_after_the_retention(valkey: Valkey, server: EmbeddedValkey) -> None:
    """The list of tenants does not grow for ever."""
    valkey.zadd(names.tenants(), {"gone": 1})
    lag_and_lost(server.url, "acme")
    assert valkey.zrange(names.tenants(), 0, -1) == [b"acme"]


def test_strange_entry_does_not_stop_the_export(valkey: Valkey, server: EmbeddedValkey) -> None:
    """It is counted as lost and not taken for an event."""
    write_events(valkey, "acme", 1, 1)
    valkey.xadd(names.events("acme"), {"id": "x", "input": "many"})
    write_events(valkey, "acme", 2, 2)
    taken = drain(server.url)
    assert (taken.ids, taken.lost_count) == ([1, 2], 1)


def test_positions_expire_with_the_events(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Nothing of a tenant stays for ever."""
    write_events(valkey, "acme", 1, 1)
    valkey.pexpire(names.events("acme"), 100_000)
    drain(server.url)
    assert 0 < valkey.pttl(names.export("acme")) <= 100_000


def test_stream_that_was_lost_is_begun_anew(valkey: Valkey, server: EmbeddedValkey) -> None:
    """Positions of the old one do not count for the new one."""
    write_events(valkey, "acme", 1, 9)
    drain(server.url)
    valkey.delete(names.events("acme"))
    write_events(valkey, "acme", 11, 13)
    taken = drain(server.url)
    assert (taken.ids, taken.lost_count) == ([11, 12, 13], 0)


def test_following_outlives_a_redis_that_fails(valkey: Valkey) -> None:
    """It says so once, says when it is over, and goes on where it was."""
    server = EmbeddedValkey.start()
    told: list[str] = []

    class Flaky:
        """A lane that fails when told to."""

        def __init__(self, lane: RedisLane) -> None:
            self.lane, self.fails = lane, False

        def send(self, *parts: bytes | str | int) -> asyncio.Future[object]:
            """Fail, or send."""
            return _failed() if self.fails else self.lane.send(*parts)

        def run(self, *parts: object) -> asyncio.Future[object]:
            """Fail, or run."""
            return _failed() if self.fails else self.lane.run(*parts)  # type: ignore[arg-type]

    async def use(real: RedisLane, taken: Taken) -> None:
        lane = Flaky(real)

        async def tenants() -> list[str]:
            return ["acme"]

        with redis_py.Redis.from_url(server.url) as client:
            write_events(client, "acme", 1, 3)
            stopping = asyncio.Event()
            exporter = Exporter(lane, taken, ExportOptions(), stopping)
            following = asyncio.create_task(exporter.follow(tenants, told.append, 0.01))
            await until(lambda: taken.ids == [1, 2, 3])
            lane.fails = True
            await until(lambda: told == ["cut"])
            write_events(client, "acme", 4, 5)
            lane.fails = False
            await until(lambda: taken.ids == [1, 2, 3, 4, 5])
            assert told == ["cut", ""]
            stopping.set()
            await following

    try:
        exported(server.url, use)
    finally:
        server.stop()


def _failed() -> asyncio.Future[object]:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    future.set_exception(RedisFailure("cut"))
    return future


async def until(reached: Callable[[], bool]) -> None:
    """Wait for it, at most 10 s."""
    await asyncio.to_thread(eventually, reached, 10.0)
