"""Answers that are held in the process for a moment."""

from __future__ import annotations

import msgspec
import pytest

from gateway.cache import local
from gateway.cache.key import Way
from gateway.cache.local import LocalAnswers
from gateway.cache.store import Kept
from gateway.model import CachePolicy

WAY = Way(tenant="acme", scenario="chat", policy=CachePolicy(ttl_s=10.0), digest=b"d", flight=b"w", stream=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed by the test."""
    now = [100.0]
    monkeypatch.setattr(local, "monotonic", lambda: now[0])
    return now


def test_an_answer_is_held_for_its_time_and_grows_older(clock: list[float]) -> None:
    """Its age is that of the answer, not of the holding."""
    held = LocalAnswers(1.0, 1000)
    assert held.find(WAY) is None
    held.hold(WAY, Kept(b"body", 5.0))
    clock[0] += 0.75
    assert held.find(WAY) == Kept(b"body", 5.75)
    clock[0] += 0.5
    assert held.find(WAY) is None


def test_no_tenant_finds_anothers_and_no_digest_anothers(clock: list[float]) -> None:
    """Both are its name."""
    held = LocalAnswers(1.0, 1000)
    held.hold(WAY, Kept(b"body", 0.0))
    assert held.find(msgspec.structs.replace(WAY, tenant="beta")) is None
    assert held.find(msgspec.structs.replace(WAY, digest=b"e")) is None
    assert clock == [100.0]


def test_a_way_is_found_by_its_writing_as_long_as_its_answer_is_held(clock: list[float]) -> None:
    """For the policy that it was made for; by no other writing, and by none where there was none."""
    held = LocalAnswers(1.0, 1000)
    way = msgspec.structs.replace(WAY, writing=("acme", b"text"))
    held.hold(way, Kept(b"body", 0.0))
    assert held.way(("acme", b"text"), way.policy) is way
    assert held.way(("beta", b"text"), way.policy) is None
    assert held.way(("acme", b"text"), CachePolicy(ttl_s=10.0)) is None
    again = msgspec.structs.replace(way, writing=("acme", b"other text"))
    held.hold(again, Kept(b"body", 0.0))
    assert held.way(("acme", b"text"), way.policy) is None
    assert held.way(("acme", b"other text"), way.policy) is again
    clock[0] += 1.5
    assert held.find(again) is None
    assert held.way(("acme", b"other text"), way.policy) is None
    held.hold(WAY, Kept(b"body", 0.0))
    assert held.way((), WAY.policy) is None


def test_writings_count_with_their_answers(clock: list[float]) -> None:
    """A long question takes room, too."""
    held = LocalAnswers(1.0, 100)
    for number in range(3):
        way = msgspec.structs.replace(WAY, digest=b"%d" % number, writing=("acme", number, b"x" * 30))
        held.hold(way, Kept(b"x" * 10, 0.0))
    assert [held.way(("acme", number, b"x" * 30), WAY.policy) is not None for number in range(3)] == [False, True, True]
    held.hold(msgspec.structs.replace(WAY, writing=("acme", b"x" * 100)), Kept(b"x", 0.0))
    assert held.find(WAY) is None
    assert clock == [100.0]


def test_what_is_older_than_the_scenario_wants_or_replaced_is_not_given(clock: list[float]) -> None:
    """However short it was held."""
    held = LocalAnswers(5.0, 1000)
    held.hold(WAY, Kept(b"body", 9.5))
    assert held.find(msgspec.structs.replace(WAY, policy=CachePolicy(ttl_s=9.0))) is None
    held.hold(WAY, Kept(b"body", 9.5))
    clock[0] += 1.0
    assert held.find(WAY) is None
    held.hold(WAY, Kept(b"old", 0.0))
    held.forget(WAY)
    assert held.find(WAY) is None


def test_the_oldest_go_beyond_the_bound(clock: list[float]) -> None:
    """What is larger than all of it is not held, nothing is where the time is none, and bytes are counted once."""
    held = LocalAnswers(1.0, 100)
    ways = [msgspec.structs.replace(WAY, digest=b"%d" % number) for number in range(4)]
    for each in (*ways, ways[3]):
        held.hold(each, Kept(b"x" * 30, 0.0))
    held.hold(WAY, Kept(b"x" * 101, 0.0))
    assert [held.find(each) is not None for each in (*ways, WAY)] == [False, True, True, True, False]
    none = LocalAnswers(0.0, 100)
    none.hold(WAY, Kept(b"x", 0.0))
    assert none.find(WAY) is None
    assert clock == [100.0]


def test_what_may_not_be_given_any_more_is_let_go(clock: list[float]) -> None:
    """Where nobody asks for it again, too: many small answers take more memory than their bytes."""
    held = LocalAnswers(1.0, 1000)
    for number in range(20):
        held.hold(msgspec.structs.replace(WAY, digest=b"%d" % number), Kept(b"x", 0.0))
        clock[0] += 0.5
    assert len(held._held) == 3
    assert held.find(msgspec.structs.replace(WAY, digest=b"19")) is not None
