"""Chat requests as ``generateContent``: what becomes of each thing that may be said."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.dialects.gemini.request import translate
from gateway.errors import InvalidRequest
from gateway.model import Backend, ChatRequest, Origin
from tests.support.gemini import GenerateContentRequest

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def ask(model: str = "gemini-3-flash", *, lenient: bool = False, stream: bool = False, **fields: Any) -> Any:
    """The call that a request with these fields becomes."""
    backend = Backend(
        name="g",
        provider="gemini",
        origin=Origin(scheme="https", host="h", port=443),
        model=model,
        max_output_tokens=100,
        file_uris=("gs://shared/",),
    )
    said = {"messages": [USER]} | fields
    raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in said.items()}
    request = ChatRequest(
        model="chat",
        fields=raw,
        stream=stream,
        lenient=lenient,
        max_output_tokens=fields.get("max_tokens"),
        choices=fields.get("n", 1),
    )
    return translate(request, backend)


def body(model: str = "gemini-3-flash", **fields: Any) -> Any:
    """The body that is sent; always one that the provider's schema allows."""
    sent = ask(model, **fields).outgoing.body
    GenerateContentRequest.model_validate_json(sent)
    return json.loads(sent)


def refused(**fields: Any) -> InvalidRequest:
    """The refusal of a request; the same request passes without the field where the scenario is lenient."""
    with pytest.raises(InvalidRequest) as caught:
        ask(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-3-flash", False, "/models/gemini-3-flash:generateContent"),
        ("gemini-3-flash", True, "/models/gemini-3-flash:streamGenerateContent?alt=sse"),
        ("gemini-2.0@001", False, "/models/gemini-2.0@001:generateContent"),
        ("tunedModels/mine", False, "/tunedModels/mine:generateContent"),
        ("a b?c#d", False, "/models/a%20b%3Fc%23d:generateContent"),
    ],
)
def test_the_model_is_in_the_path(model: str, stream: bool, path: str) -> None:
    """Whatever its name, it is one part of it and no query."""
    assert ask(model, stream=stream).outgoing.path == path


def test_nothing_more_is_said_than_was_asked() -> None:
    """A question is a turn and nothing else."""
    assert body() == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    assert body(stop=[], tools=[], tool_choice="auto", response_format={"type": "text"}, logprobs=False) == body()
    assert body(user="x", metadata={"a": "b"}, store=True, modalities=["text"], parallel_tool_calls=True) == body()


def test_the_output_limit_is_never_above_the_backends() -> None:
    """Thoughts count into it, as with the limit of chat completions."""
    assert body(max_tokens=50)["generationConfig"] == {"maxOutputTokens": 50}
    assert body(max_tokens=500)["generationConfig"] == {"maxOutputTokens": 100}


