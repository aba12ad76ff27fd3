"""A kept answer as bytes: a whole chat completion, compressed where that helps. Pure.

The form is that of a whole answer, whichever way it came; ``dialects.openai.replay`` makes a stream of it.
"""

from __future__ import annotations

import zlib

import msgspec

VERSION = 1
_COMPRESSED_FROM = 1024  # bytes; below it the effort of a hit would be greater than what is spared
_LEVEL = 1


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """``kept_at`` is Unix seconds by the clock of whoever kept it; ``size`` that of the body, which may be packed."""

    version: int
    kept_at: float
    size: int
    is_packed: bool
    content: bytes


class Damaged(ValueError):
    """Bytes that are no entry of this version."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def pack(body: bytes, kept_at: float) -> bytes:
    """The bytes to keep."""
    is_packed = len(body) >= _COMPRESSED_FROM
    content = zlib.compress(body, _LEVEL) if is_packed else body
    return _encode(Entry(VERSION, kept_at, len(body), is_packed, content))


def unpack(raw: bytes, size_max: int) -> tuple[bytes, float]:
    """The body, and when it was kept. Raises Damaged, also for a body of more than ``size_max`` bytes."""
    try:
        entry = _decode(raw)
        if entry.version != VERSION or entry.size > size_max:
            raise Damaged("another version, or too large")
        if not entry.is_packed:
            return entry.content, entry.kept_at
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(entry.content, entry.size + 1)
    except (msgspec.DecodeError, zlib.error) as error:
        raise Damaged(str(error)) from None
    if len(body) != entry.size or not unpacker.eof:
        raise Damaged("not as long as it should be")
    return body, entry.kept_at
