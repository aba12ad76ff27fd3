"""Where a prompt goes, and where its variables come from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.openai.request import read_chat_request, read_scenario_request
from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.model import ChatRequest, Prompt, PromptPlacement, Scenario
from gateway.registry import template
from gateway.scenarios import render

HI = {"role": "user", "content": "hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def prompt(text: str, name: str = "p.v1") -> Prompt:
    """The prompt of a template."""
    parts = template.split(text)
    return Prompt(name=name, input_vars=tuple(dict.fromkeys(parts[1::2])), parts=parts)


def chat(messages: list[Any] | None = None, **fields: Any) -> ChatRequest:
    """A chat request."""
    return read_chat_request(json.dumps({"model": "s", "messages": messages or [HI], **fields}).encode(), 100)


def scenario_call(**fields: Any) -> ChatRequest:
    """The request of a call by the scenario's name."""
    return read_scenario_request(json.dumps(fields).encode(), 100, "s")


def sent(request: ChatRequest, text: str, placement: PromptPlacement | None = None) -> Any:
    """The messages that are sent with this template."""
    scenario = Scenario(name="s", prompt=prompt(text), prompt_placement=placement)
    return json.loads(bytes(render(scenario, request).fields["messages"]))


def refusal(request: ChatRequest, text: str | None = "{a}{b}") -> tuple[str, str | None]:
    """Code and param of what a request to a scenario with this template is answered with."""
    scenario = Scenario(name="s", prompt=None if text is None else prompt(text))
    with pytest.raises(InvalidRequest) as caught:
        render(scenario, request)
    return caught.value.code, caught.value.param


@pytest.mark.parametrize("placement", [None, "system", "developer"])
def test_before_the_messages(placement: PromptPlacement | None) -> None:
    """By default, and where the scenario says so, the prompt is a message of its own before the caller's."""
    before = {"role": placement or "system", "content": "Be kind."}
    assert sent(chat([HI, {"role": "assistant"}]), "Be kind.", placement) == [before, HI, {"role": "assistant"}]


def test_the_input_is_the_last_text_of_the_user() -> None:
    """A prompt that takes the input stands in the place of the message that it was taken from; the rest stays."""
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, HI | {"name": "x"}]
    expected = [*messages[:2], {"role": "user", "content": "Say: hi!", "name": "x"}]
    assert sent(chat(messages), "Say: {input}!") == expected
    after = {"role": "tool", "content": "5", "tool_call_id": "1"}
    assert sent(chat([*messages, after]), "Say: {input}!") == [*expected, after]


def test_the_input_with_a_system_placement() -> None:
    """Where the scenario wants a system message, what the user said stays what it is besides."""
    assert sent(chat(), "Topic: {input}", "system") == [{"role": "system", "content": "Topic: hi"}, HI]


def test_the_input_as_a_variable() -> None:
    """An input that is given as a variable is one like any other: no message is taken for it."""
    request = chat(prompt_variables={"input": "ho"})
    assert sent(request, "Say: {input}", "system") == [{"role": "system", "content": "Say: ho"}, HI]
    assert sent(request, "Say: {input}") == [{"role": "user", "content": "Say: ho\n\nhi"}]


