"""Usage as OpenAI-compatible backends report it.

Source: https://platform.openai.com/docs/api-reference/chat/object (``usage``); DeepSeek reports cached input as
``prompt_cache_hit_tokens`` (https://api-docs.deepseek.com/guides/kv_cache).
"""

from __future__ import annotations

import msgspec

from gateway.model import Usage

ABSENT = msgspec.Raw(b"null")
"""The default of a field that is kept raw: an absent field and a null one are the same to us."""

_MAX_TOKENS = 1 << 40  # far above any call; a larger figure is a fault of the backend


class InputDetails(msgspec.Struct):
    """``prompt_tokens_details``."""

    cached_tokens: int | None = None


class ReportedUsage(msgspec.Struct):
    """The ``usage`` object."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    prompt_cache_hit_tokens: int | None = None

    def to_usage(self) -> Usage | None:
        """The usage reported, or None where the figures make no sense."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        cached = (self.prompt_cache_hit_tokens if cached is None else cached) or 0
        given = self.prompt_tokens or 0
        generated = self.completion_tokens or 0
        if not (0 <= given <= _MAX_TOKENS and 0 <= cached <= _MAX_TOKENS and 0 <= generated <= _MAX_TOKENS):
            return None
        return Usage(input_tokens=given, cached_input_tokens=min(cached, given), output_tokens=generated)


_decode = msgspec.json.Decoder(ReportedUsage).decode


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """The usage in a ``usage`` field; None where it is absent or makes no sense (the reply itself is still good)."""
    if raw == ABSENT:
        return None
    try:
        return _decode(raw).to_usage()
    except msgspec.DecodeError:
        return None


def text_bytes(*parts: msgspec.Raw) -> int:
    """Bytes of generated text in raw JSON values, quotes not counted: what an estimate of tokens goes by."""
    return sum(max(len(part) - 2, 0) for part in parts if part != ABSENT)
