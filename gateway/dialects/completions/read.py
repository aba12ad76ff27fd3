"""A completion request read as a chat, whose one message of the user is the prompt. Pure.

What a chat has no place for is named in ``Native.beyond``: it passes to a backend that has Completions itself, and
nowhere else. Output is bounded and billed for as many texts as may be made: of each prompt the larger of ``n`` and
``best_of``.

Source: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.dialects.openai.members import read_members
from gateway.dialects.openai.request import asks_for_usage, field_of, missing, refuse_other_spellings
from gateway.dialects.openai.usage import ABSENT
from gateway.errors import InvalidRequest
from gateway.model import ChatRequest, Native

PROMPT: Final = "prompt"
_TEXTS_MAX = 2048
_LOGPROBS_MAX = 20
_GOVERNED = frozenset(
    {"model", PROMPT, "messages", "stream", "stream_options", "n", "best_of", "echo", "suffix", "max_tokens",
     "max_completion_tokens", "logprobs", "top_logprobs", "prompt_variables", "metadata"}
)  # fmt: skip
_OWN = frozenset({PROMPT, "best_of", "echo", "suffix", "logprobs"})
_ONE = re.compile(rb'\[?[ \t\n\r]*("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\n\r]*\]?', re.DOTALL)
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_WITH_ITEM = re.compile(rb"\[[ \t\n\r]*[^] \t\n\r]")

_decode_str: Callable[[msgspec.Raw | bytes], str | None] = msgspec.json.Decoder(str | None).decode
_decode_bool: Callable[[msgspec.Raw | bytes], bool | None] = msgspec.json.Decoder(bool | None).decode
_decode_int: Callable[[msgspec.Raw | bytes], int | None] = msgspec.json.Decoder(int | None).decode


def read_completion(body: bytes, max_members: int) -> ChatRequest:
    """Read the body of ``POST /v1/completions``. Raises InvalidRequest; ``param`` names the field."""
    fields = read_members(body, max_members)
    refuse_other_spellings(fields, _GOVERNED)
    model = field_of(fields, "model", _decode_str, "a string")
    if not model:
        raise missing("model") if model is None else InvalidRequest("`model` must not be empty.", param="model")
    for name in ("messages", "max_completion_tokens", "top_logprobs"):
        if name in fields:
            raise InvalidRequest(f"`{name}` is of chats.", code="unsupported_field", param=name)
    prompt, prompts = _prompt(fields.get(PROMPT, ABSENT))
    beyond = [PROMPT] if prompt is None else []
    beyond += [name for name in ("echo", "suffix") if _says(fields.get(name, ABSENT))]
    choices, best_of = (_texts(fields, name) for name in ("n", "best_of"))
    if best_of > choices:
        beyond.append("best_of")
    texts = max(choices, best_of) * prompts
    if texts > _TEXTS_MAX:
        raise InvalidRequest(f"No more than {_TEXTS_MAX} texts can be asked for at once.", param=PROMPT)
    chat: dict[str, msgspec.Raw | bytes] = {name: raw for name, raw in fields.items() if name not in _OWN}
    # What is no text has its size here, and goes nowhere: see ``passing.can_pass``.
    content = bytes(fields[PROMPT]) if prompt is None else prompt
    chat["messages"] = msgspec.Raw(b'[{"role":"user","content":%b}]' % content)
    chat |= _logprobs(fields)
    stream = bool(field_of(fields, "stream", _decode_bool, "a boolean"))
    return ChatRequest(
        model=model,
        fields=chat,
        stream=stream,
        include_usage="stream_options" in fields and asks_for_usage(fields, stream=stream),
        max_output_tokens=_limit(fields),
        choices=texts,
        body_bytes=len(body),
        native=Native(dialect="completions", fields=fields, chat=chat, beyond=tuple(beyond)),
    )


def _prompt(raw: msgspec.Raw) -> tuple[bytes | None, int]:
    """The text of the one prompt, as JSON, None where it is tokens or several; and how many there are."""
    value = bytes(raw).strip()
    if value == b"null":
        raise missing(PROMPT)
    one = _ONE.fullmatch(value)
    if one is not None and value.startswith(b"[") == value.endswith(b"]"):
        if one[1] == b'""':
            raise InvalidRequest("`prompt` must not be empty.", param=PROMPT)
        return one[1], 1
    if _WITH_ITEM.match(value) is None:
        raise InvalidRequest(
            "`prompt` must be a text, tokens, or an array of either.", code="invalid_type", param=PROMPT
        )
    texts = sum(1 for _ in _TEXT.finditer(value))
    return None, texts or max(value.count(b"[") - 1, 1)


def _says(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"null", b"false", b'""')


def _texts(fields: dict[str, msgspec.Raw], name: str) -> int:
    count = field_of(fields, name, _decode_int, "an integer")
    if count is not None and not 1 <= count <= 128:
        raise InvalidRequest(f"`{name}` must be between 1 and 128.", param=name)
    return count or 1


def _limit(fields: dict[str, msgspec.Raw]) -> int | None:
    """``max_tokens``; 0, with ``echo``, asks for what the prompt itself is worth."""
    limit = field_of(fields, "max_tokens", _decode_int, "an integer")
    if limit is not None and limit < 0:
        raise InvalidRequest("`max_tokens` must be at least 0.", param="max_tokens")
    return limit


def _logprobs(fields: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    """How many of the likeliest tokens, as chats ask for it."""
    count = field_of(fields, "logprobs", _decode_int, "an integer")
    if count is None:
        return {}
    if not 0 <= count <= _LOGPROBS_MAX:
        raise InvalidRequest(f"`logprobs` must be between 0 and {_LOGPROBS_MAX}.", param="logprobs")
    return {"logprobs": b"true", "top_logprobs": b"%d" % count} if count else {"logprobs": b"true"}
