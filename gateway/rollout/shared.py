"""The evidence of all replicas: one hash in Redis per rollout, one script, one round trip per batch.

A batch that was perhaps executed is given up, not sent again: a second of evidence is worth less than evidence that
counts twice. That a canary is withdrawn is written once and stays; see ``observe.lua``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, Protocol

from gateway.redis import names
from gateway.redis.script import Script
from gateway.rollout.evidence import PANES, Batch, Evidence

KEPT_MS: Final = 90 * 86_400_000
"""How long Redis remembers a rollout that no process serves: 90 days."""


class LaneLike(Protocol):
    """What is needed of a lane to Redis."""

    @property
    def available(self) -> bool:
        """Whether commands are tried."""

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """Run a script."""


class SharedEvidence:
    """What all replicas know."""

    def __init__(self, lane: LaneLike, pane_s: float) -> None:
        self._lane = lane
        self._pane_ms = int(pane_s * 1000)
        source = resources.files("gateway.rollout").joinpath("lua", "observe.lua").read_text("utf-8")
        self._script = Script("observe", source)

    @property
    def available(self) -> bool:
        """Whether Redis is tried."""
        return self._lane.available

    async def exchange(self, batch: Batch) -> Evidence:
        """Add what is new, maybe withdraw, and return all that is known. Raises RedisFailure."""
        fixed = (self._pane_ms, batch.min_requests, PANES, KEPT_MS, batch.reason)
        increments = [part for item in batch.counts.items() for part in item]
        key = names.rollout(batch.scenario, batch.rollout)
        return read_hash(await self._lane.run(self._script, [key], [*fixed, *increments]))


def read_hash(flat: Sequence[bytes]) -> Evidence:
    """The evidence in the fields and values of a rollout's hash."""
    fields = {
        name.decode(): value.decode("utf-8", "replace") for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    newest = int(fields["pane"])
    panes: list[dict[str, int]] = [{} for _ in range(min(newest + 1, PANES))]
    totals: dict[str, int] = {}
    for field, value in fields.items():
        place, colon, name = field.partition(":")
        if colon and place == "t":
            totals[name] = int(value)
        elif colon and 0 <= newest - int(place) < len(panes):
            panes[newest - int(place)][name] = int(value)
    withdrawn = fields.get("withdrawn")
    return Evidence(
        totals=totals,
        panes=tuple(panes),
        since=int(fields["since"]) / 1000,
        withdrawn_at=None if withdrawn is None else int(withdrawn) / 1000,
        reason=fields.get("reason", ""),
    )
