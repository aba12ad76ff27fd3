"""Which slot a key is in, and who serves it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.redis.cluster import Range, read_ranges, slot_of
from gateway.redis.config import Address

HERE = Address("seed", 1)


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"123456789", 12739), (b"foo", 12182), (b"{foo}.bar", 12182), (b"foo{}{bar}", 8363), (b"foo{{bar}}zap", 4015)],
)
def test_slots_are_those_of_the_specification(key: bytes, slot: int) -> None:
    """The first is the check value that the specification names; the others were asked of a server."""
    assert slot_of(key) == slot


def test_ranges_are_read_with_their_replicas() -> None:
    """A node without a name is at the host that was asked."""
    answer = [[0, 5, [b"a", 1, b"id", []], [b"b", 2, b"id", []]], [6, 16383, [b"", 3, b"id"]], [7, 7, [None, 4]]]
    assert read_ranges(answer, HERE) == [
        Range(0, 5, Address("a", 1), frozenset({Address("b", 2)})),
        Range(6, 16383, Address("seed", 3)),
        Range(7, 7, Address("seed", 4)),
    ]


@pytest.mark.parametrize(
    "answer", [b"OK", [[0, 5]], [[0]], [[0, 16384, [b"a", 1]]], [[5, 0, [b"a", 1]]], 3, [[0, 1, 2]]]
)
def test_other_answers_are_refused(answer: Any) -> None:
    """Rather than sending commands anywhere."""
    with pytest.raises(ValueError):
        read_ranges(answer, HERE)
