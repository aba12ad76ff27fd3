"""A chat completion told as a text completion, whole or as it streams. Pure.

Source: https://platform.openai.com/docs/api-reference/completions/object
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects import form
from gateway.dialects.openai.errors import error_event
from gateway.dialects.sse import EventReader
from gateway.errors import UpstreamFailed

OBJECT = "text_completion"
_ENDS = frozenset({"stop", "length", "content_filter"})
_encode = msgspec.json.Encoder().encode


class _Told(msgspec.Struct, kw_only=True):
    """A completion, or a piece of one."""

    id: str
    object: str = OBJECT
    created: int
    model: str
    choices: list[_Choice]
    usage: msgspec.Raw | UnsetType = UNSET
    system_fingerprint: str | UnsetType | None = UNSET


class _Choice(msgspec.Struct, kw_only=True):
    text: str
    index: int
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Logprobs(msgspec.Struct, kw_only=True):
    """Of each token; ``text_offset`` is in characters."""

    tokens: list[str] = []
    token_logprobs: list[float] = []
    top_logprobs: list[dict[str, float]] | None = None
    text_offset: list[int] = []


class _Likely(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Likely):
    top_logprobs: list[_Likely] = []


class _ChatLogprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Usage(msgspec.Struct):
    usage: msgspec.Raw | UnsetType = UNSET
    error: msgspec.Raw | UnsetType = UNSET


_decode_logprobs = msgspec.json.Decoder(_ChatLogprobs | None).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def whole_completion(body: bytes) -> bytes:
    """Raises UpstreamFailed where ``body`` is no chat completion."""
    try:
        chat = form.decode_completion(body)
        choices = [
            _choice(each, each.message, _Offsets()) for each in sorted(chat.choices, key=lambda choice: choice.index)
        ]
        for each in choices:
            each.finish_reason = each.finish_reason or "stop"
        return _encode(_told(chat, choices, _decode_usage(body).usage))
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamFailed("The model backend failed to answer.", detail=f"no chat completion: {error}") from None


class CompletionEvents:
    """See ``Translator``: an event for each that says something. Errors and the end are told as they came."""

    def __init__(self, max_event_bytes: int) -> None:
        self._reader = EventReader(max_event_bytes)
        self._offsets: dict[int, _Offsets] = {}
        self._is_broken = False

    def feed(self, data: bytes) -> bytes:
        """See ``Translator``."""
        return b"".join([self._event(event.data) for event in self._reader.feed(data)])

    def end(self) -> bytes:
        """See ``Translator``."""
        return b"".join([self._event(event.data) for event in self._reader.end()])

    def _event(self, data: bytes) -> bytes:
        if self._is_broken:
            return b""
        if data.startswith(b"[DONE]"):
            return form.DONE
        try:
            extra = _decode_usage(data)
            if extra.error is not UNSET:
                return b"data: %b\n\n" % data
            chunk = form.decode_completion(data)
            choices = [
                _choice(each, each.delta, self._offsets.setdefault(each.index, _Offsets())) for each in chunk.choices
            ]
        except (msgspec.DecodeError, RecursionError) as error:
            self._is_broken = True
            return error_event(UpstreamFailed("The model backend broke off its answer.", detail=str(error)))
        said = [each for each in choices if each.text or each.finish_reason is not None or each.logprobs is not None]
        has_usage = extra.usage is not UNSET and bytes(extra.usage) != b"null"
        if not said and not has_usage:
            return b""
        return b"data: %b\n\n" % _encode(_told(chunk, said, extra.usage))


class _Offsets:
    """How far the text of one choice has come, in characters."""

    def __init__(self) -> None:
        self.at = 0


def _told(chat: form.Completion, choices: list[_Choice], usage: msgspec.Raw | UnsetType) -> _Told:
    return _Told(
        id="cmpl-" + chat.id.removeprefix("chatcmpl-"),
        created=chat.created,
        model=chat.model,
        choices=choices,
        usage=usage,
        system_fingerprint=chat.system_fingerprint,
    )


def _choice(choice: form.Choice, told: form.Told | UnsetType | None, offsets: _Offsets) -> _Choice:
    text = "" if not isinstance(told, form.Told) or not isinstance(told.content, str) else told.content
    reason = choice.finish_reason
    return _Choice(
        text=text,
        index=choice.index,
        logprobs=_logprobs(choice.logprobs, offsets),
        finish_reason=None if reason is None else reason if reason in _ENDS else "stop",
    )


def _logprobs(raw: msgspec.Raw | UnsetType | None, offsets: _Offsets) -> _Logprobs | None:
    found = None if raw is None or raw is UNSET else _decode_logprobs(raw)
    if found is None or found.content is None:
        return None
    logprobs = _Logprobs()
    likely: list[dict[str, float]] = []
    for token in found.content:
        logprobs.tokens.append(token.token)
        logprobs.token_logprobs.append(token.logprob)
        logprobs.text_offset.append(offsets.at)
        likely.append({each.token: each.logprob for each in token.top_logprobs})
        offsets.at += len(token.token)
    if any(likely):
        logprobs.top_logprobs = likely
    return logprobs
