"""What a request of Messages becomes, and how it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.anthropic.read import OBJECTS_MAX, read_betas, read_messages_request
from gateway.dialects.ask import beyond_chat
from gateway.errors import InvalidRequest
from gateway.model import ChatRequest

HELLO = [{"role": "user", "content": "hello"}]
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": HELLO}
PDF_BY_URL = {"type": "document", "source": {"type": "url", "url": "https://e/a.pdf"}}
FOUND = {"type": "search_result", "source": "s", "title": "t", "content": []}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def said(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    """The field of a conversation of one turn."""
    return {"messages": [{"role": role, "content": list(blocks)}]}


def read(**fields: Any) -> ChatRequest:
    """A request with these fields; None leaves one out."""
    body = {name: value for name, value in (ASK | fields).items() if value is not None}
    return read_messages_request(json.dumps(body).encode(), 100)


def chat_of(request: ChatRequest) -> dict[str, Any]:
    """The fields of the chat request."""
    return {name: json.loads(bytes(raw)) for name, raw in request.fields.items()}


def messages_of(*turns: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The messages of the chat request that these turns make."""
    found: list[dict[str, Any]] = chat_of(read(messages=list(turns), **fields))["messages"]
    return found


def beyond_of(request: ChatRequest) -> tuple[str, ...]:
    """What the chat request has no place for."""
    assert request.native is not None
    return request.native.beyond


def refused(**fields: Any) -> InvalidRequest:
    """The refusal of such a request."""
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    return caught.value


def test_what_decides_is_read() -> None:
    """Model, limit and stream; of a stream the usage is always wanted, since its events tell it."""
    request = read(stream=True, service_tier="auto", cache_control={"type": "ephemeral"})
    assert (request.model, request.max_output_tokens, request.stream, request.include_usage) == ("m", 9, True, True)
    assert chat_of(request) == {"model": "m", "messages": HELLO, "max_tokens": 9, "stream": True}
    assert beyond_of(request) == ()
    assert request.native is not None
    assert set(request.native.fields) == {*ASK, "stream", "service_tier", "cache_control"}
    assert request.native.chat is request.fields


