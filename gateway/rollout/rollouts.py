"""The canaries of one process: who gets them, what their calls showed, and their end.

Invariants:
- No request waits for Redis: it asks a set in memory and leaves increments, which one background task sends as batches.
- Where there is a Redis, a canary gets nothing before Redis has said that it runs, so that one that was withdrawn gets
  nothing from a process that has just started.
- A canary that this process knows to be withdrawn gets nothing until the registry says something else of its scenario,
  whatever Redis says later; Redis is told again where it has forgotten.
- While Redis cannot be reached, what this process alone sees is judged, and sent when Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec.structs import replace

from gateway.errors import RedisFailure, RedisRefused, RedisUnavailable
from gateway.model import Canary, ChatRequest, Frozen, Principal, Scenario, Snapshot
from gateway.rollout.choice import takes_part
from gateway.rollout.evidence import BASE, PANES, Batch, Evidence, add, first_token_s, observe, together
from gateway.rollout.judge import judge
from gateway.rollout.local import LocalEvidence

if TYPE_CHECKING:
    from gateway.rollout.shadow import Shadows
    from gateway.rollout.shared import LaneLike
    from gateway.telemetry import RequestRecord, RolloutCounts

_log = logging.getLogger("gateway.rollout")

RolloutState = Literal["running", "withdrawn", "waiting"]


class SnapshotSource(Protocol):
    """Where the registry's present state is read."""

    @property
    def snapshot(self) -> Snapshot:
        """The objects that serve now."""


class RolloutOptions(Frozen, frozen=True):
    """``sync_s``: how often processes tell each other, ``window_s``: how far back is judged at least where calls are
    many; seconds, > 0.
    """

    sync_s: float = 1.0
    window_s: float = 60.0


class RolloutStatus(Frozen, frozen=True):
    """A canary as an operator sees it; ``waiting`` is one of which Redis has not been heard yet. Unix seconds."""

    scenario: str
    canary: Canary
    state: RolloutState
    reason: str
    since: float | None
    base: Mapping[str, int]
    counts: Mapping[str, int]
    first_token_p95_s: float | None


class _Tracked:
    """One rollout: what is new, what Redis could not be told yet, what is known, and why it was withdrawn."""

    __slots__ = ("canary", "evidence", "pending", "reason", "untold")

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.pending: dict[str, int] = {}
        self.untold: dict[str, int] = {}
        self.evidence = Evidence()
        self.reason = ""

    def batch(self, reason: str) -> Batch:
        """What is new; from now on it is not."""
        canary, counts = self.canary, self.pending
        self.pending = {}
        least = 1 if canary.abort is None else canary.abort.min_requests
        return Batch(
            scenario=canary.scenario.name, rollout=canary.rollout, min_requests=least, counts=counts, reason=reason
        )


