"""The evidence of one process, for as long as it lives: where there is no Redis, and while it cannot be reached."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from gateway.clock import wall
from gateway.rollout.evidence import PANES, REQUESTS, Batch, Evidence, add


class _Kept:
    def __init__(self, now: float) -> None:
        self.since = self.opened = now
        self.totals: dict[str, int] = {}
        self.panes: deque[dict[str, int]] = deque([{}], maxlen=PANES)
        self.withdrawn_at: float | None = None
        self.reason = ""


class LocalEvidence:
    """As ``SharedEvidence``, with the same answers to the same batches; see ``observe.lua`` for what a batch does."""

    def __init__(self, pane_s: float, now: Callable[[], float] = wall) -> None:
        self._pane_s = pane_s
        self._now = now
        self._kept: dict[str, _Kept] = {}

    async def exchange(self, batch: Batch) -> Evidence:
        """Add what is new, maybe withdraw, and return all that is known."""
        now = self._now()
        kept = self._kept.setdefault(batch.rollout, _Kept(now))
        if now - kept.opened >= self._pane_s and kept.panes[0].get(REQUESTS, 0) >= batch.min_requests:
            kept.panes.appendleft({})
            kept.opened = now
        add(kept.totals, batch.counts)
        add(kept.panes[0], batch.of_canary)
        if batch.reason and kept.withdrawn_at is None:
            kept.withdrawn_at, kept.reason = now, batch.reason
        return Evidence(
            totals=dict(kept.totals),
            panes=tuple(dict(pane) for pane in kept.panes),
            since=kept.since,
            withdrawn_at=kept.withdrawn_at,
            reason=kept.reason,
        )

    def keep_only(self, rollouts: Mapping[str, object]) -> None:
        """Forget all but these."""
        self._kept = {name: kept for name, kept in self._kept.items() if name in rollouts}
