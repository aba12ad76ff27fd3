"""Chat requests as requests of Converse: each is one that AWS's model of the service allows, and says the same."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.bedrock.translation import ConverseTranslation
from gateway.dialects.openai.request import read_chat_request
from gateway.errors import InvalidRequest
from gateway.model import Backend, BedrockOptions, Origin
from tests.support.bedrock import allowed

PNG = "data:image/png;base64,iVBORw0KGgo="
TEXTS = st.text('aé"\\\n {}', max_size=6)
IDS = st.sampled_from(["call_1", "toolu_01-x.y:z", "an id/with what is not taken", "x" * 70])
MODEL = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/a.b-c:0"
MARK = st.sampled_from([None, {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}])


def backend(**fields: Any) -> Backend:
    """One with a model whose name has to be escaped."""
    origin = Origin(scheme="https", host="bedrock-runtime.eu-west-1.amazonaws.com", port=443)
    return Backend(name="b", provider="bedrock", origin=origin, model=MODEL, max_output_tokens=500, **fields)


def translated(fields: dict[str, Any], *, lenient: bool = False, **of_backend: Any) -> tuple[dict[str, Any], Any]:
    """The body that is sent, which the service allows, and the call."""
    request = read_chat_request(json.dumps({"model": "m"} | fields).encode(), 64)
    request = msgspec.structs.replace(request, lenient=lenient)
    call = ConverseTranslation(request, backend(**of_backend))
    body = json.loads(call.outgoing.body)
    _, _, model, operation = call.outgoing.path.split("/")
    shape = "ConverseStreamRequest" if operation == "converse-stream" else "ConverseRequest"
    allowed(shape, body | {"modelId": unquote(model)})
    assert unquote(model) == MODEL
    return body, call


def said(body: dict[str, Any], name: str) -> list[Any]:
    """The blocks of one kind, in order."""
    return [block[name] for turn in body["messages"] for block in turn["content"] if name in block]


@st.composite
def messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation in any order of roles, with parts of several kinds."""
    parts = st.one_of(
        st.builds(lambda t, m: {"type": "text", "text": t, "cache_control": m}, TEXTS, MARK),
        st.just({"type": "image_url", "image_url": {"url": PNG}}),
    )
    found: list[dict[str, Any]] = []
    for role in draw(st.lists(st.sampled_from(["system", "developer", "user", "assistant", "tool"]), max_size=7)):
        message: dict[str, Any] = {"role": role, "content": draw(TEXTS)}
        if role in {"user", "tool"} and draw(st.booleans()):
            message["content"] = draw(st.lists(parts, max_size=3))
        if role == "tool":
            message |= {"tool_call_id": draw(IDS), "is_error": draw(st.booleans())}
        if role == "assistant" and draw(st.booleans()):
            arguments = json.dumps(draw(st.dictionaries(TEXTS, TEXTS, max_size=2)))
            function = {"name": "now", "arguments": arguments}
            message["tool_calls"] = [{"id": draw(IDS), "type": "function", "function": function}]
            message["thinking_blocks"] = [{"type": "thinking", "thinking": draw(TEXTS), "signature": "s"}]
        found.append(message)
    return [*found, {"role": "user", "content": "and now?"}]


def texts_of(message: dict[str, Any]) -> list[str]:
    """The texts of a message that say anything."""
    content = message["content"]
    parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    return [text for text in parts if text]


@settings(max_examples=60)
@given(messages())
def test_a_conversation_says_the_same(given_messages: list[dict[str, Any]]) -> None:
    """Each text once and in order, instructions before all; sides alternate; a call and its result share their id."""
    tools = [{"type": "function", "function": {"name": "now"}}]
    body, _ = translated({"messages": given_messages, "tools": tools})
    roles = [turn["role"] for turn in body["messages"]]
    assert all(one != other for one, other in itertools.pairwise(roles))
    by_role: dict[str, list[str]] = {}
    for message in given_messages:
        by_role.setdefault(message["role"], []).extend(texts_of(message))
    instructions = [
        text for each in given_messages if each["role"] in {"system", "developer"} for text in texts_of(each)
    ]
    assert [block["text"] for block in body.get("system", []) if "text" in block] == instructions
    for role in ("user", "assistant"):
        turns = [turn for turn in body["messages"] if turn["role"] == role]
        assert said({"messages": turns}, "text") == by_role.get(role, [])
    results = said(body, "toolResult")
    assert [block["text"] for each in results for block in each["content"] if "text" in block] == by_role.get(
        "tool", []
    )
    wanted = [each for each in given_messages if each["role"] == "tool"]
    assert [each.get("status") == "error" for each in results] == [each["is_error"] for each in wanted]
    calls = [call for each in given_messages for call in each.get("tool_calls", [])]
    assert [use["input"] for use in said(body, "toolUse")] == [json.loads(c["function"]["arguments"]) for c in calls]
    renamed = dict(zip([c["id"] for c in calls], [use["toolUseId"] for use in said(body, "toolUse")], strict=True))
    for each, result in zip(wanted, results, strict=True):
        assert renamed.get(each["tool_call_id"], result["toolUseId"]) == result["toolUseId"]


