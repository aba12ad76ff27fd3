"""A Messages request that passes to a backend that speaks Messages: what is exchanged of it, and what is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.dialects.anthropic.provider import PassedCall, TranslatedCall, translate
from gateway.dialects.anthropic.read import read_messages_request
from gateway.errors import AttemptFailed, InvalidRequest
from gateway.model import AnthropicOptions, Backend, ChatRequest, Origin, Parameters, Prompt, Scenario
from gateway.scenarios import render
from tests.support.anthropic_api import NEW_MODEL, USAGE, message, text, violations

OPTIONS = AnthropicOptions(betas=("own-1",), caller_betas=frozenset({"known-1"}))
BACKEND = Backend(
    name="b",
    provider="anthropic",
    origin=Origin(scheme="http", host="h", port=1),
    model=NEW_MODEL,
    max_output_tokens=5_000,
    anthropic=OPTIONS,
)
SEARCHED = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "found"}]}
UPLOADED = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
ASKED: dict[str, Any] = {
    "max_tokens": 1_000,
    "model": "claude",
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}, UPLOADED]},
        {"role": "user", "content": [{"type": "text", "text": "How are you?"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "web_search"}],
    "metadata": {"user_id": "u"},
    "output_config": {"effort": "low", "task_budget": {"total": 5}},
    "a_new_one": {"of": ["any", 1.0, "form"]},
}


def asked(scenario: Scenario | None = None, *, betas: tuple[str, ...] = (), **changes: Any) -> ChatRequest:
    """The request as the scenario renders it; None of a field: without it."""
    fields = {name: value for name, value in (ASKED | changes).items() if value is not None}
    request = read_messages_request(json.dumps(fields).encode(), 64, betas)
    return request if scenario is None else replace(render(scenario, request), lenient=scenario.lenient)


def sent(request: ChatRequest, backend: Backend = BACKEND) -> Any:
    """The body that leaves."""
    call = translate(request, backend)
    assert isinstance(call, PassedCall)
    return msgspec.json.decode(call.outgoing.body)


def prompted(template: str, *inputs: str, placement: Any = None) -> Scenario:
    """A scenario with a prompt."""
    parts = tuple(part for each in template.split("{}") for part in (each, *inputs))[: 2 * len(inputs) + 1]
    return Scenario(name="s", prompt=Prompt(name="p.v1", input_vars=inputs, parts=parts), prompt_placement=placement)


def test_what_nobody_changed_leaves_as_it_came() -> None:
    """Every member, known or not; but the model, and an output limit where a budget or the backend has less."""
    request = asked()
    assert sent(request) == ASKED | {"model": NEW_MODEL}
    assert sent(replace(request, output_limit=700))["max_tokens"] == 700
    assert sent(asked(max_tokens=9_000))["max_tokens"] == 5_000
    body = translate(request, BACKEND).outgoing.body
    assert b'{"of": ["any", 1.0, "form"]}' in body


@pytest.mark.parametrize(("limit", "budget"), [(None, 3_000), (3_001, 3_000), (3_000, 2_400), (1_000, None)])
def test_a_budget_to_think_stays_below_the_output_limit(limit: int | None, budget: int | None) -> None:
    """Also where the limit is lower than the one that it was made for; without room there is no thinking."""
    thinking = {"type": "enabled", "budget_tokens": 3_000, "display": "omitted"}
    body = sent(replace(asked(max_tokens=4_000, thinking=thinking), output_limit=limit))
    assert body.get("thinking") == (None if budget is None else thinking | {"budget_tokens": budget})


def test_it_is_passed_only_to_who_speaks_it() -> None:
    """And not where the answer is kept or judged, which is told as a chat."""
    request = asked(a_new_one=None, tools=None, output_config=None, messages=[{"role": "user", "content": "Hello"}])
    assert request.native is not None
    kept = replace(request, native=replace(request.native, dialect="chat"))
    call = translate(kept, BACKEND)
    assert isinstance(call, TranslatedCall)
    assert violations(call.outgoing.body) == []


@pytest.mark.parametrize(
    ("defaults", "overrides", "expected"),
    [
        ({"temperature": 0.3}, {}, {"temperature": 0.3}),
        ({"stop": ["END"]}, {}, {"stop_sequences": ["END"]}),
        ({}, {"user": "v"}, {"metadata": {"user_id": "v"}}),
        ({}, {"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        ({"parallel_tool_calls": False}, {}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        (
            {},
            {"tools": [{"type": "function", "function": {"name": "g"}}]},
            {"tools": [{"name": "g", "input_schema": {"type": "object", "properties": {}}}]},
        ),
        ({"reasoning_effort": "high"}, {}, {}),
        (
            {},
            {"reasoning_effort": "high"},
            {"thinking": {"type": "adaptive"}, "output_config": {"task_budget": {"total": 5}, "effort": "high"}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
            {},
            {
                "output_config": ASKED["output_config"]
                | {"format": {"type": "json_schema", "schema": {"type": "object"}}}
            },
        ),
        ({"max_tokens": 3}, {"max_tokens": 40}, {"max_tokens": 40}),
        ({}, {"max_completion_tokens": 40}, {"max_tokens": 1_000}),
        ({"cache_control": {"type": "ephemeral"}}, {}, {"cache_control": {"type": "ephemeral"}}),
    ],
)
def test_what_the_scenario_sets_is_exchanged(defaults: Any, overrides: Any, expected: Any) -> None:
    """In the words of Messages, and nothing else."""
    parameters = Parameters(
        defaults={name: json.dumps(value).encode() for name, value in defaults.items()},
        overrides={name: json.dumps(value).encode() for name, value in overrides.items()},
    )
    assert sent(asked(Scenario(name="s", parameters=parameters))) == ASKED | {"model": NEW_MODEL} | expected


def test_what_the_scenario_cannot_set_is_refused() -> None:
    """By its name, or left out where it is lenient."""
    parameters = Parameters(defaults={"seed": b"1"})
    with pytest.raises(InvalidRequest) as caught:
        sent(asked(Scenario(name="s", parameters=parameters)))
    assert caught.value.param == "seed"
    call = translate(asked(Scenario(name="s", parameters=parameters, lenient=True)), BACKEND)
    assert call.outgoing.dropped == ("seed",)


def test_a_prompt_before_the_conversation_is_the_first_of_the_system_prompt() -> None:
    """Whatever that was; the conversation stays as it is."""
    for system, blocks in (
        (None, []),
        ("Be brief.", [{"type": "text", "text": "Be brief."}]),
        ([{"type": "text", "text": "a", "a_new_one": 1}], [{"type": "text", "text": "a", "a_new_one": 1}]),
    ):
        body = sent(asked(prompted("You are a poet."), system=system))
        assert body["system"] == [{"type": "text", "text": "You are a poet."}, *blocks]
        assert body["messages"] == ASKED["messages"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("How are you?", "Q: How are you?"),
        ([{"type": "text", "text": "How are you?"}], [{"type": "text", "text": "Q: How are you?"}]),
        (
            [
                {"type": "container", "a_new_one": 1},
                {"type": "text", "text": "How are"},
                {"type": "text", "text": "you?"},
            ],
            [{"type": "container", "a_new_one": 1}, {"type": "text", "text": "Q: How are\nyou?"}],
        ),
    ],
)
def test_a_prompt_that_takes_what_was_said_stands_in_its_place(content: Any, expected: Any) -> None:
    """What else the turn shows stays as it is, and so do all other turns."""
    turns = [*ASKED["messages"][:2], {"role": "user", "content": content}]
    body = sent(asked(prompted("Q: {}", "input"), messages=turns))
    assert body["messages"] == [*turns[:2], {"role": "user", "content": expected}]
    assert body["system"] == "Be brief."


def test_a_prompt_before_what_was_said_comes_after_results() -> None:
    """Results of tools come first in a turn; and a turn of results alone is not what the user said."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}
    turns: list[Any] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}, {"type": "text", "text": "Well?"}]},
    ]
    said = {"type": "text", "text": "Mind this."}
    body = sent(asked(prompted("Mind this.", placement="user"), messages=turns))
    assert body["messages"][2]["content"] == [result, said, *turns[2]["content"][1:]]
    turns[2] = {"role": "user", "content": [result, {"type": "text", "text": "And?"}]}
    body = sent(asked(prompted("Mind this.", placement="user"), messages=turns))
    assert body["messages"][2]["content"] == [result, {"type": "text", "text": "Mind this.\n\nAnd?"}]
    turns[2] = {"role": "user", "content": [result]}
    body = sent(asked(prompted("Mind this.", placement="user"), messages=turns))
    assert body["messages"][0]["content"] == "Mind this.\n\nHello"
    assert body["messages"][1:] == turns[1:]


