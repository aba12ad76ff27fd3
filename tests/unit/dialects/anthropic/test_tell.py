"""A whole chat completion, and a backend's refusal, as Messages tells them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.anthropic.tell import refusal_told, whole_message
from gateway.errors import UpstreamFailed


def told(message: dict[str, Any], finish: str | None = "stop", stops: tuple[str, ...] = (), **fields: Any) -> Any:
    """The message that a completion becomes; ``fields`` are further ones of its choice."""
    choice = {"index": 0, "message": message, "finish_reason": finish} | fields
    body = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    return json.loads(whole_message(json.dumps(body).encode(), frozenset(stops)))


def call(arguments: str, **fields: Any) -> dict[str, Any]:
    """A call of a tool."""
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}} | fields


def test_a_message() -> None:
    """Its envelope, and what was used."""
    assert told({"role": "assistant", "content": "a"}) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "a"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "output_tokens": 2,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
        },
    }


@pytest.mark.parametrize(
    ("finish", "message", "fields", "reason", "sequence"),
    [
        ("stop", {"content": "a"}, {}, "end_turn", None),
        (None, {"content": "a"}, {}, "end_turn", None),
        ("of its own", {"content": "a"}, {}, "end_turn", None),
        ("length", {"content": "a"}, {}, "max_tokens", None),
        ("content_filter", {"content": None}, {}, "refusal", None),
        ("tool_calls", {"tool_calls": [call("{}")]}, {}, "tool_use", None),
        ("stop", {"tool_calls": [call("{}")]}, {}, "tool_use", None),
        ("length", {"tool_calls": [call("{")]}, {}, "max_tokens", None),
        ("stop", {"content": "a"}, {"stop_sequence": "#"}, "stop_sequence", "#"),
        ("stop", {"content": "a"}, {"stop_reason": "#"}, "stop_sequence", "#"),
        ("stop", {"content": "a"}, {"stop_reason": "<eos>"}, "end_turn", None),
        ("stop", {"content": "a"}, {"stop_reason": 151643}, "end_turn", None),
    ],
)
def test_why_it_ended(
    finish: str | None, message: dict[str, Any], fields: dict[str, Any], reason: str, sequence: str | None
) -> None:
    """A sequence only where the server says one that was asked for."""
    answer = told(message, finish, ("#",), **fields)
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


@pytest.mark.parametrize(
    ("message", "blocks"),
    [
        ({"content": None}, []),
        ({"content": ""}, []),
        ({"content": None, "refusal": "no"}, [{"type": "text", "text": "no"}]),
        (
            {"reasoning_content": "r", "content": "a"},
            [{"type": "thinking", "thinking": "r", "signature": ""}, {"type": "text", "text": "a"}],
        ),
        ({"reasoning": "r"}, [{"type": "thinking", "thinking": "r", "signature": ""}]),
        (
            {
                "reasoning_content": "r",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "r", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                ],
            },
            [{"type": "thinking", "thinking": "r", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}],
        ),
        ({"tool_calls": [call('{"a":1}')]}, [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]),
        ({"tool_calls": [call("")]}, [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]),
        ({"tool_calls": [call("{", id=None)]}, [
            {"type": "tool_use", "id": "toolu_1_0", "name": "f", "input": {"INVALID_JSON": "{"}}
        ]),
        ({"tool_calls": [call("[1]")]}, [
            {"type": "tool_use", "id": "c", "name": "f", "input": {"INVALID_JSON": "[1]"}}
        ]),
    ],
)  # fmt: skip
def test_blocks(message: dict[str, Any], blocks: list[dict[str, Any]]) -> None:
    """Reasoning once and first, then text, then calls; what is no object is kept under a name that says so."""
    assert told(message)["content"] == blocks


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (None, (0, 0, 0, 0)),
        ("many", (0, 0, 0, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, (6, 4, 0, 2)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 5},
            },
            (1, 4, 5, 2),
        ),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}, (0, 10, 0, 0)),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 3}, (7, 3, 0, 0)),
    ],
)
def test_usage(usage: Any, wanted: tuple[int, int, int, int]) -> None:
    """What was cached is counted apart; a report that makes no sense is none."""
    body = {"choices": [{"message": {"content": "a"}}], "usage": usage}
    found = json.loads(whole_message(json.dumps(body).encode(), frozenset()))["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    assert tuple(found[name] for name in names) == wanted


def test_reasoning_is_counted_where_it_is_reported() -> None:
    """As part of the output."""
    usage = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}
    body = {"choices": [{"message": {"content": "a"}}], "usage": usage}
    found = json.loads(whole_message(json.dumps(body).encode(), frozenset()))["usage"]
    assert found["output_tokens_details"] == {"thinking_tokens": 5}


def test_what_is_no_completion() -> None:
    """Is the backend's failure."""
    with pytest.raises(UpstreamFailed):
        whole_message(b"[]", frozenset())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"no","type":"x"}}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"object":"error","message":"no"}', "no"),
        (b"<html>", "<html>"),
        (b"", "The model backend refused the request."),
    ],
)
def test_a_refusal(body: bytes, text: str) -> None:
    """Whatever form it has, its text is told in the envelope of this dialect."""
    assert json.loads(refusal_told(413, body, "r")) == {
        "type": "error",
        "error": {"type": "request_too_large", "message": text},
        "request_id": "r",
    }
