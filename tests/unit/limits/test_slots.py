"""The places that running calls hold."""

from __future__ import annotations

from gateway.limits.slots import BATCH_MAX, Slots
from tests.unit.limits.values import limits

TWO = limits(("concurrency", None, 5, "enforce"), ("concurrency", "x", 5))
ONE = TWO[:1]


def test_calls_hold_places_until_they_end() -> None:
    """Each limit counts its own; ending twice is ending once."""
    slots = Slots()
    slots.hold("acme", "a", TWO)
    slots.hold("acme", "b", ONE)
    slots.hold("other", "c", ONE)
    first, second = (("acme", each.id) for each in TWO)
    assert (slots.count(first), slots.count(second)) == (2, 1)
    slots.release("acme", "a", TWO)
    slots.release("acme", "a", TWO)
    assert (slots.count(first), slots.count(second)) == (1, 0)
    slots.release("acme", "b", ONE)
    slots.release("nobody", "b", ONE)
    assert [tenant for tenant, _ in slots.batches()] == ["other"]


def test_renewals_are_bounded() -> None:
    """Many calls of a tenant are renewed in parts; none is left out or renewed twice."""
    slots = Slots()
    for number in range(BATCH_MAX * 2 + 1):
        slots.hold("acme", f"a{number}", ONE)
    batches = [held for _, held in slots.batches()]
    assert [len(held) for held in batches] == [BATCH_MAX, BATCH_MAX, 1]
    assert len({each.lease_id for held in batches for each in held}) == BATCH_MAX * 2 + 1
