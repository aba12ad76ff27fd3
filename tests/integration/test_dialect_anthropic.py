"""Chat completions answered by a backend that speaks Anthropic Messages, asked with the official ``openai`` client.

Whatever the gateway sends is held against the types of Anthropic's own client; see ``tests.support.anthropic_api``. The
answers follow https://platform.claude.com/docs/en/api/messages and .../docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.anthropic_api import (
    NEW_MODEL,
    OLD_MODEL,
    message,
    text,
    thinking,
    tool_use,
    violations,
)
from tests.support.claude import ClaudeGateway
from tests.support.openai_api import KINDS, Kind, text_of
from tests.support.surface import MESSAGES

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PDF = base64.b64encode(b"%PDF-1.7 a document").decode()
PNG = base64.b64encode(b"\x89PNG an image").decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "weight": 1}]}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a"}]}]},
        {"tools": [{"name": "f", "parameters": {}}]},
        {"max_tokens": "5"},
        {"thinking": {"type": "enabled", "budget_tokens": 5}},
    ],
)
def test_the_scripted_anthropic_takes_no_wrong_request(wrong: Any) -> None:
    """What the tests below rely on."""
    right = {
        "model": NEW_MODEL,
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [text("a") | {"citations": []}]}],
    }
    assert violations(json.dumps(right).encode()) == []
    assert violations(json.dumps(right | wrong).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_is_told_and_answered(claude: ClaudeGateway, kind: Kind) -> None:
    """Instructions of any place are the system prompt, turns of one side are one, an output limit is always sent."""
    answer = claude.api(kind).complete(
        model="old",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Good morning"},
            {"role": "user", "content": [{"type": "text", "text": "and good day"}]},
            {"role": "assistant", "content": "Hello"},
            {"role": "developer", "content": "Be polite."},
            {"role": "user", "content": "How are you?"},
        ],
        temperature=0.5,
        top_p=0.9,
        stop=["END"],
        user="user-1",
        extra_body={"top_k": 5},
        frequency_penalty=0,
        logprobs=False,
    )
    sent = claude.sent()
    assert [block["text"] for block in sent.pop("system")] == ["Be brief.", "Be polite."]
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in sent.pop("messages")] == [
        ("user", ["Good morning", "and good day"]),
        ("assistant", ["Hello"]),
        ("user", ["How are you?"]),
    ]
    assert sent == {
        "model": OLD_MODEL,
        "max_tokens": 8192,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "user-1"},
    }
    assert answer.choices[0].message.content == "Good morning to you"
    assert (answer.id, answer.model, answer.choices[0].finish_reason) == (
        "msg_01XFDUDYJgAACzvnptvVoYEL",
        NEW_MODEL,
        "stop",
    )
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (327, 40, 367)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 300
    assert usage.prompt_tokens_details.model_extra == {"cache_creation_tokens": 20}
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 11


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_told_as_it_comes(claude: ClaudeGateway, kind: Kind) -> None:
    """Text piece by piece, the reason at its end, then usage: that of the start and that of the end."""
    chunks = claude.api(kind).stream(model="new", messages=MESSAGES, stream_options={"include_usage": True})
    assert text_of(chunks) == "Good morning to you"
    assert len(chunks) == 6
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 4 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    usage = chunks[-1].usage
    assert usage is not None
    assert (chunks[-1].choices, usage.prompt_tokens, usage.completion_tokens) == ([], 327, 40)
    assert all(chunk.usage is None for chunk in claude.api(kind).stream(model="new", messages=MESSAGES))


def test_tools_are_called_in_parallel_and_their_results_come_back_together(claude: ClaudeGateway) -> None:
    """Whole and streamed; the results of one turn, one of them an image, are one turn of the user."""
    claude.answers.answer = message(
        text("Let me see."),
        tool_use("weather", {"city": "Malmö"}, "toolu_1"),
        tool_use("weather", {}, "toolu_2"),
        stop_reason="tool_use",
    )
    asked: Any = {"model": "new", "messages": MESSAGES, "tools": [WEATHER], "tool_choice": "required"}
    whole = claude.api().complete(**asked, parallel_tool_calls=True).choices[0]
    assert claude.sent()["tool_choice"] == {"type": "any"}
    assert claude.sent()["tools"][0]["input_schema"] == WEATHER["function"]["parameters"]  # type: ignore[index]
    assert whole.finish_reason == "tool_calls"
    calls = whole.message.tool_calls
    assert calls is not None
    assert [(call.id, call.type == "function" and call.function.arguments) for call in calls] == [
        ("toolu_1", '{"city":"Malm\\u00f6"}'),
        ("toolu_2", "{}"),
    ]
    told = claude.accumulated(**asked)
    assert told.content == "Let me see."
    assert told.tool_calls is not None
    assert [(call.id, call.function.arguments) for call in told.tool_calls] == [
        ("toolu_1", '{"city": "Malm\\u00f6"}'),
        ("toolu_2", "{}"),
    ]
    claude.answers.answer = message(text("Sunny"))
    claude.api().complete(
        model="new",
        tools=[WEATHER],
        messages=[
            *MESSAGES,
            whole.message.model_dump(),
            {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"},
            {
                "role": "tool",
                "tool_call_id": "toolu_2",
                "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}],
            },
            {"role": "user", "content": "And?"},
        ],
    )
    results = claude.sent()["messages"][-1]["content"]
    assert [block["type"] for block in results] == ["tool_result", "tool_result", "text"]
    assert results[0] == {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
    assert results[1]["content"][0]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "weather"}}, None, {"type": "tool", "name": "weather"}),
    ],
)
def test_the_choice_of_tools(claude: ClaudeGateway, choice: Any, parallel: bool | None, sent: Any) -> None:
    """Each as Messages says it; and calls of the past are of known tools also where none is given any more."""
    fields = {"tool_choice": choice, "parallel_tool_calls": parallel}
    claude.api().complete(
        model="new",
        messages=MESSAGES,
        tools=[WEATHER],
        **{name: each for name, each in fields.items() if each is not None},
    )
    assert claude.sent().get("tool_choice") == sent


def test_calls_of_the_past_are_of_known_tools(claude: ClaudeGateway) -> None:
    """Also where no tool is given any more, as a chat allows."""
    call = {"id": "call.1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    history = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}]
    claude.api().complete(model="new", messages=[*history, {"role": "tool", "tool_call_id": "call.1", "content": ""}])
    assert claude.sent()["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert claude.sent()["tool_choice"] == {"type": "none"}
    assert claude.sent()["messages"][1]["content"][0]["id"] == "call_1"


def test_thoughts_are_carried_through_a_conversation(claude: ClaudeGateway) -> None:
    """With their signatures, whole and streamed, so that the client can send them back as it got them."""
    hidden = {"type": "redacted_thinking", "data": "aGlkZGVu"}
    claude.answers.answer = message(
        thinking("They want the weather", "c2ln"), hidden, tool_use("weather", {"city": "Oslo"}), stop_reason="tool_use"
    )
    asked: Any = {"model": "new", "messages": MESSAGES, "tools": [WEATHER], "reasoning_effort": "high"}
    whole = claude.api().complete(**asked).choices[0].message
    assert claude.sent()["thinking"] == {"type": "adaptive"}
    assert claude.sent()["output_config"] == {"effort": "high"}
    streamed = claude.accumulated(**asked)
    for said in (whole, streamed):
        extra = said.model_extra or {}
        assert extra["reasoning_content"] == "They want the weather"
        back: Any = {"thinking_blocks": extra["thinking_blocks"], **said.model_dump(exclude={"parsed"})}
        for call in back["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
        result = {"role": "tool", "tool_call_id": "toolu_01A", "content": "sunny"}
        claude.api().complete(**asked | {"messages": [*MESSAGES, back, result]})
        thoughts = claude.sent()["messages"][1]["content"][:2]
        assert thoughts == [thinking("They want the weather", "c2ln"), hidden]


@pytest.mark.parametrize(
    ("model", "fields", "sent"),
    [
        (
            "new",
            {"reasoning_effort": "minimal"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
        ("new", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ("new", {"reasoning_effort": "xhigh", "tool_choice": "required"}, {"output_config": {"effort": "xhigh"}}),
        ("old", {"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (
            "old",
            {"reasoning_effort": "high", "max_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 1600}},
        ),
        ("old", {"reasoning_effort": "none"}, {}),
    ],
)
def test_efforts_become_what_the_model_knows(claude: ClaudeGateway, model: str, fields: Any, sent: Any) -> None:
    """An effort with adaptive thinking, or a budget below the output limit; none where a tool must be used."""
    tools = {"tools": [WEATHER]} if "tool_choice" in fields else {}
    claude.api().complete(model=model, messages=MESSAGES, **fields, **tools)
    got = {name: value for name, value in claude.sent().items() if name in ("thinking", "output_config")}
    assert got == sent


def test_images_documents_and_cache_markers(claude: ClaudeGateway) -> None:
    """By URL or as data; the gateway fetches nothing."""
    marker = {"type": "ephemeral", "ttl": "1h"}
    said: list[Any] = [
        {"type": "text", "text": "Look", "cache_control": marker},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "https://example.org/b.pdf"}},
        {"type": "file", "file": {"file_data": f"data:text/plain;base64,{base64.b64encode(b'plain').decode()}"}},
    ]
    system: Any = {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": marker}]}
    tools: Any = [WEATHER | {"cache_control": marker}]
    claude.api().complete(
        model="new",
        messages=[system, {"role": "user", "content": said}],
        tools=tools,
        extra_body={"cache_control": marker},
    )
    sent = claude.sent()
    assert sent["system"][0]["cache_control"] == sent["tools"][0]["cache_control"] == sent["cache_control"] == marker
    first, *shown = sent["messages"][0]["content"]
    assert first == {"type": "text", "text": "Look", "cache_control": marker}
    assert [(block["type"], block["source"]) for block in shown] == [
        ("image", {"type": "url", "url": "https://example.org/a.png"}),
        ("image", {"type": "base64", "media_type": "image/png", "data": PNG}),
        ("document", {"type": "base64", "media_type": "application/pdf", "data": PDF}),
        ("document", {"type": "url", "url": "https://example.org/b.pdf"}),
        ("document", {"type": "text", "media_type": "text/plain", "data": "plain"}),
    ]
    assert shown[2]["title"] == "a.pdf"


class City(BaseModel):
    """What is asked for."""

    name: str
    people: int


def test_an_answer_of_a_schema(claude: ClaudeGateway) -> None:
    """The client's own way to ask for it."""
    claude.answers.answer = message(text('{"name": "Oslo", "people": 700000}'))
    parsed = claude.api().parse(model="new", messages=MESSAGES, response_format=City).choices[0].message.parsed
    assert parsed == City(name="Oslo", people=700000)
    wanted = claude.sent()["output_config"]["format"]
    assert (wanted["type"], wanted["schema"]["required"]) == ("json_schema", ["name", "people"])


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason", "more"),
    [
        ("max_tokens", "length", {}),
        ("stop_sequence", "stop", {"stop_sequence": "END"}),
        ("pause_turn", "stop", {}),
        ("model_context_window_exceeded", "length", {}),
        ("refusal", "content_filter", {"stop_details": {"type": "refusal", "category": "bio", "explanation": "No."}}),
    ],
)
def test_reasons_to_stop(claude: ClaudeGateway, stop_reason: str, finish_reason: str, more: Any) -> None:
    """Each as a chat knows it, whole and streamed; a refusal with what is said of it, and an answer of nothing."""
    claude.answers.answer = message(stop_reason=stop_reason, **more)
    whole = claude.api().complete(model="new", messages=MESSAGES).choices[0]
    last = claude.api().stream(model="new", messages=MESSAGES)[-1].choices[0]
    assert (whole.finish_reason, last.finish_reason, whole.message.content) == (finish_reason, finish_reason, "")
    assert (whole.message.refusal, last.delta.refusal) == (("No.", "No.") if more.get("stop_details") else (None, None))
    assert (whole.model_extra or {}).get("stop_sequence") == (last.model_extra or {}).get("stop_sequence")
