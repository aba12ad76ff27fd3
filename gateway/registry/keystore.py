"""The records of keys in Redis: read whole when they changed, replaced by comparison, all of them or none.

Invariant: what ``changed`` returns is one state that the store was in; a write happens on the state that its caller had
seen or not at all. Nothing here decides what a record may say (see ``records``). Raises RedisFailure wherever Redis is
asked.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from gateway.errors import RedisFailure, RedisUnanswered
from gateway.redis import names
from gateway.redis.script import Script
from gateway.registry.records import Record, Unreadable, decode, encode

HEAD: Final = b"head"
PAGE: Final = 1000
"""How many records are asked for at once."""

READ_TRIES: Final = 3
"""How often a read begins anew because of a write in between, before it is left to the next poll."""

WRITE_TRIES: Final = 3
"""How often a write is sent whose answer does not come."""

BATCH: Final = 100
"""Most records in one write."""

_log = logging.getLogger(__name__)


class Lane(Protocol):
    """What this needs of the lane to Redis."""

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """Send one command."""

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """Run a script."""


class State(NamedTuple):
    """What the store held at one moment; ``head`` names that moment, b"" where there is nothing."""

    head: bytes
    records: dict[str, Record]
    raw: dict[str, bytes]  # as they are there, those that this version cannot read, too


class Change(NamedTuple):
    """One record to write: what the store has to hold until then, None for nothing."""

    expected: bytes | None
    wanted: Record


class Conflict(Exception):
    """A record was not what the writer had seen."""

    def __init__(self, record_id: str) -> None:
        super().__init__(record_id)
        self.record_id = record_id


class StoreFull(Exception):
    """There are as many records as there may be."""


class KeyStore:
    """The records in one Redis."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._key = names.keys()
        path = Path(__file__).with_name("keystore.lua")
        self._script = Script("keystore", path.read_text(encoding="utf-8"))
        self._unreadable: set[str] = set()
        self._last = State(b"", {}, {})

    async def changed(self, known: bytes | None) -> State | None:
        """Return what is there now; None where that is the state ``known``, or where it does not hold still."""
        for _ in range(READ_TRIES):
            head = await self._head()
            if head == known:
                return None
            fields = await self._scan()
            if await self._head() == head:
                self._last = await asyncio.to_thread(self._state, head, fields)
                return self._last
        return None

    async def get(self, record_id: str) -> bytes | None:
        """Return one record as it is there."""
        content: bytes | None = await self._lane.send("HGET", self._key, record_id)
        return content

    async def write(self, changes: Sequence[Change], *, max_records: int = 0) -> None:
        """Write records, at most BATCH. Raises Conflict, StoreFull; RedisUnanswered: they may have been written."""
        arguments: list[bytes | str | int] = [secrets.token_hex(16), max_records]
        for change in changes:
            arguments += [change.wanted.id, change.expected or b"", encode(change.wanted)]
        outcome, record_id = await self._run(arguments)
        if outcome == "conflict":
            raise Conflict(record_id)
        if outcome == "full":
            raise StoreFull

    async def _run(self, arguments: Sequence[bytes | str | int]) -> tuple[Literal["written", "conflict", "full"], str]:
        unanswered: RedisUnanswered | None = None
        for _ in range(WRITE_TRIES):
            try:
                outcome, record_id = await self._lane.run(self._script, [self._key], arguments)
            except RedisUnanswered as error:
                unanswered = error
            except RedisFailure as error:  # of this try; what became of one before it is as unknown as it was
                raise unanswered or error from None
            else:
                return outcome.decode(), record_id.decode()
        assert unanswered is not None
        raise unanswered

    async def _head(self) -> bytes:
        head: bytes | None = await self._lane.send("HGET", self._key, HEAD)
        return head or b""

    async def _scan(self) -> dict[bytes, bytes]:
        fields: dict[bytes, bytes] = {}
        cursor = b"0"
        while True:
            cursor, page = await self._lane.send("HSCAN", self._key, cursor, "COUNT", PAGE)
            fields.update(zip(page[::2], page[1::2], strict=True))
            if cursor == b"0":
                return fields

    def _state(self, head: bytes, fields: Mapping[bytes, bytes]) -> State:
        raw = {field.decode(errors="replace"): value for field, value in fields.items() if field != HEAD}
        return State(head, self._decoded(raw), raw)

    def _decoded(self, raw: Mapping[str, bytes]) -> dict[str, Record]:
        """Read every record; one whose bytes are those of the last time is the same object."""
        records: dict[str, Record] = {}
        last = self._last
        for record_id, content in raw.items():
            if record_id in last.records and last.raw[record_id] == content:
                records[record_id] = last.records[record_id]
                continue
            try:
                record = decode(content)
                if record.id != record_id:
                    raise Unreadable("it is another one's")
                records[record_id] = record
            except Unreadable as error:
                self._complain(record_id, error)
        return records

    def _complain(self, record_id: str, error: Unreadable) -> None:
        if record_id not in self._unreadable and len(self._unreadable) < READ_TRIES * PAGE:
            self._unreadable.add(record_id)
            _log.error("the record %s of the admin API cannot be read by this version: %s", record_id[:300], error)
