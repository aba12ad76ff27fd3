"""A whole chat completion made of a stream, and a stream made of a whole one: how a kept answer serves both requests.

Pure. Only plain answers are taken: one choice that ended by itself (``finish_reason`` is ``stop``), text and nothing
but text. An answer that was cut (``length``), filtered, or that asks for tools is the business of one call only; so is
whatever has a form that is not known here, since it could not be told again in the other form without loss.
Source: https://platform.openai.com/docs/api-reference/chat and .../chat-streaming
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.openai.usage import ABSENT

EVENT_STREAM = b"text/event-stream"
JSON = b"application/json"

_TEXTS = frozenset({"content", "reasoning_content", "reasoning", "refusal"})
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_CHARS_PER_EVENT = 4096
_DATA = re.compile(rb"^data:[ ]?(.*)$")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DONE = b"data: [DONE]\n\n"
_OWN = frozenset({"choices", "usage", "object", "obfuscation"})

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Choice(msgspec.Struct):
    message: dict[str, Any]
    finish_reason: str | None = None
    index: int = 0
    logprobs: msgspec.Raw = ABSENT


class _Delta(msgspec.Struct):
    delta: dict[str, Any] = {}
    finish_reason: str | None = None
    index: int = 0
    logprobs: dict[str, Any] | None = None


_decode_choices = msgspec.json.Decoder(list[_Choice]).decode
_decode_deltas = msgspec.json.Decoder(list[_Delta]).decode


class NotPlain(ValueError):
    """An answer that is not told again to anybody else."""


def check_plain(body: bytes) -> None:
    """Raises NotPlain unless ``body`` is a chat completion that may be kept."""
    try:
        choices = _decode_choices(_decode(body)["choices"])
    except (msgspec.DecodeError, RecursionError, KeyError) as error:
        raise NotPlain(str(error)) from None
    if len(choices) != 1 or choices[0].index != 0 or choices[0].finish_reason != "stop":
        raise NotPlain("not one choice that ended by itself")
    _check_message(choices[0].message)


def _check_message(message: dict[str, Any]) -> None:
    for name, value in message.items():
        is_text = name == "role" or name in _TEXTS
        if value not in _EMPTY and not (is_text and isinstance(value, str)):
            raise NotPlain("more than text")
    if not isinstance(message.get("content"), str):
        raise NotPlain("no text")


def whole_of(events: bytes) -> bytes:
    """The body that a complete stream amounts to. Raises NotPlain."""
    members: dict[str, msgspec.Raw] = {}
    usage = ABSENT
    message: dict[str, Any] = {"role": "assistant", "content": None}
    logprobs: dict[str, list[Any]] = {}
    finish: str | None = None
    try:
        for payload in _payloads(events):
            chunk = _decode(payload)
            if "error" in chunk:
                raise NotPlain("an error")
            if (reported := chunk.get("usage", ABSENT)) != ABSENT:
                usage = reported
            members = members or {name: raw for name, raw in chunk.items() if name not in _OWN}
            for part in _decode_deltas(chunk.get("choices", b"[]")):
                if part.index != 0:
                    raise NotPlain("several choices")
                finish = part.finish_reason or finish
                _add(message, part.delta)
                _add_logprobs(logprobs, part.logprobs)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotPlain(str(error)) from None
    if finish != "stop":
        raise NotPlain("not one choice that ended by itself")
    message["content"] = message["content"] or ""
    _check_message(message)
    choice = {"index": 0, "message": message, "logprobs": logprobs or None, "finish_reason": finish}
    body: dict[str, Any] = {**members, "object": "chat.completion", "choices": [choice]}
    return _encode(body if usage == ABSENT else body | {"usage": usage})


def _payloads(events: bytes) -> Iterator[bytes]:
    """The data of each event up to the last one. Raises NotPlain where the end is missing."""
    data: list[bytes] = []
    for line in _LINE_END.split(events):
        if line:
            match = _DATA.match(line)
            if match is not None:
                data.append(match[1])
        elif data:
            payload = b"\n".join(data)
            data = []
            if payload.startswith(b"[DONE]"):
                return
            yield payload
    raise NotPlain("a stream without its end")


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if value in _EMPTY:
            if name == "content" and value == "" and message["content"] is None:
                message["content"] = ""
        elif name == "role":
            message["role"] = value
        elif name in _TEXTS and isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        else:
            raise NotPlain("more than text")


def _add_logprobs(sums: dict[str, list[Any]], logprobs: dict[str, Any] | None) -> None:
    for name, value in (logprobs or {}).items():
        if isinstance(value, list):
            sums.setdefault(name, []).extend(value)
        elif value is not None:
            raise NotPlain("log probabilities of another form")


def events_of(body: bytes, *, include_usage: bool) -> bytes:
    """The stream that a kept body amounts to, to its end; usage only where it was asked for. Raises NotPlain."""
    try:
        document = _decode(body)
        (choice,) = _decode_choices(document["choices"])
    except (msgspec.DecodeError, RecursionError, KeyError, ValueError) as error:
        raise NotPlain(str(error)) from None
    head = {name: raw for name, raw in document.items() if name not in _OWN} | {"object": "chat.completion.chunk"}
    deltas = list(_deltas(choice.message))
    pieces: list[bytes] = []
    for place, delta in enumerate(deltas):
        part = {"index": 0, "delta": delta, "logprobs": None if place else choice.logprobs, "finish_reason": None}
        pieces.append(_event(head, choices=[part]))
    pieces.append(
        _event(head, choices=[{"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice.finish_reason}])
    )
    usage = document.get("usage", ABSENT)
    if include_usage and usage != ABSENT:
        pieces.append(_event(head, choices=[], usage=usage))
    pieces.append(_DONE)
    return b"".join(pieces)


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message as it is streamed: all but the rest of a long text at once."""
    text = message["content"]
    yield message | {"content": text[:_CHARS_PER_EVENT]}
    for start in range(_CHARS_PER_EVENT, len(text), _CHARS_PER_EVENT):
        yield {"content": text[start : start + _CHARS_PER_EVENT]}


def _event(head: dict[str, Any], **members: Any) -> bytes:
    return b"data: " + _encode(head | members) + b"\n\n"
