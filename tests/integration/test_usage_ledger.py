"""The ledger is read from a real Valkey: by tenant and day, in pages, within bounds."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator

import pytest
import redis as redis_py

from gateway.errors import InvalidRequest, RedisFailure
from gateway.meter.ledger import Days, Ledger
from gateway.redis import names
from gateway.redis.config import RedisConfig, parse_url
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.lane import RedisLane
from gateway.redis.ledger_format import UsageCounts, UsageOf, encode_field
from tests.support.usage import write_counts

FIRST = datetime.date(2026, 11, 1)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """One server for this module."""
    valkey = EmbeddedValkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def valkey(server: EmbeddedValkey) -> Iterator[redis_py.Redis]:
    """An empty database."""
    with redis_py.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


def day(number: int) -> datetime.date:
    """The day of that number in November."""
    return FIRST + datetime.timedelta(days=number - 1)


def whose(key: str, backend: str = "qwen") -> UsageOf:
    """Usage of a key."""
    return UsageOf(key=key, scenario="chat", backend=backend)


def read(url: str, tenant: str, first: datetime.date, last: datetime.date, max_rows: int = 1000) -> Days:
    """What the ledger says."""

    async def main() -> Days:
        lane = RedisLane(RedisConfig(server=parse_url(url), deadline_s=5.0))
        await lane.start()
        try:
            return await Ledger(lane, max_rows).days(tenant, first, last)
        finally:
            await lane.close()

    return asyncio.run(main())


def test_days_of_a_tenant_are_read_and_nobody_elses(valkey: redis_py.Redis, server: EmbeddedValkey) -> None:
    """Both bounds are part of what is asked for; days without usage are left out."""
    for number in (1, 2, 4, 5):
        write_counts(valkey, "acme", day(number), whose("ci"), requests=number, output=10 * number)
    write_counts(valkey, "acme", day(2), whose("ci", ""), requests=1)
    write_counts(valkey, "acm", day(2), whose("ci"), requests=99)
    assert read(server.url, "acme", day(2), day(4)) == {
        day(2): {
            whose("ci"): UsageCounts(requests=2, output_tokens=20),
            whose("ci", ""): UsageCounts(requests=1),
        },
        day(4): {whose("ci"): UsageCounts(requests=4, output_tokens=40)},
    }
    assert read(server.url, "beta", day(1), day(30)) == {}


def test_large_day_is_read_whole(valkey: redis_py.Redis, server: EmbeddedValkey) -> None:
    """In several pages; each field counts once however often a page holds it."""
    rows = {whose(f"key-{number}"): UsageCounts(requests=number + 1, cost_nano_usd=7) for number in range(3000)}
    written = {encode_field(of, b"requests"): counts.requests for of, counts in rows.items()}
    written |= {encode_field(of, b"cost"): 7 for of in rows}
    valkey.hset(names.usage("acme", day(1).isoformat()), mapping=written)  # type: ignore[arg-type]
    assert read(server.url, "acme", day(1), day(1), max_rows=5000) == {day(1): rows}


def test_too_much_is_refused(valkey: redis_py.Redis, server: EmbeddedValkey) -> None:
    """All days together have the bound, not each."""
    for number in range(1, 7):
        for key in range(50):
            write_counts(valkey, "acme", day(number), whose(f"key-{key}"), **dict.fromkeys(FIELDS, 1))
    assert len(read(server.url, "acme", day(1), day(5), max_rows=250)) == 5
    with pytest.raises(InvalidRequest, match="too much usage"):
        read(server.url, "acme", day(1), day(6), max_rows=250)


FIELDS = ("requests", "input", "cached", "output", "cost", "estimated")


@pytest.mark.parametrize(
    ("first", "last"), [(day(2), day(1)), (day(1), day(1).replace(year=2027) + datetime.timedelta(1))]
)
def test_wrong_bounds_are_refused(server: EmbeddedValkey, first: datetime.date, last: datetime.date) -> None:
    """From after to, and more than a year."""
    with pytest.raises(InvalidRequest):
        read(server.url, "acme", first, last)


def test_year_and_a_day_of_a_leap_year_fit(valkey: redis_py.Redis, server: EmbeddedValkey) -> None:
    """366 days."""
    last = day(1) + datetime.timedelta(days=365)
    write_counts(valkey, "acme", last, whose("ci"), requests=1)
    assert list(read(server.url, "acme", day(1), last)) == [last]


def test_redis_that_is_gone_is_said(server: EmbeddedValkey) -> None:
    """Not an empty ledger."""
    gone = EmbeddedValkey.start()
    gone.stop()
    with pytest.raises(RedisFailure):
        read(gone.url, "acme", day(1), day(2))
