"""Text completions read as chats, and chats told as text completions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from openai.types import Completion

from gateway.dialects.completions.answer import CompletionEvents, whole_completion
from gateway.dialects.completions.passing import PassedCompletion, can_pass
from gateway.dialects.completions.read import read_completion
from gateway.errors import InvalidRequest, UpstreamFailed
from gateway.model import Backend, ChatRequest, Origin

ORIGIN = Origin(scheme="http", host="h", port=80)
WITH = Backend(name="a", provider="openai", origin=ORIGIN, apis=frozenset({"completions"}))
WITHOUT = Backend(name="b", provider="openai", origin=ORIGIN)


def asked(**fields: Any) -> ChatRequest:
    """A request with these fields."""
    return read_completion(json.dumps({"model": "m", **fields}).encode(), 50)


def chat(request: ChatRequest) -> dict[str, Any]:
    """Its fields as a chat, decoded."""
    return {name: json.loads(bytes(raw)) for name, raw in request.fields.items()}


@pytest.mark.parametrize("prompt", ['Hi "there" [x]', ["Hi"], "é\n"])
def test_one_prompt_is_what_the_user_says(prompt: Any) -> None:
    """Alone in a list or not."""
    request = asked(prompt=prompt, temperature=1, logprobs=2)
    assert chat(request) == {
        "model": "m",
        "temperature": 1,
        "messages": [{"role": "user", "content": prompt if isinstance(prompt, str) else prompt[0]}],
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert request.native is not None
    assert request.native.beyond == ()


@pytest.mark.parametrize(
    ("fields", "texts", "beyond"),
    [
        ({"prompt": ["a", "b", "c"]}, 3, ("prompt",)),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 3}, 6, ("prompt", "best_of")),
        ({"prompt": [1, 2, 3]}, 1, ("prompt",)),
        ({"prompt": [[1, 2], [3]]}, 2, ("prompt",)),
        ({"prompt": "a", "n": 4}, 4, ()),
        ({"prompt": "a", "n": 4, "best_of": 4}, 4, ()),
        ({"prompt": "a", "echo": True, "suffix": "b"}, 1, ("echo", "suffix")),
        ({"prompt": "a", "echo": False, "suffix": None, "best_of": None, "logprobs": None}, 1, ()),
    ],
)
def test_what_may_be_made_and_what_no_chat_can(fields: dict[str, Any], texts: int, beyond: tuple[str, ...]) -> None:
    """So many texts are reserved for; a backend without Completions refuses the rest."""
    request = asked(**fields)
    assert request.choices == texts
    assert request.native is not None
    assert request.native.beyond == beyond
    assert can_pass(request, WITH)
    if "prompt" in beyond:
        with pytest.raises(InvalidRequest) as caught:
            can_pass(request, WITHOUT)
        assert caught.value.param == "prompt"
    else:
        assert not can_pass(request, WITHOUT)


def test_the_scenario_decides_of_what_passes() -> None:
    """What it sets is exchanged; what only a chat can say makes a chat of it."""
    request = asked(prompt="a", temperature=2, x=1, max_tokens=100)
    changed = replace(
        request, fields={**request.fields, "temperature": b"0.1", "top_p": b"1"}, output_limit=50, max_output_tokens=50
    )
    body = json.loads(PassedCompletion(changed, replace(WITH, model="real")).outgoing.body)
    assert body == {"model": "real", "prompt": "a", "temperature": 0.1, "x": 1, "max_tokens": 50, "top_p": 1}
    assert not can_pass(replace(request, fields={**request.fields, "response_format": b"{}"}), WITH)
    assert not can_pass(replace(request, fields={**request.fields, "messages": b"[]"}), WITH)


def test_usage_of_what_passes() -> None:
    """As it is reported, else by the texts."""
    call = PassedCompletion(asked(prompt="a"), WITH)
    body = b'{"choices":[{"text":"four"},{"text":"12345678"}]}'
    told, facts = call.whole(body)
    assert (told, facts.usage, facts.output_bytes) == (body, None, 12)


CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "H\u00e9"}, "finish_reason": None, "logprobs": None}]},
    {
        "choices": [
            {
                "index": 1,
                "delta": {"content": "llo"},
                "finish_reason": None,
                "logprobs": {"content": [{"token": "llo", "logprob": -1.5, "top_logprobs": []}]},
            }
        ]
    },
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
]


def stream() -> bytes:
    """A chat, streamed."""
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"".join(b"data: %b\n\n" % json.dumps(envelope | each).encode() for each in CHUNKS) + b"data: [DONE]\n\n"


def test_a_stream_is_the_same_wherever_it_is_cut() -> None:
    """And each of its events is one that the official client reads."""
    whole = stream()
    events = CompletionEvents(10_000)
    expected = events.feed(whole) + events.end()
    for cut in range(len(whole)):
        events = CompletionEvents(10_000)
        assert events.feed(whole[:cut]) + events.feed(whole[cut:]) + events.end() == expected
    *told, done, _ = expected.split(b"\n\n")
    assert done == b"data: [DONE]"
    read = [json.loads(each.removeprefix(b"data: ")) for each in told]
    assert [[choice["text"] for choice in each["choices"]] for each in read] == [["H\u00e9"], ["llo"], [""], []]
    assert read[1]["choices"][0]["logprobs"]["tokens"] == ["llo"]
    assert read[2]["choices"][0]["finish_reason"] == "stop"
    assert read[3]["usage"]["total_tokens"] == 3
    assert {each["id"] for each in read} == {"cmpl-1"}


def test_an_error_in_a_stream_is_told_as_it_is() -> None:
    """Errors look alike in both; what is no chunk ends it with one."""
    events = CompletionEvents(10_000)
    error = b'data: {"error":{"message":"x","type":"upstream_error","param":null,"code":"upstream_failed"}}\n\n'
    assert events.feed(error) == error
    assert b'"code":"upstream_failed"' in events.feed(b"data: nonsense\n\n")
    assert events.feed(stream()) == b""


def test_a_whole_answer() -> None:
    """One that the official types take; no text is an empty one."""
    choices = [
        {"index": 1, "message": {"role": "assistant", "content": None}, "finish_reason": None},
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "content_filter"},
    ]
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    told = Completion.model_validate_json(whole_completion(json.dumps(body).encode()), strict=True)
    assert [(each.text, each.finish_reason) for each in told.choices] == [("Hi", "content_filter"), ("", "stop")]
    with pytest.raises(UpstreamFailed):
        whole_completion(b"[]")
