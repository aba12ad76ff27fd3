"""Which names a tenant may ask for: Tenant.spec.scenarios and Scenario.spec.access together, with aliases. Pure.

A scenario is visible where both sides allow it. Within what one tenant sees, a name wins over every alias and the
older of two scenarios keeps an alias that both claim; the loser keeps serving under its other names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from gateway.model import Frozen, Problem, Scenario


class Offer(Frozen, frozen=True):
    """A scenario with those who may use it."""

    scenario: Scenario
    tenants: frozenset[str]  # names, or "*"
    source: str


class Visibility:
    """Answers for one load; ``offers`` come oldest first. ``problems`` grows as conflicts are met."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.problems: dict[tuple[str, str], Problem] = {}
        self._offers = {offer.scenario.name: offer for offer in offers}
        self._rank = {name: rank for rank, name in enumerate(self._offers)}
        self._open = [name for name, offer in self._offers.items() if "*" in offer.tenants]
        self._granted: dict[str, list[str]] = {}
        for offer in offers:
            for tenant in offer.tenants - {"*"}:
                self._granted.setdefault(tenant, []).append(offer.scenario.name)
        self._maps: dict[tuple[str, ...], Mapping[str, Scenario]] = {}

    def names(self, tenant: str, asked: Iterable[str]) -> Mapping[str, Scenario]:
        """Return every name and alias for a tenant whose own list is ``asked``; equal sets share one mapping."""
        asked = frozenset(asked)
        offered = {*self._open, *self._granted.get(tenant, ())}
        visible = offered if "*" in asked else offered & asked
        key = tuple(sorted(visible, key=self._rank.__getitem__))
        if key not in self._maps:
            self._maps[key] = MappingProxyType(self._resolve(key, tenant))
        return self._maps[key]

    def _resolve(self, visible: Sequence[str], tenant: str) -> dict[str, Scenario]:
        names = {name: self._offers[name].scenario for name in visible}
        owners = dict(names)
        for name in visible:
            for index, alias in enumerate(names[name].aliases):
                owner = owners.setdefault(alias, names[name])
                if owner.name != name:
                    self._conflict(name, index, owner, tenant)
        return owners

    def _conflict(self, loser: str, index: int, owner: Scenario, tenant: str) -> None:
        offer = self._offers[loser]
        alias = offer.scenario.aliases[index]
        claim = "the name" if alias == owner.name else "an alias"
        self.problems.setdefault(
            (loser, alias),
            Problem(
                source=offer.source,
                object=f"Scenario/{loser}",
                field=f"spec.aliases[{index}]",
                reason=f"`{alias}` is {claim} of Scenario/{owner.name} ({self._offers[owner.name].source}) "
                f"for tenant {tenant}, and stays with it",
            ),
        )
