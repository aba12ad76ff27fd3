"""Which fields a scenario takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.anthropic.read import read_messages_request
from gateway.dialects.openai.request import encode_chat_request, read_chat_request, read_scenario_request
from gateway.errors import InvalidRequest
from gateway.model import Backend, Parameters, Scenario
from gateway.registry.compile import compile_parameters
from gateway.registry.documents import Parameters as ParametersSpec
from gateway.scenarios import render


def scenario(**spec: Any) -> Scenario:
    """A scenario whose parameters are these of a document."""
    return Scenario(name="s", parameters=compile_parameters(ParametersSpec(**spec)))


def outcome(of: Scenario, **fields: Any) -> tuple[str, str | None] | None:
    """Code and param of the refusal of a request with these fields; None where it passes."""
    body = {"model": "s", "messages": [{"role": "user", "content": "hi"}]} | fields
    try:
        render(of, read_chat_request(json.dumps(body).encode(), 100))
    except InvalidRequest as error:
        return error.code, error.param
    return None


@pytest.mark.parametrize("name", ["tools", "Tools", "TOOLS", "tool\u017f"])
def test_a_denied_field(name: str) -> None:
    """It is refused in every spelling that a server might read it in, and named as it was written."""
    assert outcome(scenario(deny=["tools"]), **{name: []}) == ("unsupported_field", name)


def test_what_is_not_denied_passes() -> None:
    """Other fields, and a null, which says nothing."""
    denying = scenario(deny=["tools", "n", "response_format"])
    assert outcome(denying, tools=None, temperature=1, toolsy=1) is None
    assert outcome(denying, n=1) == ("unsupported_field", "n")


def test_an_allow_list() -> None:
    """Only its fields pass, in their spelling, and those that every request may have."""
    allowing = scenario(allow=["temperature", "stop"])
    always: dict[str, Any] = {"stream": True, "stream_options": {}, "max_tokens": 5, "max_completion_tokens": 5}
    assert outcome(allowing, temperature=1, stop="x", **always) is None
    for name in ("Temperature", "top_p", "user", "metadata"):
        assert outcome(allowing, **{name: {}})[1] == name  # type: ignore[index]
    assert outcome(scenario(allow=[]), seed=1) == ("unsupported_field", "seed")


def test_an_allow_list_and_a_call_by_name() -> None:
    """What such a call is made of need not be listed."""
    allowing = scenario(allow=["temperature"])
    request = read_scenario_request(b'{"input":"hi","variables":{},"temperature":1,"stream":true}', 100, "s")
    assert set(render(allowing, request).fields) == {"messages", "temperature", "stream"}


def test_a_field_may_be_denied_and_set() -> None:
    """What the scenario itself sets is not the caller's: it is sent although callers must not send it."""
    setting = scenario(deny=["seed"], overrides={"seed": 7}, allow=[])
    assert outcome(setting, seed=1) == ("unsupported_field", "seed")
    request = read_chat_request(b'{"model":"s","messages":[{}]}', 100)
    assert bytes(render(setting, request).fields["seed"]) == b"7"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 2, 0.5, None], [-0.1, 2.1, "1", True]),
        ("top_p", [0, 1], [1.1, []]),
        ("presence_penalty", [-2, 2], [2.5]),
        ("frequency_penalty", [-2, 2], [-2.5]),
        ("seed", [1, -5], [1.5, "1"]),
        ("stop", ["x", ["a", "b", "c", "d"], []], [["a"] * 5, 1, [1], "x" * 70_000]),
        ("logprobs", [True], [1]),
        ("top_logprobs", [0, 20], [21, -1]),
        ("logit_bias", [{"5": -100}], [{"5": 101}, {"5": "x"}, []]),
        ("top_k", [-1, 50], [-2, 1.5]),
        ("min_p", [0, 1], [2]),
        ("repetition_penalty", [0.1, 1.5], [0]),
        ("other", [{"x": 1}], []),
    ],
)
def test_checked_sampling(name: str, good: list[Any], bad: list[Any]) -> None:
    """Where a scenario asks for it, each sampling field is held to its type and range; elsewhere it passes."""
    checking, passing = scenario(checkSampling=True), scenario(overrides={"user": "x"})
    assert [outcome(checking, **{name: value}) for value in good] == [None] * len(good)
    assert [outcome(checking, **{name: value}) for value in bad] == [("invalid_value", name)] * len(bad)
    assert [outcome(passing, **{name: value}) for value in bad] == [None] * len(bad)


def test_nothing_set_is_the_constant() -> None:
    """A document without parameters compiles to the very value that costs a request one comparison."""
    assert scenario().parameters is Scenario(name="t").parameters
    assert scenario(deny=["n"]).parameters == Parameters(deny=frozenset({"n"}))


def test_what_a_backend_does_not_take() -> None:
    """Fields that a backend does not take are left out of what it is sent, in every spelling, and of nothing else."""
    body = b'{"model":"s","messages":[{}],"top_k":5,"Min_P":0,"temperature":1,"stream":true}'
    request = read_chat_request(body, 100)
    plain = Backend(name="b", provider="openai", origin=None)
    limited = Backend(
        name="b", provider="openai", origin=None, unsupported_fields=frozenset({"top_k", "min_p", "response_format"})
    )
    assert {"top_k", "Min_P", "temperature"} <= json.loads(encode_chat_request(request, plain)).keys()
    assert json.loads(encode_chat_request(request, limited)).keys() == {
        "model", "messages", "temperature", "stream", "stream_options"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "fields", "param"),
    [
        ({"deny": ["thinking"]}, {"thinking": {"type": "adaptive"}}, "thinking"),
        ({"deny": ["reasoning_effort"]}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "reasoning_effort"),
        ({"deny": ["mcp_servers"]}, {"mcp_servers": [{}]}, "mcp_servers"),
        ({"allow": ["temperature"]}, {"mcp_servers": [{}]}, "mcp_servers"),
        ({"allow": ["temperature"]}, {"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools.0"),
        ({"allow": ["temperature"]}, {"stop_sequences": ["a"]}, "stop"),
        ({"allow": ["mcp_servers", "stop"]}, {"mcp_servers": [{}], "stop_sequences": ["a"], "system": "s"}, None),
        ({"deny": ["temperature"]}, {"mcp_servers": [{}], "system": "s"}, None),
    ],
)
def test_callers_of_messages(spec: dict[str, Any], fields: dict[str, Any], param: str | None) -> None:
    """What only their dialect has is governed by its name, too: none of it passes unseen to a backend that has it."""
    body = {"model": "s", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]} | fields
    request = read_messages_request(json.dumps(body).encode(), 100)
    if param is None:
        render(scenario(**spec), request)
        return
    with pytest.raises(InvalidRequest) as caught:
        render(scenario(**spec), request)
    assert (caught.value.code, caught.value.param) == ("unsupported_field", param)