def test_nulls_say_nothing() -> None:
    """A field that is null is one that was not given."""
    body = dict.fromkeys(("system", "stop_sequences", "tools", "tool_choice", "thinking", "mcp_servers"))
    request = read_messages_request(json.dumps(ASK | body).encode(), 100)
    assert set(request.fields) == set(ASK)
    assert beyond_of(request) == ()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"system": "S"}, {"messages": [{"role": "system", "content": "S"}, *HELLO]}),
        ({"system": ""}, {"messages": HELLO}),
        ({"stop_sequences": ["a"]}, {"stop": ["a"]}),
        ({"stop_sequences": []}, {}),
        ({"temperature": 1, "top_p": 0.5, "top_k": 3}, {"temperature": 1, "top_p": 0.5, "top_k": 3}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 20_000}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "xhigh"}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"metadata": {"user_id": None}}, {}),
        ({"prompt_variables": {"a": "b"}}, {"prompt_variables": {"a": "b"}}),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
    ],
)
def test_fields(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each has its place in a chat request."""
    request = read(**given)
    assert chat_of(request) == {"model": "m", "messages": HELLO, "max_tokens": 9} | wanted
    assert beyond_of(request) == ()


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
    ],
)
def test_choices_of_tools(choice: dict[str, Any], wanted: dict[str, Any]) -> None:
    """And whether several may be called at once."""
    mark = {"type": "ephemeral"}
    tool = {"type": "custom", "name": "f", "input_schema": {"type": "object"}, "strict": True, "cache_control": mark}
    found = chat_of(read(tools=[tool], tool_choice=choice))
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    assert found.pop("tools") == [{"type": "function", "function": function, "cache_control": mark}]
    assert found == {"model": "m", "messages": HELLO, "max_tokens": 9} | wanted


def test_an_answer_goes_back() -> None:
    """Text, reasoning with its signature, and calls of an earlier answer; what it cites and who called say nothing."""
    blocks = [
        {"type": "thinking", "thinking": "T", "signature": "S"},
        {"type": "redacted_thinking", "data": "D"},
        {"type": "text", "text": "a", "citations": None},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}, "caller": {"type": "direct"}},
    ]
    assert messages_of({"role": "assistant", "content": blocks}) == [
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
            "thinking_blocks": blocks[:2],
        }
    ]


def test_results_of_tools_come_first() -> None:
    """Each is a message, that of a tool that failed says so, and what else the turn says follows."""
    mark = {"type": "ephemeral"}
    blocks = [
        {"type": "text", "text": "and", "cache_control": mark},
        {"type": "tool_result", "tool_use_id": "1", "is_error": True},
        {"type": "tool_result", "tool_use_id": "2", "content": "b", "cache_control": mark},
    ]
    assert messages_of({"role": "user", "content": blocks}) == [
        {"role": "tool", "tool_call_id": "1", "content": "", "is_error": True},
        {"role": "tool", "tool_call_id": "2", "content": "b", "cache_control": mark},
        {"role": "user", "content": [blocks[0]]},
    ]


def test_documents() -> None:
    """Text becomes text under its title; a document of parts its parts; instructions may stand in the middle."""
    of_text = {
        "type": "document",
        "title": "T",
        "context": "C",
        "source": {"type": "text", "media_type": "text/plain", "data": "D"},
    }
    parts = [{"type": "text", "text": "a"}, {"type": "image", "source": {"type": "url", "url": "https://e/a.png"}}]
    of_parts = {"type": "document", "source": {"type": "content", "content": parts}, "citations": {"enabled": False}}
    assert messages_of(
        {"role": "user", "content": [of_text]},
        {"role": "system", "content": "now"},
        {"role": "user", "content": [of_parts]},
    ) == [
        {"role": "user", "content": "T\n\nC\n\nD"},
        {"role": "system", "content": "now"},
        {"role": "user", "content": [parts[0], {"type": "image_url", "image_url": {"url": "https://e/a.png"}}]},
    ]


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"tools": [SEARCH]}, "tools.0"),
        ({"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]}, "tools.0.input_examples"),
        ({"mcp_servers": [{"url": "https://e"}]}, "mcp_servers"),
        ({"container": {"skills": [1]}}, "container"),
        ({"speed": "fast"}, "speed"),
        ({"n": 3}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"output_config": {"task_budget": 3}}, "output_config.task_budget"),
        ({"metadata": {"other": 3}}, "metadata.other"),
        ({"system": [{"type": "text", "text": "a", "new": 1}]}, "system.0.new"),
        ({"messages": [*HELLO, {"role": "user", "content": "a", "new": 1}]}, "messages.1.new"),
        (said({"type": "text", "text": "a"}, {"type": "new"}), "messages.0.content.1"),
        (said({"type": "new"}, PDF_BY_URL), "messages.0.content.1.source"),
        (said({"type": "image", "source": {"type": "new"}}), "messages.0.content.0.source"),
        (
            said({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "new"}]}),
            "messages.0.content.0.content.0",
        ),
        (said(FOUND | {"citations": {"enabled": True}}), "messages.0.content.0.citations"),
    ],
)
def test_what_a_chat_cannot_say(given: dict[str, Any], place: str) -> None:
    """It is named by its place, stays in what a backend of this dialect is sent, and is refused by any other."""
    request = read(**given)
    assert place in beyond_of(request)
    [name] = given
    assert request.native is not None
    assert json.loads(bytes(request.native.fields[name])) == given[name]
    assert name in {"messages", "system", "tools", "metadata", "output_config"} or name not in request.fields
    with pytest.raises(InvalidRequest) as caught:
        beyond_chat(request)
    assert caught.value.param == beyond_of(request)[0]


def test_what_says_nothing_is_no_obstacle() -> None:
    """Defaults of fields that a chat has not: asked for or not, the answer is the same."""
    tool = {"name": "f", "input_schema": {}, "defer_loading": False, "eager_input_streaming": True, "new": False}
    assert beyond_of(read(speed="standard", tools=[tool])) == ()


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"model": None}, "missing_field", "model"),
        ({"model": ""}, "invalid_value", "model"),
        ({"model": 5}, "invalid_type", "model"),
        ({"max_tokens": None}, "missing_field", "max_tokens"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": "9"}, "invalid_type", "max_tokens"),
        ({"messages": None}, "missing_field", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": {}}, "invalid_type", "messages"),
        ({"messages": ["a"]}, "invalid_type", "messages.0"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "invalid_type", "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "missing_field", "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "missing_field", "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "invalid_type", "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]},
            "invalid_value",
            "messages.0.content.0",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": 5}]}
                ]
            },
            "invalid_type",
            "messages.0.content.0.input",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "1"}}]}
                ]
            },
            "unsupported_field",
            "messages.0.content.0.source",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "1"}]}]},
            "unsupported_field",
            "messages.0.content.0",
        ),
        ({"container": "c"}, "unsupported_field", "container"),
        ({"container": {"id": "c"}}, "unsupported_field", "container"),
        ({"workspace_id": "c"}, "unsupported_field", "workspace_id"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"Stream": True}, "unsupported_field", "Stream"),
        ({"stop_sequences": "a"}, "invalid_type", "stop_sequences"),
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": [{"name": "f"}]}, "invalid_type", "tools.0"),
        ({"tool_choice": "auto"}, "invalid_type", "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "invalid_value", "thinking.budget_tokens"),
        ({"thinking": {"type": "often"}}, "invalid_type", "thinking"),
        ({"output_config": {"effort": "much"}}, "invalid_type", "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "invalid_type", "output_config.format"),
        ({"metadata": {"user_id": 5}}, "invalid_type", "metadata.user_id"),
        ({"system": 5}, "invalid_type", "system"),
        ({"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}, "invalid_value", "system"),
    ],
)
def test_refusals(given: dict[str, Any], code: str, param: str) -> None:
    """What is wrong is refused for every backend, by its place."""
    error = refused(**given)
    assert (error.code, error.param) == (code, param)
    assert f"`{param}`" in error.message


def test_a_repeated_field() -> None:
    """The bytes that are authorised are those that are sent."""
    with pytest.raises(InvalidRequest) as caught:
        read_messages_request(b'{"model":"a","max_tokens":1,"messages":[],"model":"b"}', 100)
    assert caught.value.code == "repeated_field"


def test_the_number_of_objects_is_bounded() -> None:
    """A body of many small blocks makes no more of them than that; braces inside a text are no objects."""
    block = {"type": "text", "text": ""}
    error = refused(messages=[{"role": "user", "content": [block] * OBJECTS_MAX}])
    assert error.param == "messages"
    assert read(messages=[{"role": "user", "content": '{"' * (OBJECTS_MAX + 1)}]).max_output_tokens == 9


def test_names_of_betas() -> None:
    """Each once; anything else is refused by the header's name."""
    assert read_betas("a-2025-01-01, b , a-2025-01-01,") == ("a-2025-01-01", "b")
    for wrong in ("a b", "a\r\nb", ",".join(f"a{number}" for number in range(40)), "ä"):
        with pytest.raises(InvalidRequest) as caught:
            read_betas(wrong)
        assert caught.value.param == "anthropic-beta"
