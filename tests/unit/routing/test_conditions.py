"""Conditions: which targets are candidates, and what becomes of a request that no target is for."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import InvalidRequest
from gateway.model import Backend, Condition, Price, Scenario, Target
from gateway.routing import Asking, make_plan
from gateway.routing.conditions import holds
from tests.unit.rollout.values import principal, request

PRICE = Price(input_nano_usd=1, cached_input_nano_usd=1, output_nano_usd=1)
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]


def backend(name: str, *, disabled: bool = False) -> Backend:
    """A backend."""
    return Backend(name=name, provider="openai", origin=None, disabled=disabled)


def asking(headers: dict[str, str] | None = None, tenant: str = "acme", **fields: Any) -> Asking:
    """A request of a caller."""
    return Asking(principal=principal(tenant=tenant), request=request(**fields), headers=headers or {})


@pytest.mark.parametrize(
    ("condition", "asked", "expected"),
    [
        (Condition(), asking(), True),
        (Condition(tenants=frozenset({"acme", "other"})), asking(), True),
        (Condition(tenants=frozenset({"other"})), asking(), False),
        (Condition(keys=frozenset({"acme-key"})), asking(), True),
        (Condition(keys=frozenset({"acme"})), asking(), False),
        (Condition(min_bytes=100), asking(body_bytes=100), True),
        (Condition(min_bytes=101), asking(body_bytes=100), False),
        (Condition(max_bytes=100), asking(body_bytes=100), True),
        (Condition(max_bytes=99), asking(body_bytes=100), False),
        (Condition(tools=True), asking(tools=[{"type": "function"}]), True),
        (Condition(tools=True), asking(functions=[{"name": "f"}]), True),
        (Condition(tools=True), asking(tools=[]), False),
        (Condition(tools=True), asking(tools=None), False),
        (Condition(tools=True), asking(), False),
        (Condition(tools=False), asking(), True),
        (Condition(tools=False), asking(tools=[{}]), False),
        (Condition(images=True), asking(messages=IMAGE), True),
        (Condition(images=True), asking(messages=[{"content": "image_url"}]), False),
        (Condition(images=False), asking(), True),
        (Condition(headers=(("x-region", frozenset({"eu"})),)), asking({"x-region": "eu"}), True),
        (Condition(headers=(("x-region", frozenset({"eu", "us"})),)), asking({"x-region": "us"}), True),
        (Condition(headers=(("x-region", frozenset({"eu"})),)), asking({"x-region": "EU"}), False),
        (Condition(headers=(("x-region", frozenset({"eu"})),)), asking({"x-region": "eu,us"}), False),
        (Condition(headers=(("x-region", frozenset({"eu"})),)), asking(), False),
        (Condition(tenants=frozenset({"acme"}), tools=True), asking(), False),
    ],
)
def test_a_condition_holds_where_all_of_it_does(condition: Condition, asked: Asking, expected: bool) -> None:
    """Lists are alternatives, everything else must hold together; values are compared exactly."""
    assert holds(condition, asked) is expected


BIG, EU, REST = backend("big"), backend("eu"), backend("rest")
RULES = Scenario(
    name="s",
    conditional=True,
    targets=(
        Target(backend=REST, weight=1),
        Target(backend=BIG, weight=1, when=Condition(min_bytes=1000)),
        Target(backend=EU, weight=3, when=Condition(tenants=frozenset({"acme"}))),
    ),
    fallbacks=(REST,),
)


def first(scenario: Scenario, asked: Asking, draw: float = 0.0, *, priced_only: bool = False) -> str:
    """The backend that is tried first."""
    return make_plan(scenario, draw, 4, asking=asked, priced_only=priced_only).attempts[0].name


def test_those_with_a_condition_win_and_share_by_weight() -> None:
    """One that holds, two that hold, none that holds."""
    assert {first(RULES, asking(tenant="other"), draw) for draw in (0.0, 0.5, 0.99)} == {"rest"}
    assert {first(RULES, asking(), draw) for draw in (0.0, 0.5, 0.99)} == {"eu"}
    both = [first(RULES, asking(body_bytes=1000), (step + 0.5) / 100) for step in range(100)]
    assert (both.count("big"), both.count("eu")) == (25, 75)


def test_what_was_left_out_is_told() -> None:
    """A plan says which targets were not meant for the request."""
    plan = make_plan(RULES, 0.0, 4, asking=asking())
    assert [each.name for each in plan.attempts] == ["eu", "rest"]
    assert plan.dropped == (("rest", "by condition"), ("big", "by condition"))


def test_a_rule_never_sends_elsewhere_what_it_sends_to_one_place() -> None:
    """With its target disabled or without a price the request goes to the fallbacks, not to the other targets."""
    off = Scenario(
        name="s",
        conditional=True,
        targets=(
            Target(backend=REST, weight=1),
            Target(backend=backend("eu", disabled=True), weight=1, when=Condition(tenants=frozenset({"acme"}))),
        ),
        fallbacks=(backend("net"),),
    )
    plan = make_plan(off, 0.0, 4, asking=asking())
    assert [each.name for each in plan.attempts] == ["net"]
    assert ("rest", "by condition") in plan.dropped


@pytest.mark.parametrize("unmatched", ["refuse", None])
def test_a_request_that_no_target_is_for_is_refused(unmatched: Any) -> None:
    """A 400 that says so, before anything is reserved."""
    only = Scenario(name="s", conditional=True, targets=RULES.targets[1:], fallbacks=(REST,), unmatched=unmatched)
    with pytest.raises(InvalidRequest) as refused:
        make_plan(only, 0.0, 4, asking=asking(tenant="other"))
    assert (refused.value.status, refused.value.code) == (400, "unmatched_request")


def test_or_goes_to_the_fallbacks_where_the_scenario_says_so() -> None:
    """In their order."""
    only = Scenario(name="s", conditional=True, targets=RULES.targets[1:], fallbacks=(REST, BIG), unmatched="fallbacks")
    plan = make_plan(only, 0.0, 4, asking=asking(tenant="other"))
    assert [each.name for each in plan.attempts] == ["rest", "big"]
