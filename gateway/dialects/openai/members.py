"""The members of a JSON object, raw: each once, and no more of them than are wanted.

Invariants:
- A name that appears twice, in whatever spelling of its escapes, is refused.
- The number of Python objects made of a body is bounded whatever its size: a large one is counted while it is decoded.
- Values stay the bytes that they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.errors import InvalidRequest

_MAX_KEY_CHARS = 256
_SMALL_BYTES = 65_536  # up to this size an object is decoded first and its members counted then


class _Key:
    """A member's name as it was found; compared by identity, so that a repeated name stays visible."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_members(body: bytes, max_members: int) -> dict[str, msgspec.Raw]:
    """The top-level members of a JSON object, raw, in order. Raises InvalidRequest naming the field or position."""
    is_small = len(body) <= _SMALL_BYTES
    try:
        fields = _decode_fields(body) if is_small else _decode_counted(body, max_members)
        if not body.isascii():
            str(body, "utf-8")  # raw values are not checked for it by the decoder
    except msgspec.ValidationError as error:
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json") from error
    except msgspec.DecodeError as error:
        reason = str(error) if "(byte " in str(error) else f"{error} (byte {len(body)})"
        raise InvalidRequest(f"The body is not valid JSON: {reason}.", code="invalid_json") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid JSON: it is not UTF-8 (byte {error.start}).", code="invalid_json"
        ) from None
    except RecursionError:
        raise InvalidRequest("The body is not valid JSON: nested too deeply.", code="invalid_json") from None
    if len(fields) > max_members:
        raise _too_many(max_members)
    if is_small and _compact_size(fields) != len(body):
        _decode_counted(body, max_members)
    return fields


def _too_many(max_members: int) -> InvalidRequest:
    return InvalidRequest(f"The body has more than {max_members} top-level fields.", code="too_many_fields")


def repeated(name: str) -> InvalidRequest:
    """The refusal of a top-level field that is there twice."""
    shown = name[:_MAX_KEY_CHARS]
    return InvalidRequest(f"The field `{shown}` appears more than once.", code="repeated_field", param=shown)


def _compact_size(fields: Mapping[str, msgspec.Raw]) -> int:
    """The least size that a JSON object of these members can have.

    A body of just this size holds nothing else: no white space, no escape in a key, and no member twice, since the
    decoder keeps one of each name and every further one takes room. Most clients send such bodies, and for them this
    sum is all that the check for repeated keys costs.
    """
    size = 1 + 4 * len(fields)
    for name, value in fields.items():
        size += len(name) + len(value)
    return size


def _decode_counted(body: bytes, max_members: int) -> dict[str, msgspec.Raw]:
    """The members, counted and compared as they are met, so that a large body ends where it is too much.

    Raises InvalidRequest for a top-level key that appears twice, however it is spelled, and for too many.
    """
    seen: set[str] = set()

    def to_key(_: type, found: object) -> _Key:
        name = str(found)
        if name in seen:
            raise repeated(name)
        if len(seen) == max_members:
            raise _too_many(max_members)
        seen.add(name)
        return _Key(name)

    members = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=to_key).decode(body)
    return {key.name: raw for key, raw in members.items()}


def read_nested(raw: msgspec.Raw | bytes, max_members: int, field: str) -> dict[str, msgspec.Raw]:
    """The members of an object inside a body that was read, ``field`` being its path.

    Of a name that is there twice the last counts. Raises InvalidRequest where it is no object, or has too many.
    """
    body = bytes(raw)
    try:
        members = _decode_fields(body) if len(body) <= _SMALL_BYTES else _decode_counted(body, max_members)
    except msgspec.DecodeError:
        raise InvalidRequest(f"`{field}` must be an object.", code="invalid_type", param=field) from None
    if len(members) > max_members:
        raise InvalidRequest(f"`{field}` has more than {max_members} members.", code="too_many_fields", param=field)
    return members
