"""Canaries over the admin API: what this process knows of them, as of its last exchange with the others."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from gateway.app.admin_schemas import Model
from gateway.registry.records import rfc3339
from gateway.rollout import Rollouts, RolloutState, RolloutStatus


class VariantCounts(Model):
    """What the calls of one variant showed since the rollout began."""

    requests: int = Field(description="Calls that are over, but for those whose client left.")
    failures: int = Field(description="Those of them that failed: a status of 500 or more, a broken stream included.")
    streams: int = Field(description="First tokens that were seen.")
    slow: int = Field(description="First tokens that came later than firstTokenP95 allows.")


class RolloutView(Model):
    """One canary."""

    scenario: str
    rollout: str = Field(description="Names what the scenario's spec says: another one after any change of it.")
    percent: float
    sticky: str
    state: RolloutState = Field(description="waiting: Redis has not said yet whether it runs, and it gets no calls.")
    reason: str = Field(description="Why it was withdrawn; empty while it runs.")
    since: str | None = Field(default=None, description="When it was withdrawn, or first heard of while it runs.")
    error_ratio: float | None = Field(default=None, description="The bound of failures.")
    first_token_p95_bound_s: float | None = Field(default=None, description="The bound of first tokens, in seconds.")
    first_token_p95_s: float | None = Field(default=None, description="What it is of late, up to its bucket's bound.")
    min_requests: int | None = Field(default=None, description="How many calls a judgement needs.")
    base: VariantCounts
    canary: VariantCounts


class RolloutList(Model):
    """Canaries by name of their scenario."""

    rollouts: list[RolloutView]


def rollout_list(rollouts: Rollouts | None) -> RolloutList:
    """Every canary of the registry that serves."""
    return RolloutList(rollouts=[] if rollouts is None else [_view(each) for each in rollouts.status()])


def _view(status: RolloutStatus) -> RolloutView:
    canary, abort = status.canary, status.canary.abort
    return RolloutView(
        scenario=status.scenario,
        rollout=canary.rollout,
        percent=canary.percent,
        sticky=canary.sticky,
        state=status.state,
        reason=status.reason,
        since=None if status.since is None else rfc3339(status.since),
        error_ratio=None if abort is None else abort.error_ratio,
        first_token_p95_bound_s=None if abort is None else abort.first_token_p95_s,
        first_token_p95_s=status.first_token_p95_s,
        min_requests=None if abort is None else abort.min_requests,
        base=_counts(status.base),
        canary=_counts(status.counts),
    )


def _counts(counts: Mapping[str, int]) -> VariantCounts:
    return VariantCounts(**{name: counts.get(name, 0) for name in VariantCounts.model_fields})
