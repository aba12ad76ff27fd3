"""What a scenario makes of a request: precedence, the output cap, the prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.openai.request import read_chat_request
from gateway.errors import InvalidRequest
from gateway.model import AnswerRule, ChatRequest, Parameters, Prompt, Scenario
from gateway.scenarios import render

PROMPT = Prompt(name="p.v1", input_vars=("a", "b"), parts=("A={", "a", "} B=", "b", " {literal}"))


def asked(**fields: Any) -> ChatRequest:
    """A request with these fields."""
    body = {"model": "s", "messages": [{"role": "user", "content": "hi"}]} | fields
    return read_chat_request(json.dumps(body).encode(), 100)


def scenario(
    defaults: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
    cap: int | None = None,
    prompt: Prompt | None = None,
) -> Scenario:
    """A scenario with these parameters."""
    parameters = Parameters(
        defaults={name: json.dumps(value).encode() for name, value in (defaults or {}).items()},
        overrides={name: json.dumps(value).encode() for name, value in (overrides or {}).items()},
        max_output_tokens=cap,
    )
    return Scenario(name="s", prompt=prompt, parameters=parameters)


def fields_of(request: ChatRequest) -> dict[str, Any]:
    """The fields, decoded."""
    return {name: json.loads(bytes(raw)) for name, raw in request.fields.items()}


def test_nothing_to_do_costs_nothing() -> None:
    """A scenario that sets nothing returns the very request."""
    request = asked(temperature=1)
    assert render(Scenario(name="s"), request) is request


def test_precedence() -> None:
    """Overrides, then the request, then defaults; a null is silence."""
    request = asked(temperature=1, top_p=None)
    rendered = render(scenario({"temperature": 0, "top_p": 0.5, "seed": 7}, {"stop": ["x"]}), request)
    found = fields_of(rendered)
    assert (found["temperature"], found["top_p"], found["seed"], found["stop"]) == (1, 0.5, 7, ["x"])
    assert fields_of(render(scenario({"stop": ["y"]}, {"stop": ["x"]}), asked(stop=["z"])))["stop"] == ["x"]
    assert fields_of(request)["top_p"] is None


@pytest.mark.parametrize(
    ("given_limits", "sent", "limit"),
    [
        ({}, {"max_tokens": 100}, 100),
        ({"max_tokens": None}, {"max_tokens": 100}, 100),
        ({"max_tokens": 50}, {"max_tokens": 50}, 50),
        ({"max_tokens": 500}, {"max_tokens": 100}, 100),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 100}, 100),
        ({"max_completion_tokens": 50, "max_tokens": 500}, {"max_completion_tokens": 50, "max_tokens": 100}, 100),
    ],
)
def test_the_cap_only_lowers(given_limits: dict[str, Any], sent: dict[str, int], limit: int) -> None:
    """A request's own limits are lowered to the cap where they are above it; without any, the cap is the limit."""
    rendered = render(scenario(cap=100), asked(**given_limits))
    found = fields_of(rendered)
    limits = {name: found[name] for name in ("max_tokens", "max_completion_tokens") if name in found}
    assert limits == sent
    assert rendered.max_output_tokens == limit


@pytest.mark.parametrize(
    ("given_limits", "sent"),
    [
        ({}, {"max_completion_tokens": 80}),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 100}),
        ({"max_tokens": 50}, {"max_tokens": 50}),
        ({"max_tokens": 50, "max_completion_tokens": None}, {"max_tokens": 50}),
    ],
)
def test_a_default_chooses_the_name_of_the_limit(given_limits: dict[str, Any], sent: dict[str, int]) -> None:
    """A default output limit is sent under its own name, and never beside the request's other name for the same."""
    found = fields_of(render(scenario({"max_completion_tokens": 80}, cap=100), asked(**given_limits)))
    limits = {name: found.get(name) for name in ("max_tokens", "max_completion_tokens")}
    assert {name: limit for name, limit in limits.items() if limit is not None} == sent


def test_without_a_cap_limits_stay() -> None:
    """Other parameters leave the limits alone."""
    rendered = render(scenario({"seed": 1}), asked(max_tokens=500))
    assert (fields_of(rendered)["max_tokens"], rendered.max_output_tokens) == (500, 500)
    assert render(scenario({"seed": 1}), asked()).max_output_tokens is None


def test_the_prompt_comes_first() -> None:
    """It is the first system message; the caller's messages follow untouched; its variables never leave."""
    request = asked(prompt_variables={"a": "1", "b": "2"})
    rendered = render(scenario(prompt=PROMPT), request)
    assert fields_of(rendered)["messages"] == [
        {"role": "system", "content": "A={1} B=2 {literal}"},
        {"role": "user", "content": "hi"},
    ]
    assert "prompt_variables" not in rendered.fields
    assert bytes(rendered.fields["messages"]).endswith(b',{"role": "user", "content": "hi"}]')


