"""Random streams of chats, told as events of Messages: whatever comes, and however it is cut."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic.stream_out import MessagesEvents
from tests.support.messages_stream import accumulated, events_of
from tests.support.scripts import DONE, event

TEXT = st.text(min_size=1, max_size=6)
ARGUMENTS = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(0, 9), st.lists(TEXT, max_size=2)), max_size=3)


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[dict[str, Any]], str, str, list[dict[str, Any]]]:
    """The deltas of a stream whose pieces of several calls are mixed, and what they say: reasoning, text, calls."""
    calls = draw(st.lists(ARGUMENTS, max_size=3))
    cut: list[list[dict[str, Any]]] = []
    for index, arguments in enumerate(calls):
        text = json.dumps(arguments)
        points = sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=4)))
        pieces = [text[start:end] for start, end in zip([0, *points], [*points, len(text)], strict=True)]
        begun: dict[str, Any] = {"index": index, "id": f"call_{index}", "function": {"name": "f", "arguments": ""}}
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        cut.append([{"tool_calls": [piece]} for piece in (begun, *rest)])
    thoughts = draw(st.lists(TEXT, max_size=3))
    said = draw(st.lists(TEXT, max_size=3))
    cut.append([{"reasoning_content": each} for each in thoughts])
    cut.append([{"content": each} for each in said])
    deltas: list[dict[str, Any]] = []
    while any(cut):
        place = draw(st.sampled_from([place for place, left in enumerate(cut) if left]))
        deltas.append(cut[place].pop(0))
    return deltas, "".join(thoughts), "".join(said), calls


def stream_of(deltas: list[dict[str, Any]]) -> bytes:
    """The bytes of a chat's stream."""
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return b"".join([*(event(envelope | {"choices": [choice]}) + b": alive\n\n" for choice in choices), DONE])


@given(plans())
def test_the_client_reads_what_was_said(plan: tuple[list[dict[str, Any]], str, str, list[dict[str, Any]]]) -> None:
    """No order of events that the official client refuses; reasoning, text and every call arrive whole, once."""
    deltas, thoughts, said, calls = plan
    stream = MessagesEvents("r", frozenset())
    message = accumulated(events_of(stream.feed(stream_of(deltas)) + stream.end()))
    assert "".join(block.thinking for block in message.content if block.type == "thinking") == thoughts
    assert "".join(block.text for block in message.content if block.type == "text") == said
    uses = [block for block in message.content if block.type == "tool_use"]
    assert {use.id: use.input for use in uses} == {f"call_{index}": each for index, each in enumerate(calls)}
    assert len(uses) == len(calls)


@given(plans())
def test_every_split_tells_the_same(plan: tuple[list[dict[str, Any]], str, str, list[dict[str, Any]]]) -> None:
    """Cut at any byte, the events are the same."""
    data = stream_of(plan[0])
    whole = MessagesEvents("r", frozenset())
    wanted = whole.feed(data) + whole.end()
    for at in range(0, len(data), max(len(data) // 97, 1)):
        cut = MessagesEvents("r", frozenset())
        assert cut.feed(data[:at]) + cut.feed(data[at:]) + cut.end() == wanted
    dripped = MessagesEvents("r", frozenset())
    assert b"".join(dripped.feed(data[at : at + 1]) for at in range(len(data))) + dripped.end() == wanted