def test_limits_of_the_output_are_the_least_of_all() -> None:
    """Of the request, a budget and the backend; a budget's holds where the request has none."""
    hello = [{"role": "user", "content": "Hi"}]
    assert translated({"messages": hello})[0].keys() == {"messages"}
    assert translated({"messages": hello, "max_tokens": 9999})[0]["inferenceConfig"] == {"maxTokens": 500}
    assert translated({"messages": hello, "max_completion_tokens": 7, "max_tokens": 5})[0]["inferenceConfig"] == {
        "maxTokens": 7
    }
    request = read_chat_request(json.dumps({"model": "m", "messages": hello}).encode(), 64)
    request = msgspec.structs.replace(request, output_limit=3)
    assert json.loads(ConverseTranslation(request, backend()).outgoing.body)["inferenceConfig"] == {"maxTokens": 3}


def test_only_fields_that_the_registry_names_go_beyond_converse() -> None:
    """As they were given, whatever they hold; another one is refused."""
    fields = {"messages": [{"role": "user", "content": "Hi"}], "top_k": 5, "thinking": {"type": "adaptive"}}
    body, _ = translated(fields, bedrock=BedrockOptions(model_fields=("thinking", "top_k", "other")))
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "adaptive"}, "top_k": 5}
    with pytest.raises(InvalidRequest) as refused:
        translated(fields, bedrock=BedrockOptions(model_fields=("top_k",)))
    assert refused.value.param == "thinking"
    body, call = translated(fields, lenient=True, bedrock=BedrockOptions(model_fields=("top_k",)))
    assert call.outgoing.dropped == ("thinking",)
    body, call = translated(fields, unsupported_fields=frozenset({"top_k", "thinking"}))
    assert call.outgoing.dropped == ()


def test_a_guardrail_goes_with_every_request() -> None:
    """Whole or as a stream, whatever is asked."""
    options = BedrockOptions(guardrail=("gr0123456789", "DRAFT"))
    for more in ({}, {"stream": True}):
        body, _ = translated({"messages": [{"role": "user", "content": "Hi"}]} | more, bedrock=options)
        assert body["guardrailConfig"] == {"guardrailIdentifier": "gr0123456789", "guardrailVersion": "DRAFT"}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "name": "Bob"}, "messages[0].name"),
        ({"role": "system", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}, "messages[0].content[0]"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "content": None, "function_call": {"name": "a"}}, "messages[0].function_call"),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "aaaa", "format": "midi"}}]},
            "messages[0].content[0].input_audio.format",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "forever"}}]},
            "messages[0].content[0].cache_control",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:application/zip;base64,aaaa"}}]},
            "messages[0].content[0].file.file_data",
        ),
    ],
)
def test_what_no_turn_can_say_is_refused_by_its_place(message: dict[str, Any], param: str) -> None:
    """With the path that leads to it."""
    with pytest.raises(InvalidRequest) as refused:
        translated({"messages": [message]})
    assert refused.value.param == param


@pytest.mark.parametrize("arguments", ["[]", "{", "1", '{"a":1} x'])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    """The service takes nothing else; a call without any has an empty one."""
    function = {"name": "now", "arguments": arguments}
    call = {"id": "a", "type": "function", "function": function}
    with pytest.raises(InvalidRequest) as refused:
        translated({"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert refused.value.param == "messages[0].tool_calls[0].function.arguments"


def test_sound_goes_along_but_not_as_a_tools_result() -> None:
    """As a block of its own kind."""
    part = {"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}}
    body, _ = translated({"messages": [{"role": "user", "content": [part]}]})
    assert said(body, "audio") == [{"format": "wav", "source": {"bytes": "aaaa"}}]
    with pytest.raises(InvalidRequest) as refused:
        translated({"messages": [{"role": "tool", "tool_call_id": "a", "content": [part]}]})
    assert refused.value.param == "messages[0].content"


def test_a_tool_whose_name_the_service_does_not_take_is_refused() -> None:
    """Here, by its place."""
    tools = [{"type": "function", "function": {"name": "a.b"}}]
    with pytest.raises(InvalidRequest) as refused:
        translated({"messages": [{"role": "user", "content": "x"}], "tools": tools})
    assert refused.value.param == "tools[0].function.name"
