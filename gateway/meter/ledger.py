"""The usage ledger, read: what each tenant used by UTC day, and whose usage there is.

The script that settles a call writes it, see ``gateway.redis.ledger_format``; nothing here changes it.
Invariants: a reader names the tenant whose usage it wants, and gets no other's. Memory is bounded by ``max_rows``; a
day is read in pages, so that no command of it keeps Redis busy for long.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from gateway.clock import wall
from gateway.errors import InvalidRequest
from gateway.redis import names
from gateway.redis.ledger_format import COUNTS, UsageCounts, UsageOf, day_name, decode_day
from gateway.redis.script import Script

DAYS_MAX: Final = 366
"""Most days of one question."""

_PAGE: Final = 1000  # fields that one HSCAN looks at
_DAYS_AT_ONCE: Final = 31
_READS_AT_ONCE: Final = 4  # by one process

Days = dict[datetime.date, dict[UsageOf, UsageCounts]]


class LaneLike(Protocol):
    """What is asked of the lane to Redis."""

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """One command."""

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """One script."""


class Ledger:
    """Reads the ledger. ``max_rows`` bounds an answer: rows are day x key x scenario x backend."""

    def __init__(self, lane: LaneLike, max_rows: int = 20_000) -> None:
        self._lane = lane
        self._max_rows = max_rows
        self._turns = asyncio.Semaphore(_READS_AT_ONCE)  # reading must not crowd out the limits on the same lane

    async def tenants(self) -> list[str]:
        """Every tenant that was in a serving registry within the retention, sorted. Raises RedisFailure."""
        found: list[bytes] = await self._lane.send("ZRANGE", names.tenants(), 0, -1)
        return sorted(name.decode() for name in found)

    async def days(self, tenant: str, first: datetime.date, last: datetime.date) -> Days:
        """The usage of ``tenant`` on the UTC days from ``first`` to ``last``, both included; days without are left out.

        Raises RedisFailure, and InvalidRequest where the days are in the wrong order, more than DAYS_MAX, or hold
        more than ``max_rows``.
        """
        wanted = list(_days(first, last))
        async with self._turns:
            return await self._read(tenant, wanted)

    async def _read(self, tenant: str, wanted: Sequence[datetime.date]) -> Days:
        room = _Room(self._max_rows * len(COUNTS))
        found: Days = {}
        for start in range(0, len(wanted), _DAYS_AT_ONCE):
            part = wanted[start : start + _DAYS_AT_ONCE]
            usages = await asyncio.gather(*(self._day(tenant, day, room) for day in part))
            found.update((day, usage) for day, usage in zip(part, usages, strict=True) if usage)
        return found

    async def _day(self, tenant: str, day: datetime.date, room: _Room) -> dict[UsageOf, UsageCounts]:
        key = names.usage(tenant, day_name(day))
        fields: dict[bytes, bytes] = {}
        cursor: bytes | int = 0
        while True:
            cursor, page = await self._lane.send("HSCAN", key, cursor, "COUNT", _PAGE)
            before = len(fields)
            fields.update(zip(page[::2], page[1::2], strict=True))  # a field may come twice, as of HSCAN
            room.take(len(fields) - before)
            if int(cursor) == 0:
                return decode_day(fields)


class _Room:
    """How many fields may still be read for one answer, by all its days together."""

    def __init__(self, fields: int) -> None:
        self._left = fields

    def take(self, fields: int) -> None:
        self._left -= fields
        if self._left < 0:
            raise InvalidRequest(
                "There is too much usage in these days: ask for fewer.", code="invalid_value", param="from"
            )


def _days(first: datetime.date, last: datetime.date) -> Iterator[datetime.date]:
    count = (last - first).days + 1
    if count < 1:
        raise InvalidRequest("`from` must not be after `to`.", code="invalid_value", param="from")
    if count > DAYS_MAX:
        raise InvalidRequest(f"At most {DAYS_MAX} days can be asked for.", code="invalid_value", param="from")
    return (first + datetime.timedelta(days=number) for number in range(count))


def today() -> datetime.date:
    """The UTC day that it is here."""
    return datetime.datetime.fromtimestamp(wall(), datetime.UTC).date()


def grouped(
    days: Days, group: Callable[[datetime.date, UsageOf], tuple[str, ...]]
) -> dict[tuple[str, ...], UsageCounts]:
    """Sums by whatever ``group`` makes of a row, sorted by it."""
    sums: dict[tuple[str, ...], UsageCounts] = {}
    for day, usage in days.items():
        for of, counts in usage.items():
            name = group(day, of)
            sums[name] = sums[name] + counts if name in sums else counts
    return dict(sorted(sums.items()))


def total(counts: Mapping[Any, UsageCounts]) -> UsageCounts:
    """The sum of all."""
    return sum(counts.values(), UsageCounts())


def usd(nano_usd: int) -> str:
    """Nano-USD as an exact decimal number of USD, without needless zeros: ``0.00125``."""
    whole, rest = divmod(nano_usd, 1_000_000_000)
    return f"{whole}.{rest:09d}".rstrip("0").removesuffix(".")
