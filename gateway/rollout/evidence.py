"""What the calls of a rollout showed, as plain sums: pure.

A call is a few increments of named counts. Those of the canary are also kept by pane: a pane lasts a while and until it
has as many calls as a judgement needs, then the next begins, and a few of them are kept. So what is judged is never
older than it must be, however many calls come or few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.model import Canary, Frozen
from gateway.telemetry import RequestRecord
from gateway.telemetry.families import SLOW_FIRST_TOKEN_BUCKETS

REQUESTS, FAILURES, STREAMS, SLOW = "requests", "failures", "streams", "slow"
"""Calls; those that failed; first tokens seen; those of them that came later than the bound."""

BASE: Final = "base."
"""Before the names of what the base's calls add to: shown, never judged."""

PANES: Final = 6
"""Panes that are judged together at most."""

_BUCKET: Final = "h"
_GONE: Final = 499


class Batch(Frozen, frozen=True):
    """What is new of one rollout: increments by name, and with a ``reason`` that it is withdrawn."""

    scenario: str
    rollout: str
    min_requests: int
    counts: Mapping[str, int]
    reason: str = ""

    @property
    def of_canary(self) -> dict[str, int]:
        """The increments that are judged."""
        return {name: value for name, value in self.counts.items() if not name.startswith(BASE)}


class Evidence(Frozen, frozen=True):
    """What is known of a rollout. ``panes`` are the canary's, the newest first; times are Unix seconds."""

    totals: Mapping[str, int] = {}
    panes: tuple[Mapping[str, int], ...] = ()
    since: float = 0.0
    withdrawn_at: float | None = None
    reason: str = ""


def observe(canary: Canary, record: RequestRecord) -> tuple[str, ...]:
    """The counts that a finished request adds one to; none for one that says nothing of its variant.

    A failure is what the metrics count with a status of 500 or more, a stream that broke included. A client that left
    before the first token says how long it waited at least: with nothing for longer than the bound, it was slow.
    """
    if record.error_code == "shutting_down" or (not record.attempts and record.error_code != "no_backend"):
        return ()  # the end of a process, a refusal by a limit, an answer from the cache: no backend was tried
    names: list[str] = []
    if record.status != _GONE:
        names.append(REQUESTS)
        if record.status >= 500:
            names.append(FAILURES)
    bound = None if canary.abort is None else canary.abort.first_token_p95_s
    waited = _first_token_s(record, bound)
    if waited is not None:
        names += (STREAMS, f"{_BUCKET}{bisect_left(SLOW_FIRST_TOKEN_BUCKETS, waited)}")
        if bound is not None and waited > bound:
            names.append(SLOW)
    return tuple(names) if record.variant == "canary" else tuple(BASE + name for name in names)


def _first_token_s(record: RequestRecord, bound: float | None) -> float | None:
    if not record.stream:
        return None
    if record.first_token_at is not None:
        return record.first_token_at - record.started_at
    waited = record.finished_at - record.started_at
    return waited if record.status == _GONE and bound is not None and waited > bound else None


def add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Add up."""
    for name, value in more.items():
        counts[name] = counts.get(name, 0) + value


def together(panes: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums of several panes."""
    counts: dict[str, int] = {}
    for each in panes:
        add(counts, each)
    return counts


def first_token_s(counts: Mapping[str, int], quantile: float) -> float | None:
    """About how long that share of first tokens took at most: the bound of its bucket. None without any, or beyond."""
    found = [(int(name[1:]), value) for name, value in counts.items() if name[0] == _BUCKET and name[1:].isdecimal()]
    wanted = quantile * sum(value for _, value in found)
    seen = 0
    for bucket, value in sorted(found):
        seen += value
        if seen >= wanted:
            return SLOW_FIRST_TOKEN_BUCKETS[bucket] if bucket < len(SLOW_FIRST_TOKEN_BUCKETS) else None
    return None
