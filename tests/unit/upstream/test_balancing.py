"""Which endpoint gets the next call."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balancing import SCANNED_MAX, Member, least_loaded


def members(*loads: int) -> list[Member]:
    """Members with so many calls each."""
    pools: list[Any] = [SimpleNamespace(busy=range(load), connecting=0) for load in loads]
    return [Member(pool) for pool in pools]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=SCANNED_MAX))
def test_nobody_has_fewer(loads: list[int]) -> None:
    """Up to the bound of comparisons."""
    assert least_loaded(members(*loads)).load == min(loads)


def test_calls_that_connect_count() -> None:
    """Else every call of a burst would go to the same."""
    busy, connecting = members(1, 0)
    connecting.pool.connecting = 2
    assert least_loaded([busy, connecting]) is busy


def test_ties_go_to_everybody() -> None:
    """None of them is first by its place."""
    tied = members(1, 1, 1, 2)
    chosen = Counter(tied.index(least_loaded(tied)) for _ in range(600))
    assert set(chosen) == {0, 1, 2}
    assert min(chosen.values()) > 100


def test_of_many_the_better_of_two() -> None:
    """A loaded one loses to nearly everybody, at a cost that does not grow with their number."""
    many = members(*([9] + [0] * (3 * SCANNED_MAX)))
    assert all(least_loaded(many).load == 0 for _ in range(200))
