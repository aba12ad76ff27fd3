"""A place for a prompt among the messages of a chat request; pure.

Invariants:
- A message that is not changed leaves as the bytes that it came as.
- What is decoded is bounded: ITEMS_MAX messages, as many parts of one, MEMBERS_MAX members of one.

Source: https://platform.openai.com/docs/api-reference/chat/create (``messages``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from gateway.dialects.openai.members import read_nested
from gateway.dialects.openai.usage import ABSENT
from gateway.errors import InvalidRequest

ITEMS_MAX = 10_000
MEMBERS_MAX = 64

_SMALL_BYTES = 65_536  # up to this size a list is decoded first and its items counted then
_USER = "user"
_RAW_TEXT = msgspec.Raw(b'"text"')


class _Counted:
    """A member that every item of a list must have; met once for each."""


class _HasRole(msgspec.Struct):
    role: _Counted


class _HasType(msgspec.Struct):
    type: _Counted


class _Role(msgspec.Struct):
    role: msgspec.Raw = ABSENT


class _Part(msgspec.Struct):
    type: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT


class Turn(NamedTuple):
    """The last message of the user: its place among ``messages``, its members, and its text.

    ``parts`` are those of its content, None where that is a text. The text of several parts has a line for each.
    """

    messages: list[msgspec.Raw]
    place: int
    members: dict[str, msgspec.Raw]
    parts: list[msgspec.Raw] | None
    text: str


_encode = msgspec.json.Encoder().encode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_role = msgspec.json.Decoder(_Role).decode
_decode_part = msgspec.json.Decoder(_Part).decode
_decode_text = msgspec.json.Decoder(str).decode


def with_first(messages: msgspec.Raw | bytes, role: str, text: str) -> bytes:
    """The messages with one of this role and text before them; the others, at least one, are not read."""
    first = _encode({"role": role, "content": text})
    return b"".join((b"[", first, b",", memoryview(messages)[1:]))


def alone(text: str) -> bytes:
    """The messages of a conversation in which the user says this and nothing was said before."""
    return _encode([{"role": _USER, "content": text}])


def last_user_turn(messages: msgspec.Raw | bytes) -> Turn | None:
    """The last message whose role is ``user``, None where there is none. Raises InvalidRequest."""
    items = _items(messages, list[_HasRole], "messages")
    for place in range(len(items) - 1, -1, -1):
        if _is_of_user(items[place]):
            members = read_nested(items[place], MEMBERS_MAX, f"messages.{place}")
            return _turn(items, place, members)
    return None


def with_text(turn: Turn, text: str) -> bytes:
    """The messages with ``text`` in place of what the turn says; images and other parts of it stay."""
    if turn.parts is None:
        return _with_content(turn, text)
    kept: list[object] = []
    is_placed = False
    for part in turn.parts:
        if not _is_text(_decode_part(part)):
            kept.append(part)
        elif not is_placed:
            kept.append(_text_part(text))
            is_placed = True
    return _with_content(turn, kept if is_placed else [_text_part(text), *kept])


def with_text_before(turn: Turn, text: str) -> bytes:
    """The messages with ``text`` before what the turn says: an empty line between, or as a part of its own."""
    if turn.parts is None:
        return _with_content(turn, f"{text}\n\n{turn.text}" if turn.text else text)
    return _with_content(turn, [_text_part(text), *turn.parts])


def _turn(items: list[msgspec.Raw], place: int, members: dict[str, msgspec.Raw]) -> Turn:
    content = members.get("content", ABSENT)
    field = f"messages.{place}.content"
    if content == ABSENT:
        return Turn(items, place, members, None, "")
    try:
        return Turn(items, place, members, None, _decode_text(content))
    except msgspec.DecodeError:
        parts = _items(content, list[_HasType], field)
    try:
        texts = [_decode_text(part.text) for part in map(_decode_part, parts) if _is_text(part)]
    except msgspec.DecodeError:
        raise InvalidRequest(f"`{field}` has a text that is none.", code="invalid_type", param=field) from None
    return Turn(items, place, members, parts, "\n".join(texts))


def _with_content(turn: Turn, content: str | Sequence[object]) -> bytes:
    message = {**turn.members, "content": content}
    return _encode([*turn.messages[: turn.place], message, *turn.messages[turn.place + 1 :]])


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _is_text(part: _Part) -> bool:
    return part.type == _RAW_TEXT or _or_empty(part.type) == "text"


def _is_of_user(message: msgspec.Raw) -> bool:
    try:
        return _or_empty(_decode_role(message).role) == _USER
    except msgspec.DecodeError:  # no object: a backend will say so
        return False


def _or_empty(raw: msgspec.Raw) -> str:
    try:
        return _decode_text(raw)
    except msgspec.DecodeError:
        return ""


def _items(raw: msgspec.Raw | bytes, counted: type, field: str) -> list[msgspec.Raw]:
    """The items of a list, at most ITEMS_MAX of them. Raises InvalidRequest."""
    try:
        if len(raw) > _SMALL_BYTES:
            _count(raw, counted, field)
        items = _decode_items(raw)
    except msgspec.DecodeError:
        raise InvalidRequest(f"`{field}` is not of a known form.", code="invalid_type", param=field) from None
    if len(items) > ITEMS_MAX:
        raise _too_many(field)
    return items


def _count(raw: msgspec.Raw | bytes, counted: type, field: str) -> None:
    """Count the items of a large list while they are read, so that it ends where there are too many."""
    count = 0

    def on_item(_: type, __: object) -> _Counted:
        nonlocal count
        count += 1
        if count > ITEMS_MAX:
            raise _too_many(field)
        return _Counted()

    msgspec.json.Decoder(counted, dec_hook=on_item).decode(raw)


def _too_many(field: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` has more than {ITEMS_MAX} items.", param=field)
