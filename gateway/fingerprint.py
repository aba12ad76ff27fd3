"""A digest of a compiled value: equal for what answers alike, different wherever an answer may differ. Pure.

Every field counts unless its class names it in ``no_effect``, so that a field that is added counts until somebody has
thought about it. A value of a type that is not known here is an error, not a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set

import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode


def digest_of(value: msgspec.Struct) -> bytes:
    """32 bytes. Raises TypeError for a field whose type cannot be told apart here."""
    return hashlib.sha256(_encode(_told(value))).digest()


def _told(value: object) -> object:
    """The value as lists and scalars, each with a mark of its type where JSON would lose it."""
    if isinstance(value, msgspec.Struct):
        skipped: frozenset[str] = getattr(value, "no_effect", frozenset())
        names = [name for name in value.__struct_fields__ if name not in skipped]
        return [type(value).__name__, *([name, _told(getattr(value, name))] for name in names)]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return ["bytes", value]
    if isinstance(value, tuple | list):
        return ["list", *map(_told, value)]
    if isinstance(value, Set):
        return ["set", *sorted((_told(item) for item in value), key=_encode)]
    if isinstance(value, Mapping):
        return ["map", *sorted(([_told(key), _told(item)] for key, item in value.items()), key=_encode)]
    raise TypeError(f"no fingerprint of {type(value).__name__}")
