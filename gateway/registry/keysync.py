"""Keeps one replica's overlay what the store says, and gives back to the store what it has lost.

Invariants:
- What was known once stays known: while the store is away, and when it comes back with less.
- With ``cache`` what is known survives this process, too.
- ``known`` turns true once and for all, with the first state that was read from the store or from ``cache``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import RedisFailure
from gateway.registry.keystore import BATCH, Change, Conflict, KeyStore, State
from gateway.registry.overlay import NO_OVERLAY, Overlay, make_overlay
from gateway.registry.records import Record, by_id, decode, encode, merge

POLL_TIMEOUT_S: Final = 5.0
"""The longest one look at the store may take, all its pages included."""

CACHE_BYTES_MAX: Final = 2**28

_log = logging.getLogger(__name__)


class KeySync:
    """The overlay of one process. ``on_change`` is called with each new one, on the event loop."""

    def __init__(
        self, store: KeyStore, on_change: Callable[[Overlay], None], *, poll_s: float, cache: Path | None = None
    ) -> None:
        self.store = store
        self.overlay: Overlay = NO_OVERLAY
        self.known = False
        self._on_change = on_change
        self._poll_s = poll_s
        self._cache = cache
        self._head: bytes | None = None
        self._reachable = True
        self._owed: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()

    def remember(self) -> None:
        """Begin with what the cache holds, where there is one."""
        if self._cache is None:
            return
        try:
            records = _read_cache(self._cache)
        except FileNotFoundError:
            return
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            _log.error("the keys in %s cannot be read: %s", self._cache, type(error).__name__)
            return
        self._serve(make_overlay(records))

    async def run(self) -> None:
        """Look at the store until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_s)

    async def look(self) -> bool:
        """Look at the store once; False where it could not be asked. Never raises for what Redis does."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT_S), self._lock:
                state = await self.store.changed(self._head)
                if state is not None:
                    await self._take(state)
        except (RedisFailure, TimeoutError) as error:
            self._tell(reachable=False, reason=str(error) or "no answer in time")
            return False
        self._tell(reachable=True)
        return True

    async def write(self, changes: Sequence[Change], *, max_records: int = 0) -> None:
        """Write to the store and adopt that at once. Raises Conflict, StoreFull, RedisFailure."""
        async with self._lock:  # a look that began before the write would take it for something lost
            await self.store.write(changes, max_records=max_records)
            written = by_id(change.wanted for change in changes)
            await self._adopt((await asyncio.to_thread(merge, written, self.overlay.records)).records)

    async def _take(self, state: State) -> None:
        """Adopt what the store says together with what is known, and give it what it lacks."""
        merged = await asyncio.to_thread(merge, self.overlay.records, state.records)
        await self._adopt(merged.records)
        owed = [each for each in merged.owed if each in state.records or each not in state.raw]
        if not owed:
            self._head, self._owed = state.head, frozenset()
            return
        if self._owed != frozenset(owed):
            self._owed = frozenset(owed)
            _log.warning("Redis has lost %d records of keys or revocations: putting them back", len(owed))
        for start in range(0, len(owed), BATCH):
            changes = [Change(state.raw.get(each), merged.records[each]) for each in owed[start : start + BATCH]]
            with contextlib.suppress(Conflict):  # another replica puts them back, too: the next look tells
                await self.store.write(changes)

    async def _adopt(self, records: Mapping[str, Record]) -> None:
        """Serve these records; what takes time with many of them is done beside the event loop."""
        if records == self.overlay.records:
            if not self.known:
                self._serve(self.overlay)
            return
        self._serve(await asyncio.to_thread(make_overlay, records, self.overlay))
        if self._cache is not None:
            try:
                await asyncio.to_thread(_write_cache, self._cache, records)
            except OSError as error:
                _log.error("the keys cannot be kept in %s: %s", self._cache, error.strerror)

    def _serve(self, overlay: Overlay) -> None:
        before, self.overlay, self.known = self.overlay, overlay, True
        for name, key in overlay.keys.items():
            if key.document is None and before.keys.get(name) is not key:
                reasons = "; ".join(map(": ".join, key.problems))
                _log.error("the key %s of the admin API is refused: %s", name, reasons)
        self._on_change(overlay)

    def _tell(self, *, reachable: bool, reason: str = "") -> None:
        if reachable == self._reachable:
            return
        self._reachable = reachable
        if reachable:
            _log.info("keys of the admin API are read from Redis again")
        else:
            served = "those last known serve" if self.known else "none is known yet"
            _log.warning("keys of the admin API cannot be read from Redis, %s: %s", served, reason)


def _read_cache(path: Path) -> dict[str, Record]:
    with path.open("rb") as file:
        content = file.read(CACHE_BYTES_MAX + 1)
    if len(content) > CACHE_BYTES_MAX:
        raise ValueError("is too large")
    return by_id(decode(line) for line in content.splitlines() if line)


def _write_cache(path: Path, records: Mapping[str, Record]) -> None:
    """Replace the file in one step: another process may read it, or this one be killed."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(encode(record) + b"\n" for record in records.values())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