@pytest.mark.parametrize(
    ("model", "fields", "config"),
    [
        ("gemini-3-pro", {"reasoning_effort": "high"}, {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-3-pro", {"reasoning_effort": "none"}, {"thinkingLevel": "MINIMAL"}),
        ("gemini-flash-latest", {"reasoning_effort": "xhigh"}, {"includeThoughts": True, "thinkingLevel": "XHIGH"}),
        ("gemini-2.5-pro", {"reasoning_effort": "medium"}, {"includeThoughts": True, "thinkingBudget": 8192}),
        ("gemini-2.5-pro", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-25", {"reasoning_effort": "low"}, {"includeThoughts": True, "thinkingLevel": "LOW"}),
        (
            "gemini-2.5-pro",
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "reasoning_effort": "low"},
            {"includeThoughts": True, "thinkingBudget": 2000},
        ),
        (
            "gemini-3-pro",
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "reasoning_effort": "low"},
            {"includeThoughts": True, "thinkingLevel": "LOW"},
        ),
        ("gemini-3-pro", {"thinking": {"type": "disabled"}}, {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-pro", {"thinking": {"type": "adaptive"}}, {"includeThoughts": True}),
        (
            "gemini-2.5-pro",
            {"extra_body": {"google": {"thinking_config": {"thinking_budget": -1, "include_thoughts": False}}}},
            {"includeThoughts": False, "thinkingBudget": -1},
        ),
        (
            "gemini-3-pro",
            {"extra_body": {"google": {"thinking_config": {"thinking_level": "low"}}}},
            {"thinkingLevel": "LOW"},
        ),
    ],
)
def test_how_much_is_thought(model: str, fields: dict[str, Any], config: dict[str, Any]) -> None:
    """In levels since Gemini 3, in tokens before; the most exact field counts."""
    assert body(model, **fields)["generationConfig"] == {"thinkingConfig": config}


def test_efforts_that_a_generation_does_not_know() -> None:
    """Are named."""
    assert refused(model="gemini-2.5-pro", reasoning_effort="xhigh").param == "reasoning_effort"
    assert refused(thinking={"type": "enabled", "budget_tokens": 0}).param == "thinking.budget_tokens"
    assert refused(thinking={"type": "hard"}).param == "thinking"


def test_strict_functions_are_validated() -> None:
    """Where the model decides whether to call; where it must, it always is."""
    strict = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}
    assert body(tools=[strict])["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert body(tools=[strict], tool_choice="required")["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert body(tools=[{"type": "function", "function": {"name": "f", "parameters": None}}])["tools"] == [
        {"functionDeclarations": [{"name": "f"}]}
    ]


def test_results_of_functions() -> None:
    """An object as it is, other texts as output, a failure as one, pictures beside it."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

    def result(content: Any, **more: Any) -> Any:
        said: list[Any] = [USER, {"role": "assistant", "tool_calls": [CALL]}]
        sent = body(messages=[*said, {"role": "tool", "tool_call_id": "c1", "content": content} | more])
        return sent["contents"][2]["parts"][0]["functionResponse"]

    named = {"id": "c1", "name": "f"}
    assert result('{"a": [1]}') == named | {"response": {"a": [1]}}
    assert result("[1]") == named | {"response": {"output": "[1]"}}
    assert result("") == named | {"response": {"output": ""}}
    assert result("no", is_error=True) == named | {"response": {"error": "no"}}
    text = {"type": "text", "text": "seen"}
    assert result([text, text, picture]) == named | {
        "response": {"output": "seen\nseen"},
        "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}],
    }


def test_what_an_answer_held_goes_back_without_what_says_nothing() -> None:
    """Refusals are said, thoughts and annotations are not, and an answer that was empty is no turn."""
    said: dict[str, Any] = {
        "role": "assistant",
        "content": None,
        "refusal": "No.",
        "annotations": [],
        "reasoning_content": "Hm.",
    }
    assert body(messages=[USER, said, USER])["contents"][1] == {"role": "model", "parts": [{"text": "No."}]}
    empty = {"role": "assistant", "content": ""}
    assert body(messages=[USER, empty, USER])["contents"] == [{"role": "user", "parts": [{"text": "Hi"}] * 2}]
    parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    several = {"role": "assistant", "content": parts}
    assert body(messages=[USER, several])["contents"][1]["parts"] == [{"text": "a"}, {"text": "b"}]


def test_signatures_go_where_they_came_from() -> None:
    """That of a text to the last text, that of a call to the call; a text that was empty is one again."""
    signed = {"google": {"thought_signature": "QUJD"}}
    text = {"role": "assistant", "content": "a", "extra_content": signed}
    assert body(messages=[USER, text])["contents"][1]["parts"] == [{"text": "a", "thoughtSignature": "QUJD"}]
    nothing = {"role": "assistant", "content": None, "extra_content": signed}
    assert body(messages=[USER, nothing])["contents"][1]["parts"] == [{"text": "", "thoughtSignature": "QUJD"}]
    call = {"role": "assistant", "tool_calls": [CALL | {"extra_content": signed}, CALL | {"extra_content": None}]}
    parts = body(messages=[USER, call])["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["QUJD", None]
    other = {"role": "assistant", "content": "a", "extra_content": {"other": 1}}
    assert body(messages=[USER, other])["contents"][1]["parts"] == [{"text": "a"}]
    wrong = {"role": "assistant", "content": "a", "extra_content": {"google": 1}}
    assert refused(messages=[USER, wrong]).param == "messages[1].extra_content"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {"1": 2}),
        ("parallel_tool_calls", False),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {"search_context_size": "low"}),
        ("messages", [{"role": "user", "content": "Hi", "name": "Bo"}]),
        ("messages", [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]),
    ],
)
def test_what_it_cannot_do_is_refused_or_left_out(field: str, value: Any) -> None:
    """By name; a lenient scenario notes it."""
    param = refused(**{field: value}).param
    assert param is not None
    assert param.startswith(field)
    assert ask(lenient=True, **{field: value}).outgoing.dropped == (param,)


def test_schemas_leave_as_they_came() -> None:
    """JSON Schema is JSON Schema on both sides."""
    schema = {
        "type": "object",
        "properties": {"a": {"anyOf": [{"$ref": "#/$defs/x"}, {"const": 1}]}},
        "$defs": {"x": {}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert body(response_format=wanted)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
