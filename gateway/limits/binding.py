"""The limits of a caller on a scenario: found once, used by every call of that kind.

Invariant: a call is bound by every limit of its tenant and of its key that names no scenario or its own, and by no
other. Pure but for the labels of metrics, which are made here so that no call has to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from gateway.limits.text import level_head
from gateway.limits.windows import is_budget
from gateway.limits.wire import BoundLimit, LimitSet, worst_of
from gateway.model import ApiKey, Limit, LimitUnit, Principal, Scenario, Tenant
from gateway.telemetry.families import LIMIT_UTILIZATION
from gateway.telemetry.series import Cell

if TYPE_CHECKING:
    from gateway.limits.text import Headers
    from gateway.limits.wire import AdmitCall, AdmitReply

BINDINGS_MAX: Final = 10_000
"""Kinds of calls that are remembered; beyond it all are found anew."""

_OUTPUT_UNITS: Final = frozenset({"tokens", "outputTokens", "cost"})
_SHOWN_UNITS: Final = ("requests", "tokens")


class Gauges(Protocol):
    """Where utilization is shown."""

    def limit_utilization(self, tenant: str, limit: str, kind: str) -> Cell:
        """The cell of one limit; ``kind`` is ``rate``, ``budget`` or ``concurrency``."""


class Standing(NamedTuple):
    """A refusal that stands ``until`` then; ``retry_at`` is when the limit admits. Both by ``clock.monotonic``."""

    call: AdmitCall
    reply: AdmitReply
    headers: Headers
    retry_at: float
    until: float

    def covers(self, call: AdmitCall) -> bool:
        """Whether a call asks for no less than the one that was refused."""
        refused = self.call
        return (
            call.text_bytes >= refused.text_bytes
            and call.input_upper >= refused.input_upper
            and call.choices >= refused.choices
            and worst_of(call) >= worst_of(refused)
            and call.backend == refused.backend
            and call.price == refused.price
        )


class Bound:
    """The limits of one kind of call, and what follows from them.

    Never changed but for what the cells show and for ``standing``, the last refusal while it stands.
    """

    __slots__ = (
        "_shown",
        "bounds_output",
        "cells",
        "goes_on_alone",
        "key",
        "kind",
        "limits",
        "lines",
        "needs_price",
        "scenario",
        "seen_keys",
        "shown",
        "slots",
        "standing",
        "tenant",
    )

    def __init__(
        self, principal: Principal, scenario: Scenario, limits: tuple[BoundLimit, ...], gauges: Gauges
    ) -> None:
        tenant = self.tenant = principal.tenant.name
        self.key = principal.key.name
        self.scenario = scenario.name
        self.limits = limits
        self.kind = LimitSet(tenant, limits)
        self.needs_price = any(each.limit.unit == "cost" and each.limit.mode == "enforce" for each in limits)
        # An enforced budget counts output: the worst case that it reserves must be kept to.
        self.bounds_output = any(
            is_budget(each.limit) and each.limit.mode == "enforce" and each.limit.unit in _OUTPUT_UNITS
            for each in limits
        )
        # After a time without Redis some limits go on from what was counted here until Redis knows of that.
        policies = {each.limit.on_redis_loss for each in limits}
        self.goes_on_alone = "local" in policies and "closed" not in policies
        self.slots = tuple(each for each in limits if each.limit.unit == "concurrency")
        self.seen_keys = tuple((tenant, each.id) for each in limits)
        self.cells = tuple(gauges.limit_utilization(tenant, each.limit.name, _kind(each.limit)) for each in limits)
        self._shown: AdmitReply | None = None  # in the cells
        self.standing: Standing | None = None
        self.shown = tuple((unit, places) for unit in _SHOWN_UNITS if (places := _places_of(unit, limits)))
        # The same as header lines: for each unit its places, each with its capacity, how it is refilled and the text
        # before what is left; and the text after that.
        capacities, refills = self.kind.capacities, self.kind.refills
        self.lines = tuple(
            (
                tuple(
                    (place, capacities[place], refills[place], level_head(unit, capacities[place])) for place in places
                ),
                f"\r\nx-ratelimit-reset-{unit}: ",
            )
            for unit, places in self.shown
        )

    def show(self, reply: AdmitReply) -> None:
        """Have the metrics show these levels."""
        if reply is self._shown:
            return
        self._shown = reply
        parts = LIMIT_UTILIZATION.divisor
        for cell, capacity, left in zip(self.cells, self.kind.capacities, reply.remaining, strict=True):
            cell.value = parts - max(left, 0) * parts // capacity


def _kind(limit: Limit) -> str:
    if limit.unit == "concurrency":
        return "concurrency"
    return "budget" if is_budget(limit) else "rate"


def _places_of(unit: str, limits: tuple[BoundLimit, ...]) -> tuple[int, ...]:
    return tuple(place for place, each in enumerate(limits) if each.limit.unit == unit and each.limit.mode == "enforce")


def tenant_limits(tenant: Tenant) -> tuple[BoundLimit, ...]:
    """Every limit of a tenant as the levels know it."""
    return _bound("t", tenant.limits)


def key_limits(key: ApiKey) -> tuple[BoundLimit, ...]:
    """Every limit of a key as the levels know it."""
    return _bound(f"k:{key.name}", key.limits)


def _bound(owner: str, limits: Iterable[Limit]) -> tuple[BoundLimit, ...]:
    return tuple(BoundLimit(id=f"{owner}:{limit.name}", limit=limit) for limit in limits)


class Bindings:
    """Finds the limits of calls and remembers them."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges
        self._free: dict[str, LimitSet] = {}
        self._found: dict[tuple[str, str, str, str], tuple[tuple[Limit, ...], tuple[Limit, ...], Bound | None]] = {}

    def find(self, principal: Principal, scenario: Scenario, unit: LimitUnit | Literal[""] = "") -> Bound | None:
        """The limits of a call, with a ``unit`` those of that unit alone; None where nothing limits it."""
        of_tenant, of_key = principal.tenant.limits, principal.key.limits
        if not of_tenant and not of_key:
            return None
        kind = (principal.tenant.name, principal.key.name, scenario.name, unit)
        found = self._found.get(kind)
        if found is not None and found[0] is of_tenant and found[1] is of_key:
            return found[2]
        limits = tuple(
            each
            for each in (*tenant_limits(principal.tenant), *key_limits(principal.key))
            if each.limit.scenario in (None, scenario.name) and (not unit or each.limit.unit == unit)
        )
        bound = Bound(principal, scenario, limits, self._gauges) if limits else None
        if len(self._found) >= BINDINGS_MAX:
            self._found.clear()
        self._found[kind] = (of_tenant, of_key, bound)
        return bound

    def free(self, tenant: str) -> LimitSet:
        """The kind of calls of a tenant that nothing limits."""
        kind = self._free.get(tenant)
        if kind is None:
            if len(self._free) >= BINDINGS_MAX:
                self._free.clear()
            kind = self._free[tenant] = LimitSet(tenant, ())
        return kind