def test_parts_of_a_message() -> None:
    """The text of several parts is the input, a line for each; the prompt takes their place and an image stays."""
    parts = [IMAGE, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    [message] = sent(chat([{"role": "user", "content": parts}]), "[{input}]")
    assert message["content"] == [IMAGE, {"type": "text", "text": "[a\nb]"}]
    [message] = sent(chat([{"role": "user", "content": parts}]), "Look:", "user")
    assert message["content"] == [{"type": "text", "text": "Look:"}, *parts]
    assert refusal(chat([{"role": "user", "content": [IMAGE]}]), "[{input}]") == (
        "missing_field",
        "prompt_variables.input",
    )


def test_before_what_the_user_says() -> None:
    """With the placement user, a prompt that takes no input stands before the user's text, an empty line between."""
    assert sent(chat(), "Be kind.", "user") == [{"role": "user", "content": "Be kind.\n\nhi"}]
    system = {"role": "system", "content": "x"}
    assert sent(chat([system]), "Be kind.", "user") == [{"role": "user", "content": "Be kind."}, system]
    assert sent(chat([{"role": "user"}]), "Be kind.", "user") == [{"role": "user", "content": "Be kind."}]


def test_the_prompt_alone() -> None:
    """A call of variables alone is sent as what the user says, since most chat templates want a user."""
    for placement in (None, "system", "user"):
        assert sent(scenario_call(variables={"a": "1"}), "A={a}", placement) == [{"role": "user", "content": "A=1"}]


def test_the_input_of_a_scenario_call() -> None:
    """It is what the user says: taken by a prompt that wants it, else said after the prompt."""
    assert sent(scenario_call(input="hi"), "Say: {input}") == [{"role": "user", "content": "Say: hi"}]
    assert sent(scenario_call(input="hi"), "Be kind.") == [{"role": "system", "content": "Be kind."}, HI]
    plain = render(Scenario(name="s"), scenario_call(input="hi", variables={}))
    assert {name: json.loads(bytes(raw)) for name, raw in plain.fields.items()} == {"messages": [HI]}


@pytest.mark.parametrize(
    ("fields", "text", "code", "param"),
    [
        ({}, None, "missing_field", "input"),
        ({"variables": {"a": "1"}}, None, "unsupported_field", "variables"),
        ({}, "{input}", "missing_field", "variables.input"),
        ({}, "{a}", "missing_field", "variables.a"),
        ({"variables": {"b": "1"}}, "{a}", "unsupported_field", "variables.b"),
        ({"variables": {"a": 1}}, "{a}", "invalid_type", "variables"),
    ],
)
def test_wrong_scenario_calls(fields: dict[str, Any], text: str | None, code: str, param: str) -> None:
    """What is missing or too much is named as it is called there."""
    assert refusal(scenario_call(**fields), text) == (code, param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": "x"}, "unsupported_field", "model"),
        ({"Messages": []}, "unsupported_field", "Messages"),
        ({"prompt_variables": {}}, "unsupported_field", "prompt_variables"),
        ({"Input": "x"}, "unsupported_field", "Input"),
        ({"VARIABLES": {}}, "unsupported_field", "VARIABLES"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": ["x"]}, "invalid_type", "input"),
        ({"input": "x", "stream": 1}, "invalid_type", "stream"),
        ({"input": "x", "max_tokens": 0}, "invalid_value", "max_tokens"),
    ],
)
def test_wrong_bodies_of_scenario_calls(body: dict[str, Any], code: str, param: str) -> None:
    """Fields that the scenario decides are refused, in every spelling, and those that are read must make sense."""
    with pytest.raises(InvalidRequest) as caught:
        scenario_call(**body)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_variables_in_metadata() -> None:
    """They do what prompt_variables do, and never leave; what else the metadata holds does."""
    request = chat(metadata={"variables": {"a": "1"}, "run": "7"}, prompt_variables={"b": "2"})
    rendered = render(Scenario(name="s", prompt=prompt("{a}{b}")), request)
    assert json.loads(bytes(rendered.fields["messages"]))[0]["content"] == "12"
    assert json.loads(bytes(rendered.fields["metadata"])) == {"run": "7"}
    only = render(Scenario(name="s", prompt=prompt("{a}")), chat(metadata={"variables": {"a": "1"}}))
    assert "metadata" not in only.fields


def test_variables_from_both_places() -> None:
    """A variable that is given twice must have one value."""
    twice: dict[str, Any] = {"prompt_variables": {"a": "1", "b": "2"}, "metadata": {"variables": {"a": "1"}}}
    assert sent(chat(**twice), "{a}{b}")[0]["content"] == "12"
    conflict = twice | {"metadata": {"variables": {"a": "2"}}}
    assert refusal(chat(**conflict)) == ("conflicting_fields", "metadata.variables.a")


@pytest.mark.parametrize(
    ("metadata", "code", "param"),
    [
        ({"variables": {"c": "1"}}, "unsupported_field", "metadata.variables.c"),
        ({"variables": "x"}, "invalid_type", "metadata.variables"),
        ("x", "invalid_type", "metadata"),
        ({str(number): "" for number in range(65)}, "too_many_fields", "metadata"),
    ],
)
def test_wrong_metadata(metadata: Any, code: str, param: str) -> None:
    """Metadata of a scenario with a prompt must be what variables can be looked for in."""
    assert refusal(chat(metadata=metadata)) == (code, param)


@pytest.mark.parametrize("metadata", ["x", {"run": "7"}, {"variables": "x"}, {str(n): "" for n in range(65)}, None])
def test_metadata_without_a_prompt_is_the_callers(metadata: Any) -> None:
    """Without a prompt metadata passes as it came; variables in it would silently do nothing and are refused."""
    raw = render(Scenario(name="s"), chat(metadata=metadata)).fields["metadata"]
    assert json.loads(bytes(raw)) == metadata
    assert refusal(chat(metadata={"variables": {"a": "1"}}), None) == ("unsupported_field", "metadata.variables")


def test_a_rendered_prompt_is_bounded() -> None:
    """A template that repeats a variable cannot make a message of any size."""
    wide = prompt("{a}" * 50)
    with pytest.raises(RequestTooLarge):
        render(Scenario(name="s", prompt=wide), chat(prompt_variables={"a": "x" * 1_000_000}))


def test_many_messages_are_bounded() -> None:
    """Only so many messages and parts are looked through for the user's; where none has to be found, more pass."""
    many = chat([{"role": "user", "content": "x"}] * 10_001)
    assert refusal(many, "{input}") == ("invalid_value", "messages")
    assert len(sent(many, "Be kind.")) == 10_002
    parts = chat([{"role": "user", "content": [{"type": "text", "text": "x"}] * 10_001}])
    assert refusal(parts, "{input}") == ("invalid_value", "messages.0.content")
    wide = chat([{"role": "user", **{f"x{number}": 1 for number in range(64)}}])
    assert refusal(wide, "{input}") == ("too_many_fields", "messages.0")


@pytest.mark.parametrize(
    "messages", [["x"], [1, {"role": "user", "content": 5}], [{"role": 5}], [{"role": "assistant"}]]
)
def test_messages_of_no_known_form(messages: list[Any]) -> None:
    """A message that makes no sense is never the user's text; the caller is told what is missing or wrong."""
    code, param = refusal(chat(messages), "{input}")
    assert (code, param) in (("missing_field", "prompt_variables.input"), ("invalid_type", "messages.1.content"))
