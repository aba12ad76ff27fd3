"""A stream of Messages, told as events of a chat."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.dialects.anthropic.stream_in import MessagesTranslator
from gateway.dialects.openai.stream import ChatStream
from gateway.errors import AttemptFailed
from gateway.model import Usage
from tests.support.anthropic_api import USAGE, error_event, events_of, message, sse, text, thinking, tool_use

ANSWER = message(
    thinking("Who is it?\n", "c2lnbmVk"),
    {"type": "redacted_thinking", "data": "aGlkZGVu"},
    text('Good "morning" \U0001f600'),
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    tool_use("f", {"a": [1, "two"]}, "toolu_1"),
    tool_use("g", {}, "toolu_2"),
    stop_reason="tool_use",
)
STREAM = b"".join(map(sse, events_of(ANSWER)))


def translated(*pieces: bytes) -> tuple[bytes, ChatStream]:
    """What is told of a stream that comes in these pieces, and what has read it."""
    stream = ChatStream(drop_usage=False, max_event_bytes=100_000)
    translator = MessagesTranslator(100_000, stream)
    told = b"".join(stream.feed(translator.feed(piece)) for piece in pieces)
    return told + stream.feed(translator.end()) + stream.end(), stream


def chunks(told: bytes) -> list[Any]:
    """The data of the events but for the end."""
    events = told.split(b"\n\n")
    assert events.pop() == b""
    assert events.pop() == b"data: [DONE]"
    return [msgspec.json.decode(each.removeprefix(b"data: ")) for each in events]


def without_time(told: bytes) -> list[Any]:
    """The same, whenever it was told."""
    return [chunk | {"created": 0} for chunk in chunks(told)]


def test_every_event_is_told_when_it_comes() -> None:
    """None is told before its own bytes are there, and none later than with them."""
    stream = ChatStream(drop_usage=False, max_event_bytes=100_000)
    translator = MessagesTranslator(100_000, stream)
    told = [(name, translator.feed(sse((name, data))).count(b"data: ")) for name, data in events_of(ANSWER)]
    assert {name: count for name, count in told if name.startswith("message")} == {
        "message_start": 1,
        "message_delta": 1,
        "message_stop": 2,
    }
    assert sum(count for name, count in told if name == "content_block_delta") == 2 + 1 + 3 + 3


def test_nothing_of_an_answer_is_lost() -> None:
    """Text, thoughts with their signatures, arguments in pieces; what runs at the provider is its own affair."""
    told, stream = translated(STREAM)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(told) if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == 'Good "morning" \U0001f600'
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Who is it?\n"
    thoughts = [block for delta in deltas for block in delta.get("thinking_blocks", ())]
    assert {block["index"] for block in thoughts} == {0, 1}
    assert "".join(block.get("signature", "") for block in thoughts) == "c2lnbmVk"
    assert thoughts[-1] == {"type": "redacted_thinking", "index": 1, "data": "aGlkZGVu"}
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["index"], call["id"], call["function"]["name"]) for call in calls if "id" in call] == [
        (0, "toolu_1", "f"),
        (1, "toolu_2", "g"),
    ]
    arguments = ["".join(call["function"]["arguments"] for call in calls if call["index"] == place) for place in (0, 1)]
    assert [msgspec.json.decode(each) for each in arguments] == [{"a": [1, "two"]}, {}]
    assert stream.usage == Usage(
        input_tokens=327,
        cached_input_tokens=300,
        cache_written_input_tokens=20,
        output_tokens=40,
        reasoning_tokens=11,
    )


def test_it_is_the_same_however_it_is_cut() -> None:
    """At every byte."""
    whole = without_time(translated(STREAM)[0])
    for at in range(len(STREAM)):
        assert without_time(translated(STREAM[:at], STREAM[at:])[0]) == whole
    assert without_time(translated(*(bytes([byte]) for byte in STREAM))[0]) == whole


def test_what_was_used_is_known_from_the_start() -> None:
    """Of a stream that nobody reads to its end: its input, and of the output the little that was said of it."""
    stream = ChatStream(drop_usage=True, max_event_bytes=100_000)
    MessagesTranslator(100_000, stream).feed(b"".join(map(sse, list(events_of(ANSWER))[:4])))
    assert stream.usage is None
    assert stream.begun_usage == Usage(
        input_tokens=327, cached_input_tokens=300, cache_written_input_tokens=20, output_tokens=1
    )
    assert USAGE["input_tokens"] == 7


@pytest.mark.parametrize("kept", range(1, len(list(events_of(ANSWER)))))
def test_a_stream_that_is_cut_is_no_answer(kept: int) -> None:
    """Wherever it is."""
    with pytest.raises(AttemptFailed) as caught:
        translated(b"".join(map(sse, list(events_of(ANSWER))[:kept])))
    assert caught.value.outcome == "reset"


def test_an_error_ends_it() -> None:
    """In the words of the gateway; what comes after it is not told."""
    told, stream = translated(
        *map(sse, list(events_of(ANSWER))[:5]), error_event("api_error", "the key sk-1 of org 7"), STREAM
    )
    assert stream.failed
    assert told.endswith(b'"param":null,"code":"upstream_failed"}}\n\n')
    assert b"sk-1" not in told


@pytest.mark.parametrize(
    ("begins", "outcome", "status"),
    [
        (error_event("overloaded_error", "Overloaded"), "error_in_body", 529),
        (error_event("rate_limit_error", "later"), "rate_limited", None),
        (error_event("api_error", "no"), "error_in_body", None),
        (b"data: hello\n\n", "protocol_error", None),
        (sse(("message_stop", {"type": "message_stop"})), "protocol_error", None),
        (sse(("message_start", {"type": "message_start"})), "protocol_error", None),
        (STREAM[: STREAM.index(b"event: ping")] * 2, "protocol_error", None),
    ],
)
def test_what_begins_wrong_fails_the_attempt(begins: bytes, outcome: str, status: int | None) -> None:
    """So that another backend can be asked."""
    with pytest.raises(AttemptFailed) as caught:
        translated(begins)
    assert (caught.value.outcome, caught.value.status) == (outcome, status)


def test_events_that_are_not_known_say_nothing() -> None:
    """They may come one day; and more than the known members, too."""
    events = list(events_of(ANSWER))
    more = [*events[:3], ("content_block_new", {"type": "content_block_new"}), *events[3:]]
    later = [(name, data | {"more": {"type": "error"}}) for name, data in more]
    assert without_time(translated(*map(sse, later))[0]) == without_time(translated(STREAM)[0])


def test_arguments_may_come_with_the_start_of_a_call() -> None:
    """As servers send them that do not stream arguments."""
    call = tool_use("f", {"a": 1})
    events = [
        (name, data | {"content_block": call} if name == "content_block_start" else data)
        for name, data in events_of(message(call, stop_reason="tool_use"))
        if name != "content_block_delta"
    ]
    told = chunks(translated(*map(sse, events))[0])
    pieces = [call for chunk in told if chunk["choices"] for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [piece["function"]["arguments"] for piece in pieces] == ["", '{"a": 1}']