class Rollouts:
    """Chooses variants and looks after canaries. ``lane`` is None without a Redis."""

    def __init__(
        self,
        registry: SnapshotSource,
        lane: LaneLike | None,
        options: RolloutOptions,
        counts: RolloutCounts,
        shadows: Shadows,
    ) -> None:
        self.shadows = shadows
        self._registry = registry
        self._options = options
        self._counts = counts
        self._local = LocalEvidence(options.window_s / PANES)
        self._shared = None
        if lane is not None:
            from gateway.rollout.shared import SharedEvidence  # a gateway without a Redis loads none of it

            self._shared = SharedEvidence(lane, options.window_s / PANES)
        self._snapshot: Snapshot | None = None
        self._tracked: dict[str, _Tracked] = {}
        self._open: set[str] = set()  # rollouts whose canary gets calls
        self._told_refusal = False

    # A request's way

    def choose(self, scenario: Scenario, principal: Principal, request: ChatRequest, record: RequestRecord) -> Scenario:
        """The variant that answers; the scenario must have a canary."""
        canary = scenario.canary
        assert canary is not None, "asked only where there is a choice"
        record.rollout = canary.rollout
        if canary.rollout not in self._open or not takes_part(canary, principal, request):
            return scenario
        record.variant = "canary"
        return canary.scenario

    def finished(self, record: RequestRecord) -> None:
        """A request of a scenario with a canary is over, whichever variant it had."""
        tracked = self._tracked.get(record.rollout)
        if tracked is not None:
            for name in observe(tracked.canary, record):
                tracked.pending[name] = tracked.pending.get(name, 0) + 1

    # Behind it

    async def run(self) -> None:
        """Tell and learn time and again; never returns."""
        while True:
            await self.synchronize()
            await asyncio.sleep(self._options.sync_s)

    async def synchronize(self) -> None:
        """Tell what is new, learn what the others saw, and withdraw what breaks its bounds."""
        if self._registry.snapshot is not self._snapshot:
            self._adopt(self._registry.snapshot)
        await asyncio.gather(*map(self._exchange, list(self._tracked.values())))

    def status(self) -> Iterator[RolloutStatus]:
        """Every canary of the registry by name of its scenario, as of the last exchange."""
        for each in sorted(self._tracked.values(), key=lambda tracked: tracked.canary.scenario.name):
            evidence = each.evidence
            totals = evidence.totals
            yield RolloutStatus(
                scenario=each.canary.scenario.name,
                canary=each.canary,
                state="withdrawn" if each.reason else "running" if each.canary.rollout in self._open else "waiting",
                reason=each.reason,
                since=(evidence.withdrawn_at if each.reason else evidence.since) or None,
                base={name.removeprefix(BASE): n for name, n in totals.items() if name.startswith(BASE)},
                counts={name: n for name, n in totals.items() if not name.startswith(BASE)},
                first_token_p95_s=first_token_s(together(evidence.panes), 0.95),
            )

    def _adopt(self, snapshot: Snapshot) -> None:
        """Go on with the canaries of this snapshot; what it does not have any more is forgotten."""
        canaries = {each.canary.rollout: each.canary for each in snapshot.scenarios.values() if each.canary is not None}
        names = {canary.scenario.name for canary in canaries.values()}
        for gone in self._tracked.values():
            if gone.canary.scenario.name not in names:
                self._counts.canary_withdrawn(gone.canary.scenario.name, is_withdrawn=False)
        tracked: dict[str, _Tracked] = {}
        for rollout, canary in canaries.items():
            known = tracked[rollout] = self._tracked.get(rollout) or _Tracked(canary)
            known.canary = canary
            self._counts.canary_withdrawn(canary.scenario.name, is_withdrawn=bool(known.reason))
        self._snapshot, self._tracked = snapshot, tracked
        self._open &= tracked.keys()
        self._local.keep_only(tracked)

    async def _exchange(self, tracked: _Tracked) -> None:
        is_recorded = tracked.evidence.withdrawn_at is not None
        judged = await self._tell(tracked, "" if is_recorded else tracked.reason)
        abort = tracked.canary.abort
        if tracked.reason or abort is None:
            return
        reason = judge(abort, judged.panes)
        if reason:
            self._withdraw(tracked, reason)
            await self._tell(tracked, reason)

    async def _tell(self, tracked: _Tracked, reason: str) -> Evidence:
        """Exchange a batch; returns what is to be judged: of all replicas, or of this process alone."""
        batch = tracked.batch(reason)
        if self._shared is None:
            return self._learn(tracked, await self._local.exchange(batch))
        counts, tracked.untold = together((tracked.untold, batch.counts)), {}
        if self._shared.available:
            try:
                return self._learn(tracked, await self._shared.exchange(replace(batch, counts=counts)))
            except RedisUnavailable:
                add(tracked.untold, counts)
            except RedisFailure as failure:
                self._note_refusal(failure)  # perhaps it was counted: what is given up counts nowhere twice
        else:
            add(tracked.untold, counts)
        return await self._local.exchange(batch)

    def _learn(self, tracked: _Tracked, evidence: Evidence) -> Evidence:
        tracked.evidence = evidence
        if evidence.withdrawn_at is not None:
            self._withdraw(tracked, evidence.reason)
        elif not tracked.reason and self._tracked.get(tracked.canary.rollout) is tracked:
            self._open.add(tracked.canary.rollout)
        return evidence

    def _withdraw(self, tracked: _Tracked, reason: str) -> None:
        self._open.discard(tracked.canary.rollout)
        if tracked.reason:
            return
        tracked.reason = reason or "no reason is known"
        name = tracked.canary.scenario.name
        if self._tracked.get(tracked.canary.rollout) is not tracked:
            return  # the registry has moved on meanwhile
        self._counts.canary_withdrawn(name, is_withdrawn=True)
        _log.warning("the canary of scenario %s is withdrawn: %s", name, tracked.reason)

    def _note_refusal(self, failure: RedisFailure) -> None:
        if isinstance(failure, RedisRefused) and not self._told_refusal:
            self._told_refusal = True
            _log.error("what canaries do cannot be shared through Redis: %s", failure)
