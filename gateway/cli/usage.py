"""``usage export``, ``forget`` and ``report``: what tenants used, out of Redis, for billing systems and for people.

Events and numbers go to standard output or a file, everything that is said about them to standard error.
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.cli.lane import fail, with_lane

if TYPE_CHECKING:
    from gateway.meter.export import Exporter
    from gateway.meter.ledger import Ledger
    from gateway.redis.lane import RedisLane
    from gateway.redis.ledger_format import UsageCounts, UsageOf
    from gateway.settings import Settings

INTERVAL_S: Final = 1.0
"""How often an exporter that follows looks for new events."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Format(enum.StrEnum):
    """How an event is written."""

    jsonl = "jsonl"
    csv = "csv"


class By(enum.StrEnum):
    """What usage may be summed by."""

    day = "day"
    key = "key"
    scenario = "scenario"
    backend = "backend"


_Tenants = Annotated[list[str] | None, typer.Option(help="Tenant; may be repeated. Default: all of them.")]


def build() -> typer.Typer:
    """The commands about usage."""
    app = typer.Typer(name="usage", help="Export and report what tenants used.", no_args_is_help=True)
    app.command("export")(_export)
    app.command("forget")(_forget)
    app.command("report")(_report)
    return app


def _export(
    format_: Annotated[Format, typer.Option("--format", help="How an event is written.")] = Format.jsonl,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new events until SIGINT or SIGTERM.")] = False,
    tenant: _Tenants = None,
    output: Annotated[
        Path | None, typer.Option(help="File to append to, on disk after each batch. Default: standard output.")
    ] = None,
    group: Annotated[str, typer.Option(help="Group of readers; each group gets every event.")] = "export",
    consumer: Annotated[
        str, typer.Option(help="Name in the group; exporters of different names share the work.")
    ] = "exporter",
) -> None:
    """Write each settled call at least once, from where the last run stopped; a repeated event has the same id."""
    from gateway.cli.usage_output import EventFile
    from gateway.meter.export import Exporter, ExportOptions

    options = ExportOptions(group=_named(group, "--group"), consumer=_named(consumer, "--consumer"))
    try:
        with EventFile.open(output, as_csv=format_ is Format.csv) as file:

            async def run(lane: RedisLane, settings: Settings) -> None:
                exporter = Exporter(lane, file, options, _stopped_by_signals())
                await _run_exporter(exporter, _ledger(lane, settings), tenant, follow=follow)

            with_lane(run)
            print(f"{file.written} event(s) exported", file=sys.stderr)
    except BrokenPipeError:
        raise typer.Exit(1) from None  # who read it is gone, and knows
    except OSError as error:
        fail(f"the events cannot be written: {error.strerror or error}")


async def _run_exporter(exporter: Exporter, ledger: Ledger, tenants: list[str] | None, *, follow: bool) -> None:
    async def wanted() -> Sequence[str]:
        return tenants or await ledger.tenants()

    if follow:
        await exporter.follow(wanted, _tell_trouble, INTERVAL_S)
    else:
        await exporter.drain(await wanted())


def _tell_trouble(text: str) -> None:
    print(f"warning: waiting for Redis: {text}" if text else "Redis answers again", file=sys.stderr)


def _stopped_by_signals() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopping


def _forget(group: Annotated[str, typer.Option(help="Group of readers that will read no more.")]) -> None:
    """Forget a group of readers, so that its lag counts no more; one that reads again begins with what there is."""
    from gateway.meter.export import forget_group

    name = _named(group, "--group")
    known: list[int] = []

    async def run(lane: RedisLane, settings: Settings) -> None:
        known.append(await forget_group(lane, await _ledger(lane, settings).tenants(), name))

    with_lane(run)
    if not known[0]:
        fail(f"no tenant's events are read by a group {name!r}")
    print(f"group {name!r} is forgotten for {known[0]} tenant(s)")


def _report(
    tenant: _Tenants = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First UTC day. Default: the first of that month.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last UTC day. Default: today.")] = None,
    by: Annotated[
        list[By] | None, typer.Option(help="What is summed by; may be repeated. Default: day and scenario.")
    ] = None,
) -> None:
    """Print a table of what was used from one day to another, both included."""
    from gateway.cli.usage_output import print_table
    from gateway.meter.ledger import today

    until = today() if last is None else _day(last, "--to")
    since = until.replace(day=1) if first is None else _day(first, "--from")
    columns = by or [By.day, By.scenario]
    sums: dict[tuple[str, ...], UsageCounts] = {}

    async def run(lane: RedisLane, settings: Settings) -> None:
        ledger = _ledger(lane, settings)
        for name in tenant or await ledger.tenants():
            sums.update(await _sums(ledger, name, (since, until), columns))

    with_lane(run)
    print_table(f"Usage from {since} to {until} (UTC)", ["tenant", *columns], sums)


async def _sums(
    ledger: Ledger, tenant: str, days: tuple[datetime.date, datetime.date], by: Sequence[By]
) -> dict[tuple[str, ...], UsageCounts]:
    from gateway.meter.ledger import grouped

    def group(day: datetime.date, of: UsageOf) -> tuple[str, ...]:
        parts = {By.day: day.isoformat(), By.key: of.key, By.scenario: of.scenario, By.backend: of.backend}
        return (tenant, *(parts[each] for each in by))

    return grouped(await ledger.days(tenant, *days), group)


def _day(text: str, option: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day such as 2026-11-22", param_hint=option) from None


def _named(text: str, option: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise typer.BadParameter(f"{text!r} must be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'", param_hint=option)
    return text


def _ledger(lane: RedisLane, settings: Settings) -> Ledger:
    from gateway.meter.ledger import Ledger

    return Ledger(lane, settings.usage_max_rows)
