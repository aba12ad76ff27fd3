"""A conversation in Messages keeps its meaning through the form of a chat and back, and so does an answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.anthropic.provider import TranslatedCall
from gateway.dialects.anthropic.read import read_messages_request
from gateway.dialects.anthropic.stream_in import MessagesTranslator
from gateway.dialects.anthropic.stream_out import MessagesEvents
from gateway.dialects.anthropic.tell import whole_message
from gateway.dialects.openai.stream import ChatStream
from gateway.model import Backend, Origin
from tests.support.anthropic_api import NEW_MODEL, events_of, message, sse, violations

BACKEND = Backend(name="b", provider="anthropic", origin=Origin(scheme="http", host="h", port=1), model=NEW_MODEL)

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z")), min_size=1, max_size=12).filter(
    str.strip
)
WORD = st.text("abcXYZ019_-", min_size=1, max_size=12)
VALUE = st.recursive(st.none() | st.booleans() | st.integers(-99, 99) | TEXT, lambda inner: st.lists(inner, max_size=2))
INPUT = st.dictionaries(WORD, VALUE, max_size=3)
MARKED = st.sampled_from([{}, {}, {"cache_control": {"type": "ephemeral"}}])
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
URL = {"type": "url", "url": "https://example.org/a"}

text_block = st.builds(lambda text, mark: {"type": "text", "text": text} | mark, TEXT, MARKED)
image = st.builds(lambda source, mark: {"type": "image", "source": source} | mark, st.sampled_from([PNG, URL]), MARKED)
document = st.builds(lambda mark: {"type": "document", "source": PDF, "title": "a.pdf"} | mark, MARKED)
thought = st.builds(lambda text, mark: {"type": "thinking", "thinking": text, "signature": mark}, TEXT, WORD)
hidden = st.builds(lambda data: {"type": "redacted_thinking", "data": data}, WORD)
shown = st.lists(text_block | image | document, min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns of the user and the assistant, each call of a tool with its result."""
    turns: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        results = [
            {"type": "tool_result", "tool_use_id": each, "is_error": draw(st.booleans())} | draw(contents)
            for each in open_calls
        ]
        turns.append({"role": "user", "content": [*results, *draw(shown)]})
        blocks = [*draw(st.lists(thought | hidden, max_size=2)), *draw(st.lists(text_block, max_size=2))]
        open_calls = [f"toolu_{number}_{place}" for place in range(draw(st.integers(0, 2)))]
        calls = [{"type": "tool_use", "id": each, "name": "f", "input": draw(INPUT)} for each in open_calls]
        if not (blocks or calls):
            break
        turns.append({"role": "assistant", "content": [*blocks, *calls]})
    if turns[-1]["role"] == "assistant":
        results = [{"type": "tool_result", "tool_use_id": each, "content": "1"} for each in open_calls]
        turns.append({"role": "user", "content": [*results, {"type": "text", "text": "And?"}]})
    return turns


contents: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.builds(lambda text: {"content": text}, TEXT),
    st.builds(lambda blocks: {"content": blocks}, st.lists(text_block | image, min_size=1, max_size=2)),
)


def plain(blocks: Any) -> Any:
    """Blocks in the form that both sides have."""
    if isinstance(blocks, str):
        return [{"type": "text", "text": blocks}]
    told = [dict(block) for block in blocks]
    for block in told:
        if block["type"] == "tool_result":
            block["content"] = plain(block.get("content") or [])
            block.setdefault("is_error", False)
    return told


@settings(deadline=None)
@given(conversations(), st.lists(text_block, max_size=2), st.sampled_from(["auto", "any", "tool", "none"]))
def test_a_conversation_is_the_same_there_and_back(turns: Any, system: Any, choice: str) -> None:
    """Every block in its place, with its marker, its signature, its id; and Anthropic would take it."""
    tool_choice = {"type": choice} | ({"name": "f"} if choice == "tool" else {})
    asked = {
        "model": "m",
        "max_tokens": 50,
        "system": system,
        "messages": turns,
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "description": "what it does"}],
        "tool_choice": tool_choice,
        "stop_sequences": ["END"],
    }
    request = read_messages_request(json.dumps(asked).encode(), 64)
    body = TranslatedCall(request, BACKEND).outgoing.body
    assert violations(body) == []
    told = msgspec.json.decode(body)
    assert [(turn["role"], plain(turn["content"])) for turn in told["messages"]] == [
        (turn["role"], plain(turn["content"])) for turn in turns
    ]
    assert told.get("system", []) == system
    assert (told["tools"], told["tool_choice"], told["stop_sequences"]) == (asked["tools"], tool_choice, ["END"])


answers = st.builds(
    lambda thoughts, texts, inputs: message(
        *thoughts,
        *texts,
        *(
            {"type": "tool_use", "id": f"toolu_{place}", "name": "f", "input": each}
            for place, each in enumerate(inputs)
        ),
        stop_reason="tool_use" if inputs else "end_turn",
    ),
    st.lists(thought | hidden, max_size=2),
    st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXT), max_size=1),
    st.lists(INPUT, max_size=2),
)


@settings(deadline=None)
@given(answers, st.integers(1, 9))
def test_an_answer_is_the_same_there_and_back(answer: Any, piece: int) -> None:
    """Whole; and as a stream, however it comes in pieces."""
    request = read_messages_request(b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"a"}]}', 64)
    told, _ = TranslatedCall(request, BACKEND).whole(json.dumps(answer).encode())
    again = msgspec.json.decode(whole_message(told, frozenset()))
    assert said(again["content"]) == said(answer["content"])
    assert again["stop_reason"] == answer["stop_reason"]
    stream = ChatStream(drop_usage=False, max_event_bytes=100_000)
    there, back = MessagesTranslator(100_000, stream), MessagesEvents("req_1", frozenset())
    events = b"".join(back.feed(there.feed(sse(event))) for event in events_of(answer, piece)) + back.end()
    assert said(accumulated(events)) == said(answer["content"])


def said(blocks: Any) -> list[Any]:
    """What blocks say, but for members that say nothing."""
    return [{name: value for name, value in block.items() if value is not None} for block in blocks if block != EMPTY]


EMPTY = {"type": "text", "text": ""}


def accumulated(events: bytes) -> list[dict[str, Any]]:
    """The blocks that the events of a stream make."""
    blocks: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    for event in events.split(b"\n\n")[:-1]:
        data = json.loads(event.partition(b"data: ")[2])
        if data["type"] == "content_block_start":
            blocks.append(data["content_block"])
        elif data["type"] == "content_block_delta":
            delta = dict(data["delta"])
            delta.pop("type")
            for name, value in delta.items():
                if name == "partial_json":
                    arguments[data["index"]] = arguments.get(data["index"], "") + value
                else:
                    blocks[data["index"]][name] = blocks[data["index"]].get(name, "") + value
    for place, text in arguments.items():
        blocks[place]["input"] = json.loads(text)
    return blocks
