"""What a server of the chat dialect is sent of a request that was made of another one."""

from __future__ import annotations

import json
from typing import Any

from gateway.dialects.openai.request import encode_chat_request
from gateway.model import Backend, ChatRequest, Native, Origin

MARK = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://e/a.png"}}


def sent(*messages: dict[str, Any], unsupported: tuple[str, ...] = (), native: bool = True, **fields: Any) -> Any:
    """The body that is sent."""
    raw = {name: json.dumps(value).encode() for name, value in {"messages": messages, **fields}.items()}
    backend = Backend(
        name="b",
        provider="openai",
        origin=Origin(scheme="http", host="h", port=1),
        unsupported_fields=frozenset(unsupported),
        model="m",
    )
    of = Native(dialect="messages", fields={}, chat=raw) if native else None
    return json.loads(encode_chat_request(ChatRequest(model="s", fields=raw, native=of), backend))


def test_marks_are_left_out() -> None:
    """Of messages, their parts and tools; everything else stays."""
    tool = {"type": "function", "function": {"name": "f"}}
    said = {"role": "user", "content": [{"type": "text", "text": "a"} | MARK, IMAGE | MARK]} | MARK
    body = sent(said, {"role": "assistant", "content": "b"}, tools=[tool | MARK])
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]},
        {"role": "assistant", "content": "b"},
    ]
    assert body["tools"] == [tool]


def test_what_a_tool_showed_follows_its_result() -> None:
    """After the results of all calls, as the user's; a result that is all images says where they are."""
    of_tool = {"role": "tool", "tool_call_id": "1"}
    body = sent(
        of_tool | {"content": [{"type": "text", "text": "a"}, IMAGE]},
        of_tool | {"content": [IMAGE]},
        {"role": "user", "content": "b"},
        of_tool | {"content": [IMAGE]},
    )
    assert body["messages"] == [
        of_tool | {"content": "a"},
        of_tool | {"content": "(shown below)"},
        {"role": "user", "content": [IMAGE, IMAGE]},
        {"role": "user", "content": "b"},
        of_tool | {"content": "(shown below)"},
        {"role": "user", "content": [IMAGE]},
    ]


def test_a_tool_that_failed_says_so() -> None:
    """In its text, unless that begins so already."""
    failed = {"role": "tool", "tool_call_id": "1", "is_error": True}
    body = sent(failed | {"content": "x"}, failed | {"content": "error 5"}, failed | {"content": ""})
    assert [message["content"] for message in body["messages"]] == ["Error: x", "error 5", "Error: "]
    assert not any("is_error" in message for message in body["messages"])


def test_reasoning_goes_back_to_where_it_came_from() -> None:
    """What is signed is another provider's; what is not goes back, unless the backend does not take it."""
    blocks = [
        {"type": "thinking", "thinking": "a", "signature": ""},
        {"type": "thinking", "thinking": "b", "signature": "s"},
    ]
    said = {
        "role": "assistant",
        "content": "c",
        "thinking_blocks": [*blocks, {"type": "redacted_thinking", "data": "d"}],
    }
    assert sent(said)["messages"] == [{"role": "assistant", "content": "c", "reasoning_content": "a"}]
    assert sent(said, unsupported=("reasoning_content",))["messages"] == [{"role": "assistant", "content": "c"}]


def test_the_output_limit_is_never_left_out() -> None:
    """A backend that does not take the one name is sent the other, whoever calls."""
    for native in (True, False):
        body = sent({"role": "user", "content": "a"}, unsupported=("max_tokens",), native=native, max_tokens=9)
        assert (body["max_completion_tokens"], "max_tokens" in body) == (9, False)


def test_what_chat_callers_say_passes() -> None:
    """Nothing is taken out of a request that came as a chat."""
    said = {"role": "assistant", "content": "c", "thinking_blocks": [], "cache_control": {"type": "ephemeral"}}
    assert sent(said, native=False)["messages"] == [said]
