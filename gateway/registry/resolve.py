"""From the name that a caller asked for to the scenario that answers. Pure lookups in the snapshot."""

from __future__ import annotations

from gateway.errors import ModelNotFound
from gateway.model import Principal, Scenario


def resolve(principal: Principal, name: str) -> Scenario:
    """Return the scenario that this caller means by a name or alias.

    Raises ModelNotFound, with one text, for a name that does not exist, is disabled or is not for this caller.
    """
    scenario = principal.tenant.scenarios.get(name)
    if scenario is None or not _usable(principal, scenario):
        raise ModelNotFound(name)
    return scenario


def usable_names(principal: Principal) -> dict[str, Scenario]:
    """Return every name and alias that this caller may use, sorted: what ``GET /v1/models`` lists."""
    named = sorted(principal.tenant.scenarios.items(), key=lambda item: item[0])
    return {name: scenario for name, scenario in named if _usable(principal, scenario)}


def _usable(principal: Principal, scenario: Scenario) -> bool:
    narrowed = principal.key.scenarios
    return not scenario.disabled and (narrowed is None or scenario.name in narrowed)
