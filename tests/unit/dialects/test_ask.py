"""A chat request, read for a backend of another dialect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.dialects import form
from gateway.dialects.ask import Ask, beyond_chat
from gateway.dialects.openai.request import read_chat_request
from gateway.errors import InvalidRequest
from gateway.model import Backend, Native, Origin

BACKEND = Backend(name="b", provider="openai", origin=Origin(scheme="http", host="h", port=1), max_output_tokens=100)
HELLO = [{"role": "user", "content": "hello"}]


def ask(*, lenient: bool = False, output_limit: int | None = None, backend: Backend = BACKEND, **fields: Any) -> Ask:
    """A request with these fields."""
    body = msgspec.json.encode({"model": "m", "messages": HELLO} | fields)
    request = msgspec.structs.replace(read_chat_request(body, 64), lenient=lenient, output_limit=output_limit)
    return Ask(request, backend)


def test_fields_are_taken_by_name() -> None:
    """Each as what it is; null is as good as absent."""
    asked = ask(temperature=1, seed=7, stop="END", top_p=None, parallel_tool_calls=False)
    assert asked.messages() == [form.Message(role="user", content="hello")]
    assert (asked.number("temperature"), asked.integer("seed"), asked.stop()) == (1.0, 7, ["END"])
    assert (asked.number("top_p"), asked.boolean("parallel_tool_calls")) == (None, False)
    assert asked.done() == ()


def test_what_nobody_took_is_refused_by_name() -> None:
    """Unless it says nothing to a model."""
    with pytest.raises(InvalidRequest, match="`logit_bias` cannot be used") as caught:
        ask(user="u", metadata={"a": "b"}, logit_bias={"1": 2}).done()
    assert (caught.value.param, caught.value.code) == ("logit_bias", "unsupported_field")


def test_a_lenient_scenario_leaves_it_out_and_says_so() -> None:
    """Also further answers."""
    assert ask(lenient=True, logit_bias={"1": 2}, n=2).done() == ("n", "logit_bias")


def test_values_that_ask_for_nothing_are_taken() -> None:
    """Clients send them, and no backend has to know them."""
    neutral: dict[str, Any] = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "logprobs": False,
        "tools": [],
    }
    assert ask(**neutral, modalities=["text"], n=1).done() == ()
    with pytest.raises(InvalidRequest, match="`presence_penalty` cannot be used"):
        ask(presence_penalty=0.5).done()


def test_a_backend_may_say_what_it_does_not_take() -> None:
    """Such a field is not there for it."""
    backend = msgspec.structs.replace(BACKEND, unsupported_fields=frozenset({"logit_bias"}))
    assert ask(backend=backend, logit_bias={"1": 2}).done() == ()


@pytest.mark.parametrize(
    ("asked", "limit", "sent"), [(None, None, None), (50, None, 50), (500, None, 100), (50, 20, 20), (None, 500, 100)]
)
def test_the_output_limit_is_the_lowest_of_all(asked: int | None, limit: int | None, sent: int | None) -> None:
    """Of the request, of a budget, of the backend."""
    assert ask(max_tokens=asked, output_limit=limit).max_tokens == sent


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "url": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "a", "weight": 0}]}, "messages[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict[str, Any], param: str) -> None:
    """By its place."""
    asked = ask(**fields)
    with pytest.raises(InvalidRequest) as caught:
        _ = (asked.messages(), asked.tools(), asked.tool_choice(), asked.answer_format(), asked.number("temperature"))
    assert (caught.value.param or "").startswith(param)


def test_what_chat_has_no_place_for_is_refused_by_the_name_its_caller_knows() -> None:
    """Where the request does not pass through; a lenient scenario leaves it out."""
    native = Native(dialect="responses", fields={}, chat={}, beyond=("truncation",))
    request = msgspec.structs.replace(ask().request, native=native)
    with pytest.raises(InvalidRequest) as caught:
        beyond_chat(request)
    assert caught.value.param == "truncation"
    assert beyond_chat(msgspec.structs.replace(request, lenient=True)) == ("truncation",)
    assert beyond_chat(ask().request) == ()
