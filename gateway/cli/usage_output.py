"""Usage as text: events line by line for machines, sums as a table for people.

Invariant: ``take`` returns when its events are written, and on disk where they go to a file; a line that an exporter
died in is taken back by the next one, which gets its event again.
"""

from __future__ import annotations

import asyncio
import csv
import datetime
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self, TextIO

import msgspec

from gateway.meter.ledger import total, usd

if TYPE_CHECKING:
    from gateway.redis.ledger_format import UsageCounts, UsageEvent

COLUMNS: Final = (
    "id",
    "time",
    "tenant",
    "key",
    "scenario",
    "backend",
    "status",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "cost_usd",
    "estimated",
    "cached",
    "variant",
)
"""What is written of an event, in this order."""

_BLOCK: Final = 65_536
_TABLE_WIDTH: Final = 1000  # where nobody's terminal says how wide it is: as wide as it must be


def fields_of(event: UsageEvent) -> dict[str, Any]:
    """An event by ``COLUMNS``; money is a decimal text, so that no reader makes a float of it."""
    time = datetime.datetime.fromtimestamp(event.time_ms // 1000, datetime.UTC)
    known = {name: getattr(event, name) for name in COLUMNS if name not in {"time", "cost_usd"}}
    known |= {"time": f"{time:%Y-%m-%dT%H:%M:%S}.{event.time_ms % 1000:03d}Z", "cost_usd": usd(event.cost_nano_usd)}
    return {name: known[name] for name in COLUMNS}


class EventFile:
    """Where exported events are written; ``open`` makes it."""

    def __init__(self, file: TextIO, *, as_csv: bool, on_disk: bool) -> None:
        self._file = file
        self._as_csv = as_csv
        self._on_disk = on_disk
        self.written = 0

    @classmethod
    @contextmanager
    def open(cls, path: Path | None, *, as_csv: bool) -> Iterator[Self]:
        """Append to ``path``, or write to standard output. Raises OSError. A CSV begins with its columns' names."""
        if path is None:
            events = cls(sys.stdout, as_csv=as_csv, on_disk=False)
            events.begin(is_empty=True)
            yield events
            return
        with path.open("a+b") as raw:
            size = _drop_half_line(raw)
        with path.open("a", encoding="utf-8", newline="") as file:
            events = cls(file, as_csv=as_csv, on_disk=True)
            events.begin(is_empty=size == 0)
            yield events

    def begin(self, *, is_empty: bool) -> None:
        """Write what stands before the first event."""
        if self._as_csv and is_empty:
            self._file.write(",".join(COLUMNS) + "\n")

    async def take(self, events: Sequence[UsageEvent]) -> None:
        """Write a batch. Raises OSError."""
        await asyncio.to_thread(self._write, events)  # whoever reads may be slow, and Redis wants to be listened to

    def lost(self, tenant: str, events: int) -> None:
        """Say that events cannot be had any more."""
        print(f"warning: {tenant}: {events} event(s) were lost before they were exported", file=sys.stderr)

    def _write(self, events: Sequence[UsageEvent]) -> None:
        rows = [fields_of(event) for event in events]
        if self._as_csv:
            writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
            texts = ({name: str(row[name]).lower() for name in ("estimated", "cached")} for row in rows)
            writer.writerows(row | text for row, text in zip(rows, texts, strict=True))
        else:
            self._file.writelines(f"{msgspec.json.encode(row).decode()}\n" for row in rows)
        self._file.flush()
        if self._on_disk:
            os.fsync(self._file.fileno())
        self.written += len(rows)


def _drop_half_line(file: IO[bytes]) -> int:
    """Cut what stands after the last end of a line; the size that is left."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - _BLOCK, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    file.truncate(end)
    return end


def print_table(title: str, by: Sequence[str], sums: Mapping[tuple[str, ...], UsageCounts]) -> None:
    """A table with a row per sum and their total, on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_footer=True)
    for place, name in enumerate(by):
        table.add_column(name.capitalize(), footer="" if place else "Total", overflow="fold")
    numbers = ("Requests", "Input", "Cached", "Output", "Cost (USD)", "Estimated", "From cache")
    for name, footer in zip(numbers, _cells(total(sums)), strict=True):
        table.add_column(name, footer=footer, justify="right", no_wrap=True)
    for names, counts in sums.items():
        table.add_row(*(name or "-" for name in names), *_cells(counts))
    Console(width=None if sys.stdout.isatty() else _TABLE_WIDTH, highlight=False, markup=False).print(table)


def _cells(counts: UsageCounts) -> tuple[str, ...]:
    estimated, cached = (
        count / counts.requests if counts.requests else 0.0
        for count in (counts.estimated_requests, counts.cached_requests)
    )
    return (
        f"{counts.requests:,}",
        f"{counts.input_tokens:,}",
        f"{counts.cached_input_tokens:,}",
        f"{counts.output_tokens:,}",
        usd(counts.cost_nano_usd),
        f"{estimated:.1%}",
        f"{cached:.1%}",
    )
