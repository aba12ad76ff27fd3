"""Items of a conversation, read into messages of a chat. Pure.

Invariants:
- An item that a chat has no place for is named, so that it is never silently lost.
- What is decoded is bounded: ITEMS_MAX items.

Reasoning comes back to the backend that it came from: its ``encrypted_content`` holds what the gateway was told
(``pack_reasoning``). Reasoning of any other origin is left out, as OpenAI's own models do without it.
Source: https://platform.openai.com/docs/api-reference/responses/create (``input``).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects import form
from gateway.errors import InvalidRequest

ITEMS_MAX: Final = 10_000
_OBJECTS_MAX: Final = 200_000
_PACKED = "gw1."
_encode = msgspec.json.Encoder().encode


class _Item(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every item may have; ids and states are those of whoever made it."""

    id: str | None = None
    status: str | None = None


class _InputText(msgspec.Struct, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    text: str


class _InputImage(msgspec.Struct, tag_field="type", tag="input_image", forbid_unknown_fields=True, kw_only=True):
    image_url: str
    detail: str | None = None
    file_id: None = None


class _InputFile(msgspec.Struct, tag_field="type", tag="input_file", forbid_unknown_fields=True, kw_only=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _InputAudio(msgspec.Struct, tag_field="type", tag="input_audio", forbid_unknown_fields=True):
    input_audio: form.AudioData


class _OutputText(msgspec.Struct, tag_field="type", tag="output_text", forbid_unknown_fields=True, kw_only=True):
    text: str
    annotations: msgspec.Raw | UnsetType = UNSET
    logprobs: msgspec.Raw | UnsetType = UNSET


class _Refused(msgspec.Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    refusal: str


_Part = _InputText | _InputImage | _InputFile | _InputAudio | _OutputText | _Refused


class _Message(_Item, kw_only=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]
    type: Literal["message"] = "message"
    phase: str | None = None


class _Call(_Item, kw_only=True):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    caller: None = None
    namespace: None = None
    extra_content: msgspec.Raw | UnsetType = UNSET  # Gemini's thought signature, as ``form.ToolCall`` has it


class _Result(_Item, kw_only=True):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[_Part]
    caller: None = None


class _Reasoning(_Item, kw_only=True):
    type: Literal["reasoning"]
    summary: list[msgspec.Raw] = []
    content: list[msgspec.Raw] | None = None
    encrypted_content: str | None = None


class _Kind(msgspec.Struct):
    type: str | None = None


class PackedReasoning(msgspec.Struct, omit_defaults=True):
    """What a backend said of its reasoning."""

    text: str = ""
    blocks: list[form.ThinkingBlock] = []


_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_kinds = msgspec.json.Decoder(list[_Kind]).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_decode_result = msgspec.json.Decoder(_Result).decode
_decode_reasoning = msgspec.json.Decoder(_Reasoning).decode
_decode_packed = msgspec.json.Decoder(PackedReasoning).decode


def pack_reasoning(reasoning: PackedReasoning) -> str:
    """The ``encrypted_content`` of a reasoning item: a form of its own, and no secret."""
    return _PACKED + base64.b64encode(_encode(reasoning)).decode()


def unpack_reasoning(packed: str | None) -> PackedReasoning | None:
    """What ``pack_reasoning`` packed; None for anything else."""
    if packed is None or not packed.startswith(_PACKED):
        return None
    try:
        return _decode_packed(base64.b64decode(packed.removeprefix(_PACKED), validate=True))
    except (binascii.Error, msgspec.DecodeError, RecursionError):
        return None


def split_items(raw: msgspec.Raw | bytes) -> list[msgspec.Raw]:
    """The items of ``input``; a text is one message of the user. Raises InvalidRequest."""
    if bytes(memoryview(raw)[:1]) == b'"':
        return [msgspec.Raw(b'{"type":"message","role":"user","content":%b}' % bytes(raw))]
    if bytes(raw).count(b"{") > _OBJECTS_MAX:
        raise InvalidRequest("`input` has too many members.", code="too_many_items", param="input")
    try:
        _decode_kinds(raw)  # stops at the first item that is no object, before anything is made of the others
        items = _decode_items(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(
            "`input` must be a string or an array of objects.", code="invalid_type", param="input"
        ) from None
    if len(items) > ITEMS_MAX:
        raise InvalidRequest(f"`input` has more than {ITEMS_MAX} items.", code="too_many_items", param="input")
    return items


class Messages:
    """The messages of a conversation, item by item; ``beyond`` names the items that a chat has no place for."""

    def __init__(self) -> None:
        self.messages: list[form.Message] = []
        self.beyond: list[str] = []
        self._turn: form.Message | None = None  # what the assistant says until somebody else does

    def add(self, items: Sequence[msgspec.Raw], field: str) -> None:
        """Read further items, of the field of this name. Raises InvalidRequest where one is no object."""
        for place, raw in enumerate(items):
            name = f"{field}[{place}]"
            try:
                kind = _decode_kind(raw).type or "message"
            except (msgspec.DecodeError, RecursionError):
                raise InvalidRequest(f"`{name}` must be an object.", code="invalid_type", param=name) from None
            take = self._takers.get(kind)
            if take is None:
                self.beyond.append(f"{name}.type")
                continue
            try:
                take(self, raw)
            except (msgspec.DecodeError, RecursionError) as error:
                _, _, inner = str(error).partition(" - at `$")
                self.beyond.append((name + inner.rstrip("`"))[:256])

    def _add_message(self, raw: msgspec.Raw) -> None:
        item = _decode_message(raw)
        content = item.content if isinstance(item.content, str) else list(_parts(item.content))
        if item.role == "assistant":
            self._say(content)
        else:
            self._turn = None
            self.messages.append(form.Message(role=item.role, content=_simple(content)))

    def _say(self, content: str | list[form.Part]) -> None:
        """What the assistant says, after what it called nothing: a further text is a turn of its own."""
        turn = self._turn
        if turn is None or turn.content is not None or turn.tool_calls or turn.refusal:
            turn = self._new_turn()
        if isinstance(content, list):
            refusals = [part.refusal for part in content if isinstance(part, form.Refusal)]
            if refusals and len(refusals) == len(content):
                turn.refusal = "".join(refusals)
                return
        turn.content = _simple(content)

    def _add_call(self, raw: msgspec.Raw) -> None:
        item = _decode_call(raw)
        turn = self._turn or self._new_turn()
        call = form.ToolCall(id=item.call_id, function=form.Function(name=item.name, arguments=item.arguments))
        call.extra_content = form.given(item.extra_content)
        turn.tool_calls = [*(turn.tool_calls or ()), call]

    def _add_result(self, raw: msgspec.Raw) -> None:
        item = _decode_result(raw)
        content = item.output if isinstance(item.output, str) else _simple(list(_parts(item.output)))
        self._turn = None
        self.messages.append(form.Message(role="tool", tool_call_id=item.call_id, content=content))

    def _add_reasoning(self, raw: msgspec.Raw) -> None:
        packed = unpack_reasoning(_decode_reasoning(raw).encrypted_content)
        if packed is None:
            return
        turn = self._turn
        if turn is None or turn.content is not None or turn.tool_calls:
            turn = self._new_turn()
        turn.reasoning_content = packed.text or None
        turn.thinking_blocks = [*(turn.thinking_blocks or ()), *packed.blocks] or None

    def _new_turn(self) -> form.Message:
        self._turn = form.Message(role="assistant")
        self.messages.append(self._turn)
        return self._turn

    _takers: Final[dict[str, Callable[[Messages, msgspec.Raw], None]]] = {
        "message": _add_message,
        "function_call": _add_call,
        "function_call_output": _add_result,
        "reasoning": _add_reasoning,
    }


def _parts(parts: Sequence[_Part]) -> Iterator[form.Part]:
    for part in parts:
        match part:
            case _InputText(text) | _OutputText(text=text):
                yield form.Text(text=text)
            case _InputImage(image_url=url, detail=detail):
                yield form.Image(image_url=form.ImageUrl(url=url, detail=detail))
            case _InputFile():
                file = form.FileData(file_data=part.file_data, file_id=part.file_id, filename=part.filename)
                yield form.File(file=file)
            case _InputAudio(sound):
                yield form.Audio(input_audio=sound)
            case _Refused(refusal):
                yield form.Refusal(refusal=refusal)


def _simple(content: str | list[form.Part]) -> str | list[form.Part]:
    """A single text as a text, which is what every server of the chat dialect takes."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], form.Text):
        return content[0].text
    return content
