"""The ``echo`` provider: a model backend inside this process, so that the gateway can be tried with nothing else.

It answers with the words of the last user message, in the dialect of OpenAI, streamed or whole, with usage that counts
words. The length and the pace of the answer are options of the backend. Of a very long prompt only the beginning is
looked at, and counted: what is only an echo must not keep other requests waiting.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, TypeVar

import msgspec

from gateway.clock import wall
from gateway.dialects.openai.usage import ABSENT
from gateway.model import Backend, ChatRequest, EchoOptions
from gateway.upstream.source import Takeable

_T = TypeVar("_T")

_encode = msgspec.json.encode
_MAX_OUTPUT_TOKENS = 100_000
_MAX_CHARACTERS = 262_144  # of all messages together, and of the one that is answered with
_MAX_ITEMS = 1_000  # messages, and parts of one
_words_of = re.compile(r"\S+").finditer


class EchoSource(Takeable):
    """One answer; satisfies ``Source``."""

    __slots__ = ("_closed", "_first_delay_s", "_is_due", "_pieces", "_token_delay_s", "delimited", "headers", "status")

    def __init__(
        self, pieces: Iterator[bytes], first_delay_s: float, token_delay_s: float, content_type: bytes
    ) -> None:
        self.status = 200
        self.headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", content_type),)
        self.delimited = True
        self._pieces = pieces
        self._first_delay_s = first_delay_s
        self._token_delay_s = token_delay_s
        self._closed = False
        self._is_due = False

    def take(self) -> bytes | None:
        """The next piece, once its delay is over."""
        if self._closed:
            return b""
        if not self._is_due:
            return None
        self._is_due = False
        return next(self._pieces, b"")

    async def arrival(self) -> None:
        """The delay of the next piece."""
        delay_s, self._first_delay_s = self._first_delay_s, self._token_delay_s
        # A turn of the loop even without a delay: a long answer must not keep other requests waiting.
        await asyncio.sleep(delay_s)
        self._is_due = True

    def listen(self, _listener: Callable[[bool], None] | None) -> bool:
        """It has to be asked for each piece."""
        return False

    def whole(self) -> None:
        """Its delays stand before every piece."""

    def begun(self) -> None:
        """It has no timeouts."""

    def close(self) -> None:
        """Stop; nothing else is held."""
        self._closed = True


def echo(backend: Backend, request: ChatRequest) -> EchoSource:
    """Answer ``request`` the way ``backend.echo`` says."""
    options = backend.echo or EchoOptions()
    messages = _messages(request.fields)
    asked = [limit for limit in (request.max_output_tokens, backend.max_output_tokens) if limit is not None]
    limit = min([*asked, _MAX_OUTPUT_TOKENS])
    words = _answer_words(_last_user_text(messages), options.output_tokens, limit + 1)
    finish = "length" if len(words) > limit else "stop"
    del words[limit:]
    facts = _Facts(
        model=backend.model or "echo",
        created=int(wall()),
        words=words,
        finish=finish,
        choices=request.choices,
        usage=_usage(messages, len(words) * request.choices),
    )
    if request.stream:
        pieces = _stream(facts)
        return EchoSource(pieces, options.first_token_delay_s, options.token_delay_s, b"text/event-stream")
    delay_s = options.first_token_delay_s + options.token_delay_s * len(words)
    return EchoSource(iter((_whole(facts),)), delay_s, 0.0, b"application/json")


class _Facts(msgspec.Struct, frozen=True):
    model: str
    created: int
    words: list[str]
    finish: str
    choices: int
    usage: dict[str, int]


class _Message(msgspec.Struct, frozen=True):
    role: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT


class _Part(msgspec.Struct, frozen=True):
    text: msgspec.Raw = ABSENT


_USER = msgspec.Raw(b'"user"')
_decode_text = msgspec.json.Decoder(str).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_part = msgspec.json.Decoder(_Part).decode


def _or(default: _T, decode: Callable[[msgspec.Raw | bytes], _T], raw: msgspec.Raw | bytes) -> _T:
    """``raw`` decoded, ``default`` where it is something else: whatever a message holds, it is answered."""
    try:
        return decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return default


def _items(raw: msgspec.Raw | bytes) -> list[msgspec.Raw]:
    """The last items of a list; none where it is something else."""
    nothing: list[msgspec.Raw] = []
    return _or(nothing, _decode_items, raw)[-_MAX_ITEMS:]


def _messages(fields: Mapping[str, msgspec.Raw | bytes]) -> list[_Message]:
    return [_or(_Message(), _decode_message, item) for item in _items(fields["messages"])]


def _text(content: msgspec.Raw) -> str:
    """The text of a message's content: a string, or the text parts of a list of parts."""
    parts = [_or(_Part(), _decode_part, item).text for item in _items(content)]
    return " ".join(_or("", _decode_text, text) for text in parts or [content])[:_MAX_CHARACTERS]


def _last_user_text(messages: list[_Message]) -> str:
    return next((_text(message.content) for message in reversed(messages) if message.role == _USER), "")


def _answer_words(text: str, length: int | None, most: int) -> list[str]:
    """The first ``most`` words to answer with, each with its leading space; ``length`` in all where that is set."""
    words = [match[0] for match in islice(_words_of(text), most)] or ["..."]
    if length is not None:
        words = list(islice(cycle(words), min(length, most)))
    return [word if position == 0 else " " + word for position, word in enumerate(words)]


def _usage(messages: list[_Message], output_tokens: int) -> dict[str, int]:
    input_tokens = _count_words(messages)
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def _count_words(messages: list[_Message]) -> int:
    words, left = 0, _MAX_CHARACTERS
    for message in messages:
        text = _text(message.content)[:left]
        words += sum(1 for _ in _words_of(text))
        left -= len(text)
        if left <= 0:
            break
    return words


def _whole(facts: _Facts) -> bytes:
    message = {"role": "assistant", "content": "".join(facts.words), "refusal": None}
    return _encode(
        {
            "id": "chatcmpl-echo",
            "object": "chat.completion",
            "created": facts.created,
            "model": facts.model,
            "choices": [
                {"index": index, "message": message, "logprobs": None, "finish_reason": facts.finish}
                for index in range(facts.choices)
            ],
            "usage": facts.usage,
        }
    )


def _stream(facts: _Facts) -> Iterator[bytes]:
    yield _events(facts, {"role": "assistant", "content": ""}, None)
    for word in facts.words:
        yield _events(facts, {"content": word}, None)
    yield _events(facts, {}, facts.finish)
    yield _event(facts, [], facts.usage)
    yield b"data: [DONE]\n\n"


def _events(facts: _Facts, delta: dict[str, str], finish: str | None) -> bytes:
    """The same delta once for each choice."""
    return b"".join(
        _event(facts, [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}], None)
        for index in range(facts.choices)
    )


def _event(facts: _Facts, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> bytes:
    chunk: dict[str, Any] = {
        "id": "chatcmpl-echo",
        "object": "chat.completion.chunk",
        "created": facts.created,
        "model": facts.model,
        "choices": choices,
    }
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + _encode(chunk) + b"\n\n"
