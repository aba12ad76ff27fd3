"""Kept answers as bytes."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from gateway.cache.entry import VERSION, Damaged, Entry, pack, unpack

MAX = 1 << 20


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 100_000])
def test_what_is_kept_comes_back(size: int) -> None:
    """Whether it is compressed or not."""
    body = bytes(number % 251 for number in range(size))
    assert unpack(pack(body, 12.5), MAX) == (body, 12.5)


def test_what_is_long_is_compressed() -> None:
    """Text takes a fraction of its room."""
    assert len(pack(b"all work and no play " * 1000, 0.0)) < 1000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        pack(b"x" * 2000, 0.0)[:-1],
        msgspec.msgpack.encode(Entry(VERSION + 1, 0.0, 1, False, b"x")),
        msgspec.msgpack.encode(Entry(VERSION, 0.0, 5, True, zlib.compress(b"123456"))),
        msgspec.msgpack.encode(Entry(VERSION, 0.0, 7, True, zlib.compress(b"123456"))),
        msgspec.msgpack.encode(Entry(VERSION, 0.0, 7, True, b"no zlib")),
    ],
)
def test_what_is_damaged_is_no_answer(raw: bytes) -> None:
    """Nothing of it is ever sent to anybody."""
    with pytest.raises(Damaged):
        unpack(raw, MAX)


def test_a_bomb_is_not_unpacked() -> None:
    """What says that it is larger than an answer may be is refused, what is larger than it says is cut and refused."""
    content = zlib.compress(b"\0" * 10_000_000)
    for size in (10_000_000, 10):
        with pytest.raises(Damaged):
            unpack(msgspec.msgpack.encode(Entry(VERSION, 0.0, size, True, content)), MAX)
