"""Usage of Messages: as the gateway counts it, and as a chat tells it; pure.

``input_tokens`` of Messages leave out what was read from the cache and what was written to it; here, as in a chat,
input is all of it. Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from gateway.dialects import form
from gateway.dialects.anthropic import schema
from gateway.model import Usage


def counted(reported: schema.Usage | None) -> Usage | None:
    """The usage; None where none was reported."""
    if reported is None or (reported.input_tokens is None and reported.output_tokens is None):
        return None
    read, written = reported.cache_read_input_tokens or 0, _written(reported)
    details = reported.output_tokens_details
    return Usage(
        input_tokens=(reported.input_tokens or 0) + read + written,
        cached_input_tokens=read,
        cache_written_input_tokens=written,
        output_tokens=reported.output_tokens or 0,
        reasoning_tokens=(details.thinking_tokens or 0) if details else 0,
    )


def _written(reported: schema.Usage) -> int:
    total = reported.cache_creation_input_tokens
    if total is not UNSET and total is not None:
        return total
    parts = reported.cache_creation
    return parts.ephemeral_5m_input_tokens + parts.ephemeral_1h_input_tokens if parts else 0


def merged(start: schema.Usage | None, end: schema.Usage | None) -> schema.Usage | None:
    """The usage of a stream, whose figures are sums: the last one of each stands."""
    if start is None or end is None:
        return start if end is None else end
    names = [name for name in schema.Usage.__struct_fields__ if getattr(end, name) not in (None, UNSET)]
    return replace(start, **{name: getattr(end, name) for name in names})


def told(usage: Usage) -> form.UsageForm:
    """The usage as a chat tells it."""
    return form.UsageForm(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=form.InputDetails(
            cached_tokens=usage.cached_input_tokens, cache_creation_tokens=usage.cache_written_input_tokens
        ),
        completion_tokens_details=form.OutputDetails(reasoning_tokens=usage.reasoning_tokens),
    )