@pytest.mark.parametrize("items", [b'[\n {"role" : "user"} , 1.50e+3 ]', b'[{"a":"\\u0041"}]'])
def test_the_callers_messages_stay_byte_for_byte(items: bytes) -> None:
    """The prompt is put before them; they are not read."""
    plain = Prompt(name="p.v1", input_vars=(), parts=("Be kind.",))
    request = read_chat_request(b'{"model":"s","messages":' + items + b"}", 100)
    rendered = bytes(render(scenario(prompt=plain), request).fields["messages"])
    assert rendered == b'[{"role":"system","content":"Be kind."},' + items[1:]


def test_another_spelling_never_goes_beside_what_the_scenario_sets() -> None:
    """A backend may match names without regard to case: what a scenario sets is sent once, in its own spelling."""
    request = asked(Stop=["z"], TEMPERATURE=1, topk=5, Other=1)
    found = fields_of(render(scenario({"temperature": 0}, {"stop": ["x"], "topK": 3}), request))
    assert {name: found[name] for name in found if name not in ("model", "messages")} == {
        "Other": 1,
        "temperature": 0,
        "stop": ["x"],
        "topK": 3,
    }


@pytest.mark.parametrize("value", ["{b}", "{a}", "{{b}}", "{0}", "%s", '"}],"x":[{"', "\\u0041", "\n", "{a.__class__}"])
def test_a_value_is_never_read_as_syntax(value: str) -> None:
    """Braces, quotes and escapes in a variable stay what they are."""
    rendered = render(scenario(prompt=PROMPT), asked(prompt_variables={"a": value, "b": "B"}))
    assert fields_of(rendered)["messages"][0]["content"] == "A={" + value + "} B=B {literal}"


@pytest.mark.parametrize(
    ("variables", "code", "param"),
    [
        ({"a": "1"}, "missing_field", "prompt_variables.b"),
        ({"a": "1", "b": "2", "c": "3"}, "unsupported_field", "prompt_variables.c"),
        ({"a": 1, "b": "2"}, "invalid_type", "prompt_variables"),
        (["a"], "invalid_type", "prompt_variables"),
    ],
)
def test_wrong_variables(variables: Any, code: str, param: str) -> None:
    """A missing, unknown or wrong variable is a 400 that names it."""
    with pytest.raises(InvalidRequest) as refusal:
        render(scenario(prompt=PROMPT), asked(prompt_variables=variables))
    assert (refusal.value.code, refusal.value.param) == (code, param)


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ([b'"%x":""' % number for number in range(100_000)], "unsupported_field", "prompt_variables.0"),
        ([b'"a":""'] * 100_000, "repeated_field", "prompt_variables.a"),
        ([b'"a":"%b"' % (b"x" * 100_000), b'"b":1'], "invalid_type", "prompt_variables"),
        ([b'"a":"%b"' % (b"x" * 100_000)], "missing_field", "prompt_variables.b"),
    ],
    ids=["many", "repeated", "wrong", "missing"],
)
def test_large_variables_are_bounded(members: list[bytes], code: str, param: str) -> None:
    """Large variables are refused at the first that the prompt has no use for, before the others are read."""
    raw = b'{"model":"s","messages":[{}],"prompt_variables":{' + b",".join(members) + b"}}"
    with pytest.raises(InvalidRequest) as refusal:
        render(scenario(prompt=PROMPT), read_chat_request(raw, 100))
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_large_variables_are_read() -> None:
    """A long text is as good a value as a short one."""
    rendered = render(scenario(prompt=PROMPT), asked(prompt_variables={"a": "x" * 100_000, "b": "é"}))
    assert fields_of(rendered)["messages"][0]["content"] == "A={" + "x" * 100_000 + "} B=é {literal}"


def test_variables_without_a_prompt() -> None:
    """They would silently do nothing, so they are refused."""
    with pytest.raises(InvalidRequest) as refusal:
        render(scenario(), asked(prompt_variables={"a": "1"}))
    assert (refusal.value.code, refusal.value.param) == ("unsupported_field", "prompt_variables")
    assert "prompt_variables" not in render(scenario(), asked(prompt_variables={})).fields


def test_a_prompt_without_variables() -> None:
    """Nothing has to be given."""
    plain = Prompt(name="p.v1", input_vars=(), parts=("Be kind.",))
    assert fields_of(render(scenario(prompt=plain), asked()))["messages"][0]["content"] == "Be kind."


def test_an_answer_of_a_schema_is_asked_for() -> None:
    """Where the request asks for no form itself, in whatever spelling; and room is taken for a second answer of a call
    that may be asked again, which a stream never is.
    """
    rule = AnswerRule(schema=b"{}", response_format=b'{"type":"json_schema"}', retry=True)
    promised = Scenario(name="s", answer=rule)
    rendered = render(promised, asked(Response_Format={"x": 1}))
    assert fields_of(rendered)["response_format"] == {"type": "json_schema"}
    assert "Response_Format" not in rendered.fields
    assert rendered.answers == 2
    assert "response_format" in render(promised, asked(response_format=None)).fields
    own = render(promised, asked(response_format={"type": "json_object"}, stream=True))
    assert fields_of(own)["response_format"] == {"type": "json_object"}
    assert own.answers == 1
    assert render(Scenario(name="s", answer=AnswerRule(schema=b"{}", response_format=b"{}")), asked()).answers == 1
