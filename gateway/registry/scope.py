"""What a document may refer to, and what is wrong with what it does refer to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from gateway import model
from gateway.registry.accounts import Limit as LimitSpec
from gateway.registry.documents import FieldErrors, Kind, Override, ScenarioDocument, ScenarioSpec, When

SUGGEST_AMONG_MAX: Final = 200


class Scope(NamedTuple):
    """What a document may refer to: the objects that serve, by name."""

    backends: Mapping[str, model.Backend]
    prompts: Mapping[str, model.Prompt]
    scenarios: Mapping[str, model.Scenario]
    tenants: Mapping[str, model.Tenant]
    tenant_names: frozenset[str]  # known before tenants are compiled, since they and scenarios name each other
    why_missing: Callable[[Kind, str], str]
    visible: Callable[[str, Iterable[str]], Mapping[str, model.Scenario]]
    asks_for: Callable[[str, str], bool] = lambda _tenant, _scenario: True  # whether a tenant's own list allows it
    routing_headers: frozenset[str] | None = None  # that conditions may look at; None: not known here


class References:
    """Collects what is wrong with the references of one document; ``finish`` raises it."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._errors: list[tuple[str, str]] = []

    def add(self, field: str, reason: str) -> None:
        """A field is wrong."""
        self._errors.append((field, reason))

    def need(self, found: bool, field: str, kind: Kind, name: str) -> None:
        """A field names an object, which was found or not."""
        if not found:
            self.add(field, self._scope.why_missing(kind, name))

    def need_parts(self, field: str, parts: ScenarioSpec | Override, document: ScenarioDocument) -> None:
        """What a scenario, or an override of one, refers to."""
        scope = self._scope
        for index, target in enumerate(parts.targets or ()):
            place = f"{field}.targets[{index}]"
            self.need(target.backend in scope.backends, f"{place}.backend", "Backend", target.backend)
            if target.when is not None:
                self._need_condition(f"{place}.when", target.when, document)
        for index, name in enumerate(parts.fallbacks or ()):
            self.need(name in scope.backends, f"{field}.fallbacks[{index}]", "Backend", name)
        if parts.prompt is not None:
            self.need(parts.prompt in scope.prompts, f"{field}.prompt", "Prompt", parts.prompt)

    def _need_condition(self, field: str, when: When, document: ScenarioDocument) -> None:
        """A condition that no request could meet is a mistake."""
        scope, offered, scenario = self._scope, document.spec.access.tenants, document.metadata.name
        for index, tenant in enumerate(when.tenants or ()):
            place = f"{field}.tenants[{index}]"
            self.need(tenant in scope.tenant_names, place, "Tenant", tenant)
            if tenant in scope.tenant_names:
                if "*" not in offered and tenant not in offered:
                    self.add(place, f"`{tenant}` may not use the scenario: it is not in spec.access.tenants")
                elif not scope.asks_for(tenant, scenario):
                    self.add(place, f"`{tenant}` may not use the scenario: it is not in the tenant's spec.scenarios")
        for name in when.headers:
            if scope.routing_headers is not None and name not in scope.routing_headers:
                self.add(f"{field}.headers.{name}", "is not a header that LLM_GATEWAY_ROUTING_HEADERS lists")

    def need_limits(self, limits: Iterable[LimitSpec]) -> None:
        """The scenarios that limits name."""
        for index, limit in enumerate(limits):
            if limit.scenario is not None:
                found = limit.scenario in self._scope.scenarios
                self.need(found, f"spec.limits[{index}].scenario", "Scenario", limit.scenario)

    def finish(self) -> None:
        """Raise FieldErrors when anything was missing."""
        if self._errors:
            raise FieldErrors(*self._errors)


def suggestion(name: str, known: list[str]) -> str:
    """What else may have been meant; nothing where many are known."""
    import difflib

    close = difflib.get_close_matches(name, known, 1) if len(known) <= SUGGEST_AMONG_MAX else []
    return f"; did you mean `{close[0]}`?" if close else ""
