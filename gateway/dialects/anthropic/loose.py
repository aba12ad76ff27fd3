"""Turns and tools that hold more than a chat can say: read piece by piece, what is unknown named by its place; pure.

This is the way of requests that ``schema`` does not know whole. A piece of a known type with a value that it cannot
have is refused for every backend; a type or a member that is not known passes to a backend that speaks Messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.turns import NOTHING, Beyond, Shown, of_the_account
from gateway.dialects.openai.members import read_nested
from gateway.errors import InvalidRequest

_T = TypeVar("_T")

MEMBERS_MAX = 64
"""Of one turn, block, source or tool."""

_BLOCKS: Final[Mapping[str, type[schema.Block]]] = MappingProxyType(
    {
        "text": schema.TextBlock,
        "image": schema.ImageBlock,
        "document": schema.DocumentBlock,
        "search_result": schema.SearchResultBlock,
        "thinking": schema.ThinkingBlock,
        "redacted_thinking": schema.RedactedThinkingBlock,
        "tool_use": schema.ToolUseBlock,
        "tool_result": schema.ToolResultBlock,
    }
)
_OF_THE_ACCOUNT: Final = frozenset({"container_upload"})
_SAYS_NOTHING: Final = frozenset((b"null", b"false", b"[]", b"{}"))

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_role: Callable[[msgspec.Raw | bytes], schema.Role] = msgspec.json.Decoder(schema.Role).decode
_encode = msgspec.json.Encoder().encode

Members = dict[str, msgspec.Raw]


def read_turns(raw: msgspec.Raw | bytes, beyond: Beyond) -> list[schema.Turn]:
    """The conversation. Raises InvalidRequest, naming the place."""
    return [_turn(item, f"messages.{place}", beyond) for place, item in enumerate(_items(raw, "messages"))]


def read_system(raw: msgspec.Raw | bytes, beyond: Beyond) -> list[schema.TextBlock]:
    """The blocks of a system prompt. Raises InvalidRequest, naming the place."""
    blocks = _blocks(raw, "system", beyond)
    texts = [block for block in blocks if isinstance(block, schema.TextBlock)]
    if len(texts) < len(blocks):
        raise InvalidRequest("`system` holds a block that is no text.", param="system")
    return [text for text in texts if text is not NOTHING]


def read_tools(raw: msgspec.Raw | bytes, beyond: Beyond) -> list[schema.Tool]:
    """The tools of the caller's own; those that run at the provider have no form in a chat. Raises InvalidRequest."""
    tools: list[schema.Tool] = []
    for position, item in enumerate(_items(raw, "tools")):
        place = f"tools.{position}"
        members = read_nested(item, MEMBERS_MAX, place)
        kind = members.get("type", msgspec.Raw(b"null"))
        if bytes(kind) != b"null" and _read(kind, _decode_text, f"{place}.type") != "custom":
            beyond(place)
        else:
            known = _known(members, schema.Tool, place, beyond)
            tools.append(_built(schema.Tool, known, place))
    return tools


def _turn(item: msgspec.Raw, place: str, beyond: Beyond) -> schema.Turn:
    members = _known(read_nested(item, MEMBERS_MAX, place), schema.Turn, place, beyond)
    role = _read(_required(members, "role", place), _decode_role, f"{place}.role")
    content = _required(members, "content", place)
    if begins(content, b'"'):
        return schema.Turn(role=role, content=_read(content, _decode_text, f"{place}.content"))
    return schema.Turn(role=role, content=_blocks(content, f"{place}.content", beyond))


def _blocks(raw: msgspec.Raw | bytes, place: str, beyond: Beyond) -> list[schema.Block]:
    return [_block(item, f"{place}.{position}", beyond) for position, item in enumerate(_items(raw, place))]


def _block(item: msgspec.Raw, place: str, beyond: Beyond) -> schema.Block:
    members = read_nested(item, MEMBERS_MAX, place)
    name = _read(_required(members, "type", place), _decode_text, f"{place}.type")
    if name in _OF_THE_ACCOUNT:
        raise of_the_account(place)
    kind = _BLOCKS.get(name)
    if kind is None:
        beyond(place)
        return NOTHING
    known = _known(members, kind, place, beyond)
    if kind is schema.ToolResultBlock and begins(known.get("content", b""), b"["):
        blocks = _blocks(known.pop("content"), f"{place}.content", beyond)
        result = _built(schema.ToolResultBlock, known, place)
        shown = [block for block in blocks if isinstance(block, Shown)]
        if len(shown) < len(blocks):
            raise InvalidRequest(f"`{place}.content` holds a block that no result can hold.", param=f"{place}.content")
        result.content = shown
        return result
    if "source" in known and kind is not schema.SearchResultBlock and not _knows_source(known["source"], kind, place):
        beyond(f"{place}.source")
        return NOTHING
    block: schema.Block = _built(kind, known, place)
    return block


def _knows_source(raw: msgspec.Raw, kind: type, place: str) -> bool:
    kind_of_source = read_nested(raw, MEMBERS_MAX, f"{place}.source").get("type")
    if kind_of_source is None:
        raise _missing(f"{place}.source.type")
    named = _read(kind_of_source, _decode_text, f"{place}.source.type")
    return named in {"base64", "url", "file"} or (kind is schema.DocumentBlock and named in {"text", "content"})


def _known(members: Members, kind: type[msgspec.Struct], place: str, beyond: Beyond) -> Members:
    """The members that have a place; another one that says anything is told of."""
    known: Members = {}
    names = {"type", *kind.__struct_fields__}
    for name, raw in members.items():
        if name in names:
            known[name] = raw
        elif bytes(raw) not in _SAYS_NOTHING:
            beyond(f"{place}.{name[:64]}")
    return known


def _built(kind: type[_T], members: Members, place: str) -> _T:
    try:
        return msgspec.json.decode(_encode(members), type=kind)
    except msgspec.DecodeError as error:
        raise invalid(error, place) from None


def begins(raw: msgspec.Raw | bytes, with_: bytes) -> bool:
    """Whether a raw value begins with this byte."""
    return bytes(memoryview(raw)[:1]) == with_


def _items(raw: msgspec.Raw | bytes, place: str) -> Sequence[msgspec.Raw]:
    return _read(raw, _decode_items, place)


def _read(raw: msgspec.Raw | bytes, decode: Callable[[msgspec.Raw | bytes], _T], place: str) -> _T:
    try:
        return decode(raw)
    except msgspec.DecodeError as error:
        raise invalid(error, place) from None


def _required(members: Members, name: str, place: str) -> msgspec.Raw:
    raw = members.get(name)
    if raw is None:
        raise _missing(f"{place}.{name}")
    return raw


def _missing(place: str) -> InvalidRequest:
    return InvalidRequest(f"`{place}` is required.", code="missing_field", param=place)


def invalid(error: msgspec.DecodeError, place: str) -> InvalidRequest:
    """The refusal of what could not be decoded at this place."""
    text, _, inner = str(error).partition(" - at `$")
    where = (place + inner.rstrip("`").replace("[", ".").replace("]", ""))[:256]
    return InvalidRequest(f"`{where}`: {text[:256]}.", code="invalid_type", param=where)
