"""A large call of embeddings or rerank as several smaller ones, and their answers as one again. Pure.

Invariants:
- What is joined is what one call would have given: every item in its place, usage summed, the other members those of
  the first answer.
- The number of objects made of a body is bounded: items are counted as they are met.

Sources: https://platform.openai.com/docs/api-reference/embeddings/create (``data`` with ``index``),
https://docs.cohere.com/reference/rerank (``results`` with ``index`` and ``relevance_score``, ``top_n``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dialects.openai.operations import SHAPES
from gateway.errors import AttemptFailed, InvalidRequest
from gateway.model import ChatRequest, Operation

Fields = Mapping[str, msgspec.Raw | bytes]

_ITEM = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|\[[^\[\]"]*+\]|\{', re.DOTALL)
_BETWEEN = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_count = msgspec.json.Decoder(int | None).decode
_encode = msgspec.json.Encoder().encode


def split(request: ChatRequest, size: int, items_max: int) -> list[Fields] | None:
    """The fields of the calls that a call becomes, of ``size`` items each; None where it is small enough.

    Raises InvalidRequest for more than ``items_max`` items.
    """
    field = SHAPES[request.operation].batched
    raw = bytes(request.fields.get(field, b""))
    items = _items_of(raw, field, items_max)
    if len(items) <= size:
        return None
    rest = {name: value for name, value in request.fields.items() if name != "top_n"}
    return [
        {**rest, field: b"[" + b",".join(items[start : start + size]) + b"]"} for start in range(0, len(items), size)
    ]


def _items_of(raw: bytes, field: str, items_max: int) -> Sequence[bytes | msgspec.Raw]:
    """The items of a list; none of what is one item: a text, or the tokens of one."""
    first = raw[1:].lstrip()[:1] if raw[:1] == b"[" else b""
    if first == b"{":
        return _objects_of(raw, field, items_max)
    if first not in (b'"', b"["):
        return ()
    items: list[bytes] = []
    at = 0
    for found in _ITEM.finditer(raw, 1):
        if items and _BETWEEN.fullmatch(raw, at, found.start()) is None:
            break
        if len(items) == items_max:
            raise _too_many(field, items_max)
        items.append(found[0])
        at = found.end()
    if raw[at:].strip() != b"]":
        raise InvalidRequest(
            f"`{field}` must be a string, or an array of strings or of arrays of tokens.",
            code="invalid_type",
            param=field,
        )
    return items


def _objects_of(raw: bytes, field: str, items_max: int) -> Sequence[msgspec.Raw]:
    """Documents that are objects: each takes three bytes at least, and so their number is known to be bounded first."""
    if raw.count(b"{") > items_max * 16:
        raise _too_many(field, items_max)
    items = _decode_items(raw)
    if len(items) > items_max:
        raise _too_many(field, items_max)
    return items


def _too_many(field: str, items_max: int) -> InvalidRequest:
    return InvalidRequest(f"`{field}` must not have more than {items_max} items.", code="too_many_items", param=field)


def join(request: ChatRequest, bodies: Sequence[bytes], size: int) -> bytes:
    """One answer of those to the calls that ``split`` made, in their order. Raises AttemptFailed."""
    try:
        answers = [_decode_members(body) for body in bodies]
        member = SHAPES[request.operation].gives
        items = [
            _moved(item, place * size) for place, answer in enumerate(answers) for item in _decode_items(answer[member])
        ]
        if request.operation == "rerank":
            items.sort(key=_score, reverse=True)
            top = request.fields.get("top_n")
            items = items[: None if top is None else _decode_count(top)]
        else:
            items.sort(key=_index)
        whole: dict[str, Any] = {**answers[0], member: items}
        for name in ("usage", "meta"):
            if name in whole:
                whole[name] = _sum([msgspec.json.decode(answer.get(name, b"null")) for answer in answers])
        return _encode(whole)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise AttemptFailed("protocol_error", f"answers to parts of a call that cannot be joined: {error}") from None


def _moved(raw: msgspec.Raw, by: int) -> dict[str, Any]:
    item: dict[str, Any] = _decode_members(raw)
    item["index"] = msgspec.json.decode(item["index"], type=int) + by
    return item


def _index(item: Mapping[str, Any]) -> int:
    index: int = item["index"]
    return index


def _score(item: Mapping[str, Any]) -> float:
    return msgspec.json.decode(item["relevance_score"], type=float)


def _sum(parts: Sequence[Any]) -> Any:
    """Numbers added up, through objects; of all else the first."""
    first = next((part for part in parts if part is not None), None)
    if isinstance(first, dict):
        return {name: _sum([part.get(name) for part in parts if isinstance(part, dict)]) for name in first}
    if isinstance(first, int | float) and not isinstance(first, bool):
        return sum(part for part in parts if isinstance(part, int | float))
    return first


def batched(operation: Operation) -> bool:
    """Whether calls of this kind may become several."""
    return operation != "chat" and bool(SHAPES[operation].batched)
