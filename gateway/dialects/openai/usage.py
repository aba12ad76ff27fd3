"""Usage as OpenAI-compatible backends report it.

Source: https://platform.openai.com/docs/api-reference/chat/object (``usage``); DeepSeek reports cached input as
``prompt_cache_hit_tokens`` (https://api-docs.deepseek.com/guides/kv_cache).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from gateway.model import Usage

ABSENT = msgspec.Raw(b"null")
"""The default of a field that is kept raw: an absent field and a null one are the same to us."""

ERROR_OBJECT = msgspec.Raw(b'"error"')
"""The ``object`` of an error that is not in an envelope, as older releases of vLLM report one."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]  # far above any call; a larger figure is the backend's fault


class InputDetails(msgspec.Struct, gc=False):
    """``prompt_tokens_details``."""

    cached_tokens: _Count | None = None
    cache_creation_tokens: _Count | None = None


class OutputDetails(msgspec.Struct, gc=False):
    """``completion_tokens_details``."""

    reasoning_tokens: _Count | None = None


class ReportedUsage(msgspec.Struct, gc=False):
    """The ``usage`` object."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    prompt_cache_hit_tokens: _Count | None = None

    def to_usage(self) -> Usage | None:
        """The usage reported; a figure that is left out counts as none, and without any there is nothing reported."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        details = self.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        if cached is None:
            cached = self.prompt_cache_hit_tokens or 0
        given, made = self.prompt_tokens or 0, self.completion_tokens or 0
        cached = min(cached, given)
        written = 0 if details is None else details.cache_creation_tokens or 0
        thought = self.completion_tokens_details
        return Usage(
            input_tokens=given,
            cached_input_tokens=cached,
            output_tokens=made,
            cache_written_input_tokens=min(written, given - cached),
            reasoning_tokens=0 if thought is None else min(thought.reasoning_tokens or 0, made),
        )


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