def test_a_conversation_that_cannot_be_changed_in_place_is_told_anew_or_refused() -> None:
    """A document of text is text in a chat, and its place could not be found again."""
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}}
    turns: list[Any] = [{"role": "user", "content": [document, {"type": "text", "text": "Sum it up"}]}]
    scenario = prompted("Q: {}", "input")
    body = sent(asked(scenario, messages=turns))
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Q: plain\nSum it up"}]}]
    turns[0]["content"].append({"type": "a_new_one"})
    with pytest.raises(InvalidRequest) as caught:
        sent(asked(scenario, messages=turns))
    assert (caught.value.param or "").startswith("messages.0")


def test_fields_that_the_backend_does_not_take_are_left_out() -> None:
    """By their names in either dialect."""
    backend = replace(BACKEND, unsupported_fields=frozenset({"a_new_one", "reasoning_effort", "user"}))
    body = sent(asked(thinking={"type": "adaptive"}), backend)
    assert set(ASKED) - set(body) == {"a_new_one", "metadata"}
    assert "thinking" not in body
    assert body["output_config"] == {"task_budget": {"total": 5}}


def test_betas_pass_where_they_are_allowed() -> None:
    """Beside the backend's own; what is left out is noted."""
    call = translate(asked(betas=("known-1", "own-1", "other-1")), BACKEND)
    assert b"anthropic-beta: own-1,known-1\r\n" in call.outgoing.lines
    assert call.outgoing.dropped == ("anthropic-beta",)
    anything = replace(BACKEND, anthropic=replace(OPTIONS, caller_betas=frozenset({"*"})))
    call = translate(asked(betas=("other-1",)), anything)
    assert b"anthropic-beta: own-1,other-1\r\n" in call.outgoing.lines
    assert call.outgoing.dropped == ()


def test_an_answer_passes_byte_for_byte() -> None:
    """And what was used is read from it."""
    call = translate(asked(), BACKEND)
    body = json.dumps(message(text("Good morning")) | {"a_new_one": [1.0]}, indent=1).encode()
    told, facts = call.whole(body)
    assert told is body
    assert facts.usage is not None
    assert (facts.usage.input_tokens, facts.usage.output_tokens) == (327, USAGE["output_tokens"])
    with pytest.raises(AttemptFailed):
        call.whole(b'{"type":"error","error":{"type":"api_error","message":"m"}}')


def test_a_refusal_passes_unless_it_is_of_the_account() -> None:
    """What is no refusal of Anthropic's, such as a proxy's page, is told in its words."""
    call = translate(asked(), BACKEND)
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"messages: wrong"},"request_id":"r"}'
    assert call.refusal(400, body) == body
    told = msgspec.json.decode(call.refusal(413, b"<html>nginx</html>"))
    assert (told["type"], told["error"]["type"]) == ("error", "request_too_large")
    with pytest.raises(AttemptFailed):
        call.refusal(400, body.replace(b"messages: wrong", b"Your credit balance is too low"))
