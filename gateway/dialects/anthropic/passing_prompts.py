"""A scenario's prompt, put into the conversation of a Messages request that passes as it is. Pure.

The scenario has put it into the chat that was made of the conversation (``gateway.scenarios``): before all messages,
or into the last one of the user. Here the same is done to the conversation itself, so that nothing of it is lost that a
chat cannot say. What was done otherwise has the conversation told anew, and is refused where something would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.request import Native, said
from gateway.dialects.anthropic.to_messages import conversation_of
from gateway.dialects.ask import Ask, impossible

if TYPE_CHECKING:
    from gateway.model import Backend, ChatRequest

_TEXT: Final = "text"
_RESULT: Final = "tool_result"


class _Head(msgspec.Struct):
    type: str = ""
    text: msgspec.Raw = msgspec.Raw(b'""')


class _Turn(msgspec.Struct):
    role: str
    content: msgspec.Raw


class _Changed(NamedTuple):
    """The texts of the one message that was changed, before and after."""

    before: list[str]
    after: list[str]


_encode = msgspec.json.Encoder().encode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_turn = msgspec.json.Decoder(_Turn).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_message = msgspec.json.Decoder(form.Message).decode


def with_prompt_of(request: ChatRequest, backend: Backend) -> Native:
    """``system`` and ``messages``, as far as they are others. Raises InvalidRequest where something would be lost."""
    native = request.native
    assert native is not None, "made of what a caller of Messages wrote"
    before, after = bytes(native.chat["messages"]), bytes(request.fields["messages"])
    if len(after) > len(before) and after.endswith(before[1:]):
        return _put_before(request, backend, after[: len(after) - len(before) + 1])
    changed = _the_changed_one(before, after)
    told = None if changed is None else _in_last_turn(_decode_items(native.fields["messages"]), changed)
    if told is not None:
        return {"messages": told}
    lost = [name for name in native.beyond if name.startswith(("messages", "system"))]
    if lost and not request.lenient:
        raise impossible(lost[0])
    return said(conversation_of(form.decode_messages(after), Ask(request, backend)))


def _put_before(request: ChatRequest, backend: Backend, start: bytes) -> Native:
    """What was put before all messages; ``start`` are those with the brackets of their list, and a comma."""
    native = request.native
    assert native is not None, "made of what a caller of Messages wrote"
    first = conversation_of(form.decode_messages(start.rstrip(b", ") + b"]"), Ask(request, backend))
    told: Native = {}
    if first.system:
        told["system"] = [*first.system, *_system(native.fields.get("system"))]
    if first.turns:
        told["messages"] = [*first.turns, *_decode_items(native.fields["messages"])]
    return told


def _system(given: msgspec.Raw | bytes | None) -> Sequence[object]:
    if given is None:
        return ()
    if bytes(memoryview(given)[:1]) == b"[":
        return _decode_items(given)
    text = _decode_text(given)
    return (schema.TextBlock(text=text),) if text.strip() else ()


def _the_changed_one(before: bytes, after: bytes) -> _Changed | None:
    """The one message of the user that is another one; None where more is."""
    old, new = _decode_items(before), _decode_items(after)
    if len(old) != len(new):
        return None
    places = [place for place in range(len(old)) if bytes(old[place]) != bytes(new[place])]
    if len(places) != 1:
        return None
    messages = _decode_message(old[places[0]]), _decode_message(new[places[0]])
    if any(message.role != "user" for message in messages):
        return None
    return _Changed(*map(_texts, messages))


def _texts(message: form.Message) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content or () if isinstance(part, form.Text)]


def _in_last_turn(turns: list[msgspec.Raw], changed: _Changed) -> list[object] | None:
    """The turns, the last one of the user that says something of its own with other texts; None where it has others."""
    for place in range(len(turns) - 1, -1, -1):
        turn = _decode_turn(turns[place])
        if turn.role != "user":
            continue
        if _has_only_results(turn.content):
            continue
        content = _content(turn.content, changed)
        if content is None:
            return None
        members = _decode_members(turns[place]) | {"content": msgspec.Raw(_encode(content))}
        return [*turns[:place], members, *turns[place + 1 :]]
    return None


def _has_only_results(raw: msgspec.Raw) -> bool:
    if bytes(memoryview(raw)[:1]) != b"[":
        return False
    blocks = _decode_items(raw)
    return bool(blocks) and all(_decode_head(block).type == _RESULT for block in blocks)


def _content(raw: msgspec.Raw, changed: _Changed) -> str | list[object] | None:
    if bytes(memoryview(raw)[:1]) == b'"':
        return "\n\n".join(changed.after) if [_decode_text(raw)] == changed.before else None
    blocks = _decode_items(raw)
    heads = list(map(_decode_head, blocks))
    if [_decode_text(head.text) for head in heads if head.type == _TEXT] != changed.before:
        return None
    texts = [schema.TextBlock(text=text) for text in changed.after if text.strip()]
    results = sum(head.type == _RESULT for head in heads)
    if changed.after[1:] == changed.before:  # one more, before all others
        return [*blocks[:results], *texts[:1], *blocks[results:]]
    kept: list[object] = [block for block, head in zip(blocks, heads, strict=True) if head.type != _TEXT]
    first = next((place for place, head in enumerate(heads) if head.type == _TEXT), results)
    return [*kept[:first], *texts, *kept[first:]]
