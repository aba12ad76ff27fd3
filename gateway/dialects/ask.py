"""A chat request in the typed form, for a backend that speaks another dialect; pure.

Invariant: every field of the request is taken by the translation, or known to say nothing to a model, or refused by
name (left out and noted, where the scenario is lenient). None is lost silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from gateway.dialects import form
from gateway.errors import InvalidRequest
from gateway.model import OUTPUT_LIMITS, Backend, ChatRequest

_T = TypeVar("_T")

_OWN = frozenset({"model", "stream", "stream_options", "n", "messages", *OUTPUT_LIMITS})
"""Fields that ``ChatRequest`` has decoded, or that this module reads itself."""

_SAYS_NOTHING = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
"""Fields that change nothing of what a model answers: they are for the provider's own books."""

_NEUTRAL: Mapping[str, frozenset[bytes]] = {
    "frequency_penalty": frozenset({b"0", b"0.0"}),
    "presence_penalty": frozenset({b"0", b"0.0"}),
    "repetition_penalty": frozenset({b"1", b"1.0"}),
    "logit_bias": frozenset({b"{}"}),
    "logprobs": frozenset({b"false"}),
    "top_logprobs": frozenset({b"0"}),
    "modalities": frozenset({b'["text"]'}),
    "min_p": frozenset({b"0", b"0.0"}),
    "tools": frozenset({b"[]"}),
    "functions": frozenset({b"[]"}),
}
"""Values with which a field asks for what happens without it: clients send them, and nothing is lost with them."""

NAMES_MAX = 64
"""How many names of dropped fields are noted of one request."""


class Ask:
    """One request on its way to one backend: fields are taken by name; ``done`` looks at what nobody took."""

    def __init__(self, request: ChatRequest, backend: Backend) -> None:
        self.request = request
        self.backend = backend
        self.dropped: list[str] = []
        self._left = {
            name: raw
            for name, raw in request.fields.items()
            if name not in _OWN and name.casefold() not in backend.unsupported_fields and not _is_null(raw)
        }

    @property
    def model(self) -> str:
        """The name sent upstream."""
        return self.backend.model or self.request.model

    @property
    def max_tokens(self) -> int | None:
        """The output limit to send, as a budget lowered it and never above the backend's; None where there is none."""
        limits = [each for each in (self.request.output_limit, self.request.max_output_tokens) if each is not None]
        return min(*limits, self.backend.max_output_tokens) if limits else None

    def take(self, name: str, decode: Callable[[msgspec.Raw | bytes], _T], expected: str) -> _T | None:
        """The value of a field, None where it is absent or null. Raises InvalidRequest."""
        raw = self._left.pop(name, None)
        if raw is None:
            return None
        try:
            return decode(raw)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequest(f"`{name}` must be {expected}.", code="invalid_type", param=name) from None

    def has(self, name: str) -> bool:
        """Whether a field was given and nobody took it yet."""
        return name in self._left

    def number(self, name: str) -> float | None:
        """A number. Raises InvalidRequest."""
        return self.take(name, _decode_number, "a number")

    def integer(self, name: str) -> int | None:
        """An integer. Raises InvalidRequest."""
        return self.take(name, _decode_integer, "an integer")

    def boolean(self, name: str) -> bool | None:
        """A boolean. Raises InvalidRequest."""
        return self.take(name, _decode_boolean, "a boolean")

    def text(self, name: str) -> str | None:
        """A text. Raises InvalidRequest."""
        return self.take(name, _decode_text, "a string")

    def stop(self) -> list[str]:
        """The stop sequences, none where there are none. Raises InvalidRequest."""
        found = self.take("stop", _decode_stop, "a string or an array of strings")
        return [found] if isinstance(found, str) else found or []

    def messages(self) -> list[form.Message]:
        """The conversation. Raises InvalidRequest, naming the place of what cannot be read."""
        return self._said("messages", self.request.fields.get("messages", b"[]"), form.decode_messages)

    def tools(self) -> list[form.Tool]:
        """The functions that may be called. Raises InvalidRequest."""
        raw = self._left.pop("tools", None)
        return [] if raw is None else self._said("tools", raw, form.decode_tools)

    def tool_choice(self) -> form.ToolChoice | None:
        """Which of them must be. Raises InvalidRequest."""
        raw = self._left.pop("tool_choice", None)
        return None if raw is None else self._said("tool_choice", raw, form.decode_tool_choice)

    def answer_format(self) -> form.AnswerFormat | None:
        """What the answer must be. Raises InvalidRequest."""
        raw = self._left.pop("response_format", None)
        return None if raw is None else self._said("response_format", raw, form.decode_answer_format)

    def cannot(self, field: str, why: str = "") -> None:
        """Note that the backend cannot do this. Raises InvalidRequest unless the scenario is lenient."""
        if not self.request.lenient:
            raise impossible(field, why)
        if len(self.dropped) < NAMES_MAX:
            self.dropped.append(field)

    def done(self, *, several: bool = False) -> tuple[str, ...]:
        """What was left out. Raises InvalidRequest for a field that nobody took, unless the scenario is lenient.

        ``several``: the backend can give more than one answer, as many as ``request.choices``.
        """
        if self.request.choices > 1 and not several:
            self.cannot("n", "it answers once")
        for name, raw in self._left.items():
            if name not in _SAYS_NOTHING and bytes(raw) not in _NEUTRAL.get(name, ()):
                self.cannot(name[:256])
        return tuple(self.dropped)

    def _said(self, field: str, raw: msgspec.Raw | bytes, decode: Callable[[msgspec.Raw | bytes], _T]) -> _T:
        try:
            return decode(raw)
        except msgspec.DecodeError as error:
            text, _, place = str(error).partition(" - at `$")
            param = field + place.rstrip("`")
            raise InvalidRequest(
                f"`{param[:256]}` cannot be used with this model: {text[:256]}.",
                code="unsupported_field",
                param=param[:256],
            ) from None
        except RecursionError:
            raise InvalidRequest(f"`{field}` is nested too deeply.", code="invalid_type", param=field) from None


def _is_null(raw: msgspec.Raw | bytes) -> bool:
    return len(raw) == 4 and bytes(raw) == b"null"


_decode_number = msgspec.json.Decoder(float).decode
_decode_integer = msgspec.json.Decoder(int).decode
_decode_boolean = msgspec.json.Decoder(bool).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_stop = msgspec.json.Decoder(str | list[str]).decode


def beyond_chat(request: ChatRequest) -> tuple[str, ...]:
    """What is left out of a request where it does not pass through as its caller wrote it.

    Raises InvalidRequest where there is any, unless the scenario is lenient.
    """
    if request.native is None or not request.native.beyond:
        return ()
    if not request.lenient:
        raise impossible(request.native.beyond[0])
    return request.native.beyond


def impossible(field: str, why: str = "") -> InvalidRequest:
    """The refusal of what the backend cannot do."""
    reason = f": {why}" if why else ""
    return InvalidRequest(f"`{field}` cannot be used with this model{reason}.", code="unsupported_field", param=field)
