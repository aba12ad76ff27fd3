"""Planning: pure. One target by weight, then the fallbacks in order; what is left out is returned with the reason.

The other targets of a scenario are not tried after the chosen one: a target's weight is its share of the traffic, and
a failing neighbour must not multiply it. Who wants them as a safety net lists them under ``fallbacks`` too.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import InvalidRequest
from gateway.model import Backend, ChatRequest, Operation, Plan, Scenario, Target
from gateway.routing.conditions import Asking, candidates

BY_CONDITION: Final = "by condition"
"""Why a target is left out whose condition, or that of another one, does not want the request."""


def make_plan(
    scenario: Scenario,
    draw: float,
    max_attempts: int,
    *,
    priced_only: bool = False,
    asking: Asking | None = None,
    operation: Operation = "chat",
) -> Plan:
    """The plan for one call; ``draw`` is a uniform random number in [0, 1), ``max_attempts`` >= 1 bounds the plan.

    With ``priced_only`` backends without a price are left out: under a limit of cost nobody could say what they take.
    Backends that cannot do ``operation`` are left out. ``asking`` is needed where the scenario is ``conditional``.
    Raises InvalidRequest, see ``conditions``.
    """
    targets = scenario.targets if asking is None else candidates(scenario, asking)
    if len(targets) == 1 and not scenario.fallbacks:
        only = targets[0]
        backend = only.backend
        if only.weight > 0 and not (
            backend.disabled or (priced_only and backend.price is None) or lacks(backend, operation)
        ):
            return Plan(attempts=(backend,))  # as below, without its cost on every request
    dropped = [] if targets is scenario.targets else _not_meant(scenario, targets)
    usable: list[Target] = []
    for target in targets:
        if reason := _unusable(target.backend, operation, priced_only=priced_only):
            dropped.append((target.backend.name, reason))
        elif target.weight > 0:
            usable.append(target)
    attempts = [_choose(usable, draw)] if usable else []
    for backend in scenario.fallbacks:
        if reason := _unusable(backend, operation, priced_only=priced_only):
            dropped.append((backend.name, reason))
        elif backend in attempts:
            dropped.append((backend.name, "already planned"))
        elif len(attempts) >= max_attempts:
            dropped.append((backend.name, "beyond the bound of attempts"))
        else:
            attempts.append(backend)
    return Plan(attempts=tuple(attempts), dropped=tuple(dropped))


def _unusable(backend: Backend, operation: Operation, *, priced_only: bool) -> str:
    """Why a backend cannot be tried; empty where it can."""
    if backend.disabled:
        return "disabled"
    if priced_only and backend.price is None:
        return "without a price"
    return without(operation) if lacks(backend, operation) else ""


def lacks(backend: Backend, operation: Operation) -> bool:
    """Whether the backend cannot do this; every one has chat completions."""
    return operation != "chat" and operation not in backend.apis


def without(operation: Operation) -> str:
    """Why such a backend is left out."""
    return f"without {operation}"


def check_doable(plan: Plan, request: ChatRequest) -> None:
    """Raises InvalidRequest where no backend of an empty plan can do what is asked, at any time."""
    reasons = {reason for _, reason in plan.dropped} - {BY_CONDITION}
    if reasons == {without(request.operation)}:
        raise InvalidRequest(
            f"The model `{request.model[:128]}` has no {request.operation}.",
            code="unsupported_operation",
            param="model",
        )


def _not_meant(scenario: Scenario, targets: tuple[Target, ...]) -> list[tuple[str, str]]:
    """The targets that another one's condition, or their own, has left out."""
    return [(each.backend.name, BY_CONDITION) for each in scenario.targets if each not in targets]


def _choose(targets: list[Target], draw: float) -> Backend:
    if len(targets) == 1:
        return targets[0].backend
    point = draw * sum(target.weight for target in targets)
    for target in targets:
        point -= target.weight
        if point < 0:
            return target.backend
    return targets[-1].backend
