"""The form that dialects meet in."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from gateway.dialects import form


def test_raw_parts_of_a_request_are_read_whatever_they_hold() -> None:
    """Cache markers, schemas, and what clients send back of an answer; null is as good as absent."""
    marker = {"type": "ephemeral"}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": marker}], "cache_control": None},
        {"role": "assistant", "content": "b", "annotations": [], "audio": None, "function_call": None},
    ]
    first, second = form.decode_messages(msgspec.json.encode(messages))
    assert isinstance(first.content, list)
    assert isinstance(first.content[0], form.Text)
    assert msgspec.json.encode(first.content[0].cache_control) == msgspec.json.encode(marker)
    assert form.given(first.cache_control) is form.given(second.audio) is form.given(second.function_call) is UNSET
    assert form.given(second.annotations) == msgspec.Raw(b"[]")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, "cache_control": marker}
    assert msgspec.json.decode(msgspec.json.encode(form.decode_tools(msgspec.json.encode([tool])))) == [tool]
    wanted: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    assert msgspec.json.decode(msgspec.json.encode(form.decode_answer_format(msgspec.json.encode(wanted)))) == wanted


def test_raw_parts_of_an_answer_are_read_whatever_they_hold() -> None:
    """Such as logprobs."""
    body = b'{"choices":[{"index":0,"message":{"content":"a"},"logprobs":{"content":[]},"finish_reason":"stop"}]}'
    assert form.decode_completion(body).choices[0].logprobs == msgspec.Raw(b'{"content":[]}')
