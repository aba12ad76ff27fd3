"""What holds for any template, value and name: values are text, denied fields never pass, allowed ones do by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai.request import read_chat_request, read_scenario_request
from gateway.errors import InvalidRequest
from gateway.model import Parameters, Prompt, Scenario
from gateway.registry import template
from gateway.scenarios import render

NAMES = st.from_regex(template.VARIABLE_PATTERN[1:-1], fullmatch=True)
SYNTAX = st.sampled_from(
    ["{a}", "{{", "}}", "{", "}", "{0}", "{a.__class__}", "%s", "${a}", "{% x %}", '"', "\\u0041", "\x00"]
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.lists(TEXT | SYNTAX | NAMES.map("{{{}}}".format), max_size=5).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXT | st.sampled_from(["user", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "variables", "input"]) | TEXT, inner)
    ),
    max_leaves=12,
)
MESSAGES = st.lists(
    JSON | st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": JSON}), min_size=1, max_size=4
)
FIELDS = st.sampled_from(["tools", "n", "logprobs", "response_format", "top_k", "seed", "user", "min_p"])
PLACEMENTS = st.sampled_from([None, "system", "developer", "user"])


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A template, and what it is made of: literals at even places, names at odd ones."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    pieces = [draw(VALUES)]
    for name in draw(st.lists(st.sampled_from(names), max_size=6)):
        pieces += [name, draw(VALUES)]
    return "".join(
        piece.replace("{", "{{").replace("}", "}}") if place % 2 == 0 else "{" + piece + "}"
        for place, piece in enumerate(pieces)
    ), pieces


@given(made=templates(), values=st.dictionaries(NAMES, VALUES), filler=VALUES, placement=PLACEMENTS)
def test_a_value_is_never_interpreted(
    made: tuple[str, list[str]], values: dict[str, str], filler: str, placement: Any
) -> None:
    """Whatever a value holds, what is sent is the template's text with the values between, character for character."""
    text, pieces = made
    parts = template.split(text)
    used = tuple(dict.fromkeys(parts[1::2]))
    given_values = {name: values.get(name, filler) for name in used}
    expected = "".join(piece if place % 2 == 0 else given_values[piece] for place, piece in enumerate(pieces))
    scenario = Scenario(name="s", prompt=Prompt(name="p.v1", input_vars=used, parts=parts), prompt_placement=placement)
    body = json.dumps({"variables": given_values, "input": "said"}).encode()
    messages = json.loads(bytes(render(scenario, read_scenario_request(body, 10, "s")).fields["messages"]))
    if placement == "user" or (placement is None and "input" in used):
        assert messages == [{"role": "user", "content": f"{expected}\n\nsaid"}]
    else:
        assert messages == [{"role": placement or "system", "content": expected}, {"role": "user", "content": "said"}]


@given(said=VALUES.filter(bool), before=VALUES, after=VALUES)
def test_what_a_user_says_is_never_interpreted(said: str, before: str, after: str) -> None:
    """The input that is taken from a message is text as well."""
    prompt = Prompt(name="p.v1", input_vars=("input",), parts=(before, "input", after))
    body = json.dumps({"model": "s", "messages": [{"role": "user", "content": said}]}).encode()
    rendered = render(Scenario(name="s", prompt=prompt), read_chat_request(body, 10))
    assert json.loads(bytes(rendered.fields["messages"])) == [{"role": "user", "content": before + said + after}]


@given(messages=MESSAGES, variables=JSON, metadata=JSON, placement=PLACEMENTS, prompted=st.booleans())
def test_any_json_is_rendered_or_refused(
    messages: list[Any], variables: Any, metadata: Any, placement: Any, prompted: bool
) -> None:
    """Whatever a request holds, it is a 400 that names a field, or messages that hold the prompt and no variables."""
    prompt = Prompt(name="p.v1", input_vars=("input",), parts=("<prompt>", "input", ""))
    scenario = Scenario(name="s", prompt=prompt if prompted else None, prompt_placement=placement if prompted else None)
    body = {"model": "s", "messages": messages, "prompt_variables": variables, "metadata": metadata}
    request = read_chat_request(json.dumps(body).encode(), 10)
    try:
        fields = render(scenario, request).fields
    except InvalidRequest as error:
        refusal = error.param
    else:
        _check_rendered(fields, messages, prompted=prompted)
        refusal = "none"
    assert refusal


def _check_rendered(fields: Mapping[str, bytes | msgspec.Raw], messages: list[Any], *, prompted: bool) -> None:
    assert "prompt_variables" not in fields
    sent = json.loads(bytes(fields["messages"]))
    assert ("<prompt>" in json.dumps(sent)) >= prompted
    assert len(sent) - len(messages) in (0, 1)
    kept = json.loads(bytes(fields.get("metadata", b"null")))
    assert not (isinstance(kept, dict) and isinstance(kept.get("variables"), dict))


def respelled(name: str, upper: list[bool]) -> str:
    """The name with some of its letters as capitals."""
    return (
        "".join(letter.upper() if up else letter for letter, up in zip(name, upper, strict=False)) + name[len(upper) :]
    )


@given(
    denied=st.sets(FIELDS),
    field=FIELDS,
    upper=st.lists(st.booleans(), max_size=15),
    value=st.sampled_from([1, "x", [], {}, False]),
)
def test_deny_and_allow(denied: set[str], field: str, upper: list[bool], value: Any) -> None:
    """A denied field never passes however it is spelled; with an allow list only exact names of it do."""
    name = respelled(field, upper)
    value = 1 if field == "n" else value
    fields = {"model": "s", "messages": [{}], name: value}
    denying = Scenario(name="s", parameters=Parameters(deny=frozenset(denied), max_output_tokens=5))
    allowing = Scenario(
        name="s", parameters=Parameters(allow=frozenset({"model", "messages", *denied}), max_output_tokens=5)
    )
    body = json.dumps(fields).encode()
    if field == "n" and name != "n":
        with pytest.raises(InvalidRequest):
            read_chat_request(body, 10)
        return
    request = read_chat_request(body, 10)
    for scenario, refused in ((denying, field in denied), (allowing, name not in denied)):
        if refused:
            with pytest.raises(InvalidRequest) as caught:
                render(scenario, request)
            assert (caught.value.code, caught.value.param) == ("unsupported_field", name)
        else:
            assert name in render(scenario, request).fields
