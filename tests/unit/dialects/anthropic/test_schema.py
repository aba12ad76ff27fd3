"""Anthropic Messages, typed: what is strict and what is loose."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.dialects.anthropic import schema

_turns = msgspec.json.Decoder(list[schema.Turn])
_tools = msgspec.json.Decoder(list[schema.Tool])

TURNS: list[Any] = [
    {"role": "user", "content": "hello"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}, "title": "t"},
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "b"}]}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "2", "is_error": True}]},
]


def test_what_is_read_is_written_again() -> None:
    """Every part of a request that has a place here."""
    assert msgspec.json.decode(msgspec.json.encode(_turns.decode(msgspec.json.encode(TURNS)))) == TURNS
    config = {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}}
    read = msgspec.json.decode(msgspec.json.encode(config), type=schema.OutputConfig)
    assert msgspec.json.decode(msgspec.json.encode(read)) == config


@pytest.mark.parametrize(
    "content", [[{"type": "search_result"}], [{"type": "text", "text": "a", "weight": 1}], [{"type": "image"}]]
)
def test_a_request_is_strict(content: list[Any]) -> None:
    """What has no place is an error."""
    with pytest.raises(msgspec.ValidationError):
        _turns.decode(msgspec.json.encode([{"role": "user", "content": content}]))
    with pytest.raises(msgspec.ValidationError):
        _tools.decode(b'[{"type": "web_search_20250305", "name": "web_search"}]')


def test_an_answer_is_loose() -> None:
    """What is more than known is left alone."""
    message = schema.decode_message(
        b'{"type":"message","id":"msg_1","role":"assistant","model":"m","more":1,"stop_reason":"a_new_one","content":'
        b'[{"type":"text","text":"a","citations":null},{"type":"server_tool_use","id":"s","name":"n","input":{}}],'
        b'"usage":{"input_tokens":1,"output_tokens":2,"cache_creation":{"ephemeral_1h_input_tokens":3},"speed":"fast"}}'
    )
    assert [block.type for block in message.content] == ["text", "server_tool_use"]
    assert message.usage is not None
    assert message.usage.cache_creation == schema.CacheCreation(ephemeral_1h_input_tokens=3)
