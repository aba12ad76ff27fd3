"""Who gets the canary: the same callers everywhere, and only more of them as the percent rises."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rollout.choice import place, takes_part
from tests.unit.rollout.values import canary, principal, request

words = st.lists(st.text(max_size=20), min_size=1, max_size=4)


def test_a_caller_has_one_place_in_every_process() -> None:
    """Whatever the seed of Python's own hashes, and in this very release as in the next: the number is pinned."""
    program = "from gateway.rollout.choice import place; print(place('chat', 'acme', 'key', 'acme-ci').hex())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {place("chat", "acme", "key", "acme-ci").hex()}
    assert place("chat", "acme", "key", "acme-ci") == pytest.approx(PINNED, abs=1e-15)


PINNED = 0.5383134306958326


@given(words)
def test_every_place_is_in_the_range(parts: list[str]) -> None:
    """Below 1, so that 100 percent is everybody, and not below 0, so that 0 percent is nobody."""
    assert 0.0 <= place(*parts) < 1.0


def test_places_are_spread_evenly() -> None:
    """Of 20,000 keys about each tenth lies in each tenth of the range, however alike their names are."""
    counts = [0] * 10
    for number in range(20_000):
        counts[int(place("chat", "acme", "key", f"key-{number}") * 10)] += 1
    assert all(abs(count - 2000) < 200 for count in counts), counts


@given(st.text(max_size=30), st.floats(0, 100), st.floats(0, 100), st.sampled_from(["key", "tenant", "user"]))
def test_a_higher_percent_only_adds_callers(name: str, one: float, other: float, sticky: str) -> None:
    """Who has the canary at 5 % has it at 10 %, too."""
    low, high = sorted((one, other))
    asked = request(user=name), principal(key=f"k{name}", tenant=f"t{name}")
    few, many = (canary(percent=percent, sticky=sticky) for percent in (low, high))
    assert takes_part(few, asked[1], asked[0]) <= takes_part(many, asked[1], asked[0])


@pytest.mark.parametrize("sticky", ["request", "key", "tenant", "user"])
def test_none_and_all(sticky: str) -> None:
    """0 percent is nobody and 100 percent is everybody."""
    callers = [(principal(key=f"k{n}", tenant=f"t{n}"), request(user=f"u{n}")) for n in range(200)]
    assert not any(takes_part(canary(percent=0.0, sticky=sticky), *caller) for caller in callers)
    assert all(takes_part(canary(percent=100.0, sticky=sticky), *caller) for caller in callers)


def sides(sticky: str, *callers: tuple[Any, Any]) -> list[bool]:
    """On which side each caller is at half of the traffic."""
    half = canary(percent=50.0, sticky=sticky)
    return [takes_part(half, *caller) for caller in callers]


def test_what_is_sticky_decides_alone() -> None:
    """Of a tenant all keys are on one side; of a key all users; of a user all keys of a tenant; requests are drawn."""
    of_tenant = sides("tenant", *((principal(key=f"k{n}"), request(user=f"u{n}")) for n in range(50)))
    of_key = sides("key", *((principal(), request(user=f"u{n}")) for n in range(50)))
    of_user = sides("user", *((principal(key=f"k{n}"), request(user="jane")) for n in range(50)))
    assert [len(set(found)) for found in (of_tenant, of_key, of_user)] == [1, 1, 1]
    assert len(set(sides("user", *((principal(), request(user=f"u{n}")) for n in range(50))))) == 2
    assert len(set(sides("user", *((principal(tenant=f"t{n}"), request(user="jane")) for n in range(50))))) == 2
    assert len(set(sides("request", *((principal(), request()) for _ in range(200))))) == 2


@pytest.mark.parametrize("user", [None, "", 5, ["jane"]])
def test_without_a_user_the_key_decides(user: object) -> None:
    """A request whose field ``user`` is absent or no text goes by its key."""
    keys = [principal(key=f"k{n}") for n in range(50)]
    fields = {} if user is None else {"user": user}
    assert sides("user", *((key, request(**fields)) for key in keys)) == sides(
        "key", *((key, request()) for key in keys)
    )


def test_scenarios_have_other_first_callers() -> None:
    """No caller is always among the first to get what is new."""
    first = [{n for n in range(400) if place(name, "acme", "key", f"k{n}") < 0.1} for name in ("chat", "support")]
    assert len(first[0] & first[1]) < min(map(len, first)) / 2
