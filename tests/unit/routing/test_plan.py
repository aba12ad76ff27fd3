"""Planning: shares by weight, fallbacks in order, and a reason for everything left out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Backend, Price, Scenario, Target
from gateway.routing import make_plan


def backend(name: str, *, disabled: bool = False) -> Backend:
    """A backend."""
    return Backend(name=name, provider="openai", origin=None, disabled=disabled)


def scenario(targets: list[tuple[Backend, int]], fallbacks: list[Backend] | None = None) -> Scenario:
    """A scenario with weighted targets."""
    return Scenario(
        name="s", targets=tuple(Target(backend=b, weight=w) for b, w in targets), fallbacks=tuple(fallbacks or ())
    )


A, B, C = backend("a"), backend("b"), backend("c")


def names(found: tuple[Backend, ...]) -> list[str]:
    """The names, in order."""
    return [each.name for each in found]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any))
def test_the_share_of_a_target_is_its_weight(weights: list[int]) -> None:
    """Draws spread evenly over [0, 1) choose each target exactly in proportion to its weight."""
    total = sum(weights)
    plan_of = scenario([(backend(str(index)), weight) for index, weight in enumerate(weights)])
    chosen = Counter(make_plan(plan_of, (step + 0.5) / total, 4).attempts[0].name for step in range(total))
    assert chosen == Counter({str(index): weight for index, weight in enumerate(weights) if weight})


def test_the_ends_of_the_draw() -> None:
    """0 chooses the first, the largest float below 1 the last."""
    both = scenario([(A, 90), (B, 10)])
    assert names(make_plan(both, 0.0, 4).attempts) == ["a"]
    assert names(make_plan(both, 1 - 2**-53, 4).attempts) == ["b"]


def test_a_failing_target_does_not_multiply_its_neighbours() -> None:
    """Only one target is tried, then the fallbacks in their order."""
    plan = make_plan(scenario([(A, 1), (B, 1)], [C, B]), 0.0, 4)
    assert names(plan.attempts) == ["a", "c", "b"]
    assert plan.dropped == ()


def test_disabled_backends_are_left_out_with_the_reason() -> None:
    """A disabled target's share goes to the others; a disabled fallback is passed over."""
    off = backend("off", disabled=True)
    plan = make_plan(scenario([(off, 99), (A, 1)], [off, B]), 0.5, 4)
    assert names(plan.attempts) == ["a", "b"]
    assert plan.dropped == (("off", "disabled"), ("off", "disabled"))


def test_weight_zero_gets_nothing() -> None:
    """A target of weight 0 is never drawn; it may still be a fallback."""
    plan = make_plan(scenario([(A, 0), (B, 1)], [A]), 0.0, 4)
    assert names(plan.attempts) == ["b", "a"]
    assert names(make_plan(scenario([(A, 0)]), 0.0, 4).attempts) == []


def test_a_backend_is_planned_once() -> None:
    """A fallback that is the chosen target is not tried again."""
    plan = make_plan(scenario([(A, 1)], [A, B, B]), 0.0, 4)
    assert names(plan.attempts) == ["a", "b"]
    assert plan.dropped == (("a", "already planned"), ("b", "already planned"))


def test_attempts_are_bounded() -> None:
    """No plan is longer than the setting; what is beyond it is named."""
    plan = make_plan(scenario([(A, 1)], [B, C]), 0.0, 2)
    assert names(plan.attempts) == ["a", "b"]
    assert plan.dropped == (("c", "beyond the bound of attempts"),)
    assert names(make_plan(scenario([(A, 1)], [B]), 0.0, 1).attempts) == ["a"]


def test_with_all_disabled_nothing_is_planned() -> None:
    """An empty plan says why."""
    off = backend("off", disabled=True)
    plan = make_plan(scenario([(off, 1)]), 0.0, 4)
    assert plan.attempts == ()
    assert plan.dropped == (("off", "disabled"),)


def test_only_backends_with_a_price_under_a_limit_of_cost() -> None:
    """Targets and fallbacks alike; their share of the traffic goes to the others."""
    price = Price(input_nano_usd=1, cached_input_nano_usd=1, output_nano_usd=1)
    paid = Backend(name="paid", provider="openai", origin=None, price=price)
    free_first = scenario([(A, 99), (paid, 1)], [B])
    plan = make_plan(free_first, 0.0, 4, priced_only=True)
    assert names(plan.attempts) == ["paid"]
    assert plan.dropped == (("a", "without a price"), ("b", "without a price"))
    assert names(make_plan(free_first, 0.0, 4).attempts) == ["a", "b"]
    assert make_plan(scenario([(A, 1)]), 0.0, 4, priced_only=True).attempts == ()
