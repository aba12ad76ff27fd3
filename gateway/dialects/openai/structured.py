"""Structured output: how a JSON Schema asks for it, and whether the text of an answer conforms; pure.

Invariants:
- A schema refers to nothing outside itself: what it would have to be fetched for is refused.
- Patterns are matched in linear time; what would need backtracking is refused with the schema.

jsonschema-rs is imported when the first schema is compiled and not before.

Source: https://platform.openai.com/docs/guides/structured-outputs ; a schema is one of JSON Schema 2020-12 unless its
``$schema`` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from gateway.dialects.openai.usage import ABSENT

SCHEMA_BYTES_MAX = 65_536

Verdict = Literal["valid", "invalid", "unchecked"]
"""``unchecked``: a call of tools, more text than is checked, or not all of it was there."""

Conforms = Callable[[object], bool]

_NAME_CHARS_MAX = 64  # of the name of a schema, which has letters, digits, _ and -
_DATA_LINE = re.compile(rb"(?:^|[\r\n])data:[ ]?([^\r\n]+)")


def compile_schema(schema: Mapping[str, Any]) -> Conforms:
    """What tells whether a value conforms. Raises ValueError for a schema that is none, with a public reason."""
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(
            dict(schema), offline=True, pattern_options=jsonschema_rs.RegexOptions(), validate_formats=True
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise ValueError(str(error).partition("\n")[0][:200]) from None
    return validator.is_valid


def response_format(name: str, schema: Mapping[str, Any], *, strict: bool) -> bytes:
    """The field ``response_format`` that asks for an answer of this schema."""
    shown = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_NAME_CHARS_MAX]
    wanted: dict[str, Any] = {"name": shown, "schema": schema}
    if strict:
        wanted["strict"] = True
    return msgspec.json.encode({"type": "json_schema", "json_schema": wanted})


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct):
    message: _Message
    index: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: _Message | None = None


class _Chunk(msgspec.Struct):
    choices: list[_ChunkChoice] = []


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_NO_CALLS = (ABSENT, msgspec.Raw(b"[]"))
_CHOICES_MAX = 128


class AnswerText:
    """The texts of an answer by choice, as far as ``max_bytes`` of them in all."""

    __slots__ = ("_left", "_texts", "is_whole")

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._texts: dict[int, list[str]] = {}
        self.is_whole = True
        """False from the moment on that something cannot be judged: too much of it, tools, an unknown form."""

    def read(self, body: bytes) -> None:
        """Take a whole completion."""
        try:
            choices = _decode_completion(body).choices
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.is_whole = False
            return
        for choice in choices:
            self._add(choice.index, choice.message)

    def feed(self, events: bytes) -> None:
        """Take whole events of a stream."""
        for payload in _DATA_LINE.findall(events):
            if not self.is_whole:
                return
            if payload.startswith(b"[DONE]"):
                continue
            try:
                choices = _decode_chunk(payload).choices
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.is_whole = False
                return
            for choice in choices:
                if choice.delta is not None:
                    self._add(choice.index, choice.delta)

    def _add(self, index: int, message: _Message) -> None:
        pieces = self._texts.setdefault(index, [])
        text = message.content or ""
        self._left -= len(text.encode())
        if self._left < 0 or message.tool_calls not in _NO_CALLS or len(self._texts) > _CHOICES_MAX:
            self.is_whole = False
            self._texts.clear()
        elif text:
            pieces.append(text)

    def judge(self, conforms: Conforms) -> Verdict:
        """Tell whether the text of every choice is JSON that conforms."""
        if not self.is_whole:
            return "unchecked"
        if not self._texts:
            return "invalid"
        return "valid" if all(_is_valid("".join(text), conforms) for text in self._texts.values()) else "invalid"


def _is_valid(text: str, conforms: Conforms) -> bool:
    try:
        return conforms(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        return False
