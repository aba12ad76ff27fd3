"""Values for the tests of limits, with only what a test says."""

from __future__ import annotations

from typing import Any

from gateway.limits.binding import Bindings, Bound
from gateway.limits.wire import AdmitCall, AdmitReply, AdmitRun, BoundLimit, LimitSet
from gateway.model import ApiKey, Limit, Principal, Scenario, Tenant
from gateway.telemetry.series import Cell

ACME = Tenant(name="acme", scenarios={})
CHAT = Scenario(name="chat")


class Counts:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.rejected: list[tuple[str, bool]] = []
        self.policies: list[str] = []
        self.lost = 0
        self.cells: dict[str, Cell] = {}

    def limit_utilization(self, tenant: str, limit: str, kind: str) -> Cell:
        """See Observer."""
        return self.cells.setdefault(limit, Cell())

    def limit_rejected(self, tenant: str, limit: str, *, shadow: bool = False) -> None:
        """See Observer."""
        self.rejected.append((limit, shadow))

    def degraded(self, dependency: str, policy: str) -> None:
        """See Observer."""
        self.policies.append(policy)

    def leases_lost(self, count: int = 1) -> None:
        """See Observer."""
        self.lost += count


def a_limit(unit: str, per: str | None, amount: int, mode: str = "enforce", **fields: Any) -> Limit:
    """A limit, named after its unit and period."""
    values: dict[str, Any] = {"name": f"{unit}-{per}", "unit": unit, "per": per, "amount": amount, "mode": mode}
    return Limit(**(values | fields))


def limits(*given: tuple[Any, ...] | Limit) -> tuple[BoundLimit, ...]:
    """Limits of a tenant, each given as itself or as the arguments of ``a_limit``."""
    values = [each if isinstance(each, Limit) else a_limit(*each) for each in given]
    return tuple(BoundLimit(id=f"t:{value.name}", limit=value) for value in values)


def principal(*given: tuple[Any, ...] | Limit, tenant: str = "acme") -> Principal:
    """A caller whose tenant has these limits."""
    values = tuple(each if isinstance(each, Limit) else a_limit(*each) for each in given)
    return Principal(tenant=Tenant(name=tenant, scenarios={}, limits=values), key=ApiKey(name="ci"))


def bound(*given: tuple[Any, ...] | Limit) -> Bound:
    """What binds a call of that caller."""
    return tenant_bound("acme", *(given or (("requests", "minute", 1),)))


def tenant_bound(tenant: str, *given: tuple[Any, ...] | Limit) -> Bound:
    """What binds a call of a tenant with these limits."""
    found = Bindings(Counts()).find(principal(*given, tenant=tenant), CHAT)
    assert found is not None
    return found


def admit_call(**fields: Any) -> AdmitCall:
    """A call that asks for admission."""
    values: dict[str, Any] = {
        "lease_id": "a1",
        "kind": LimitSet("acme", fields.pop("limits", ())),
        "scenario": "chat",
        "backend": "main",
        "text_bytes": 100,
        "input_upper": 120,
        "output_cap": None,
        "worst_output": 50,
    }
    return AdmitCall(**(values | fields))


def admitted(*levels: tuple[int, int, int], now_ms: int = 1_000_000) -> AdmitReply:
    """An admission with levels of limit, remaining and reset."""
    return AdmitReply(
        kind=LimitSet("acme", limits(*[a_limit("requests", "day", most) for most, _, _ in levels])),
        shared=AdmitRun(
            epoch="e1",
            now_ms=now_ms,
            expired=0,
            windows=(0,) * len(levels),
            untils=tuple(reset for _, _, reset in levels),
            answers=[],
        ),
        refused_place=0,
        retry_after_ms=0,
        output_bound=-1,
        input_estimate=25,
        output_estimate=50,
        shadowed_places=(),
        used=[most - left for most, left, _ in levels],
    )
