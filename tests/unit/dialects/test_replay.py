"""A kept answer told again: as a body, and as a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.openai.replay import NotPlain, check_plain, events_of, whole_of
from tests.support.scripts import Chat, Tokens, event

TEXT = ("Hello", " from", ' a \u00fcnit\n"test"')
CHAT = Chat(pieces=TEXT, usage=Tokens(prompt=7, completion=5, cached=2))


def stream(*deltas: dict[str, Any], finish: str | None = "stop", done: bool = True, **more: Any) -> bytes:
    """A stream of these deltas."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    parts = [
        event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None} | more]}) for delta in deltas
    ]
    parts.append(event(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def body(message: dict[str, Any], finish: str = "stop", choices: int = 1) -> bytes:
    """A whole completion."""
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"id": "c1", "object": "chat.completion", "choices": [choice] * choices}).encode()


def payloads(events: bytes) -> list[Any]:
    """The chunks of a stream that ends as it should."""
    *parts, last, rest = events.split(b"\n\n")
    assert (last, rest) == (b"data: [DONE]", b"")
    return [json.loads(part.removeprefix(b"data: ")) for part in parts]


def test_a_stream_and_a_whole_answer_amount_to_the_same() -> None:
    """Id, time, model, text, end and usage."""
    events = b"".join(CHAT.events("m", with_usage=True))
    assert json.loads(whole_of(events)) == json.loads(CHAT.body("m"))


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_line_ends_and_comments_make_no_difference(line_end: bytes) -> None:
    """Servers differ in them."""
    events = b": a comment\n\n" + b"".join(CHAT.events("m"))
    assert whole_of(events.replace(b"\n", line_end)) == whole_of(events)


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_body_is_told_as_a_stream(include_usage: bool) -> None:
    """Usage comes where it was asked for, as the last chunk and without choices."""
    chunks = payloads(events_of(CHAT.body("m"), include_usage=include_usage))
    texts = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts) == "".join(TEXT)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        (CHAT.reply_id, "chat.completion.chunk", 1760000000, "m")
    }
    with_usage = [chunk["usage"] for chunk in chunks if "usage" in chunk]
    assert with_usage == ([Tokens(prompt=7, completion=5, cached=2).as_json()] if include_usage else [])
    ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert ends == [None] * (len(ends) - 1) + ["stop"]


def test_a_long_text_comes_in_events_of_a_bounded_size() -> None:
    """Some clients read lines into a buffer."""
    text = "wörter " * 5000
    events = events_of(body({"role": "assistant", "content": text}), include_usage=False)
    assert max(map(len, events.split(b"\n\n"))) < 10_000
    assert json.loads(whole_of(events))["choices"][0]["message"]["content"] == text


def test_reasoning_refusals_and_log_probabilities_survive_both_ways() -> None:
    """They are parts of what was said."""
    logprobs = {"content": [{"token": "a", "logprob": -0.1}]}
    events = stream({"role": "assistant", "reasoning_content": "hm"}, {"content": "a"}, logprobs=logprobs)
    whole = json.loads(whole_of(events))
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert choice["logprobs"] == {"content": logprobs["content"] * 2}
    assert json.loads(whole_of(events_of(json.dumps(whole).encode(), include_usage=True))) == whole


TOOL = [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    "events",
    [
        stream({"content": "a"}, finish="length"),
        stream({"content": "a"}, finish="content_filter"),
        stream({"content": "a"}, finish=None),
        stream({"content": "a"}, done=False),
        stream({"content": "a"})[:-20],
        stream({"content": "a"}, {"tool_calls": TOOL}),
        stream({"content": "a", "function_call": {"name": "f"}}),
        stream({"content": "a", "audio": {"id": "x"}}),
        stream({"content": "a"}, index=1),
        stream({"content": [{"type": "text"}]}),
        b"data: {}\n\n" + event({"error": {"message": "no"}}) + b"data: [DONE]\n\n",
        b"data: garbage\n\ndata: [DONE]\n\n",
        b"data: [DONE]\n\n",
        b"",
    ],
)
def test_a_stream_that_is_more_or_less_than_a_plain_answer_is_not_kept(events: bytes) -> None:
    """Cut, filtered, broken off, tools, other media, several choices, errors, nonsense."""
    with pytest.raises(NotPlain):
        whole_of(events)


@pytest.mark.parametrize(
    "content",
    [
        body({"role": "assistant", "content": "a"}, finish="length"),
        body({"role": "assistant", "content": "a"}, finish="content_filter"),
        body({"role": "assistant", "content": "a", "tool_calls": TOOL}),
        body({"role": "assistant", "content": "a"}, finish="tool_calls"),
        body({"role": "assistant", "content": None}),
        body({"role": "assistant", "content": "a", "audio": {"id": "x"}}),
        body({"role": "assistant", "content": "a"}, choices=2),
        body({"role": "assistant", "content": "a"}, choices=0),
        b'{"choices": null}',
        b"[]",
        b"garbage",
        b"",
    ],
)
def test_a_body_that_is_more_or_less_than_a_plain_answer_is_not_kept(content: bytes) -> None:
    """By the same rule."""
    with pytest.raises(NotPlain):
        check_plain(content)


def test_empty_members_do_no_harm() -> None:
    """Servers write out what a message does not have."""
    check_plain(body({"role": "assistant", "content": "a", "tool_calls": [], "refusal": None, "annotations": []}))
    whole_of(stream({"role": "assistant", "content": None, "tool_calls": None}, {"content": "a"}))
