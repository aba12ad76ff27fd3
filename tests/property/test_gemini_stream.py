"""Streams of Gemini, as chat events: the same however they are cut, and the same as the whole answer says."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from gateway.dialects import form
from gateway.dialects.gemini.reply import read_whole
from gateway.dialects.gemini.stream import GeminiStream
from gateway.dialects.openai.stream import ChatStream
from gateway.errors import AttemptFailed
from tests.support.gemini import call, candidate, error, events, response, usage

TEXT = st.text(min_size=1, max_size=8)
PARTS = st.one_of(
    TEXT.map(lambda text: {"text": text}),
    TEXT.map(lambda text: {"text": text, "thought": True}),
    TEXT.map(lambda text: {"text": text, "thoughtSignature": "c2ln"}),
    st.builds(lambda name, text: call(name, {"a": text}, call_id=name + text), TEXT, TEXT),
)
PIECES = st.lists(st.lists(PARTS, max_size=3), max_size=5)
ENDS = st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY"])


def new() -> tuple[GeminiStream, ChatStream]:
    """A translator and what counts its events."""
    chat = ChatStream(drop_usage=False, max_event_bytes=65_536)
    return GeminiStream(65_536, chat), chat


def told(pieces: list[bytes]) -> bytes:
    """What is said of a stream in these pieces, without what is new in each run."""
    stream, _ = new()
    said = b"".join(map(stream.feed, pieces)) + stream.end()
    return said.replace(b'"created":%d' % stream._created, b'"created":0')


def gathered(said: bytes) -> list[dict[str, Any]]:
    """The answers that the events spell, by index; every event is one that the client's SDK knows."""
    *chunks, done = said.removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    answers: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        event = ChatCompletionChunk.model_validate_json(chunk.removeprefix(b"data: "), strict=True)
        for choice in event.choices:
            answer = answers.setdefault(choice.index, {"content": "", "thoughts": "", "calls": [], "finish": None})
            assert answer["finish"] is None, "nothing follows the end"
            delta = choice.delta
            assert (delta.role == "assistant") == ("role" not in answer), "the role is told once, first"
            answer["role"] = "assistant"
            answer["content"] += delta.content or ""
            answer["thoughts"] += (delta.model_extra or {}).get("reasoning_content") or ""
            for one in delta.tool_calls or ():
                assert one.index == len(answer["calls"])
                assert one.function is not None
                answer["calls"].append((one.id, one.function.name, one.function.arguments))
            answer["finish"] = choice.finish_reason
    return [answers[index] for index in sorted(answers)]


def spelled(completion: form.Completion) -> list[dict[str, Any]]:
    """The same of a whole answer."""
    document = json.loads(form.encode_completion(completion))
    found = []
    for choice in document["choices"]:
        message = choice["message"]
        calls = [
            (one["id"], one["function"]["name"], one["function"]["arguments"])
            for one in message.get("tool_calls") or ()
        ]
        thoughts = message.get("reasoning_content") or ""
        found.append(
            {"role": "assistant", "content": message["content"] or "", "thoughts": thoughts, "calls": calls}
            | {"finish": choice["finish_reason"]}
        )
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=2), ENDS, st.data())
def test_streams_say_what_whole_answers_say(answers: list[Any], end: str, data: st.DataObject) -> None:
    """In pieces that are cut anywhere, of one or two candidates side by side, an empty last piece included."""
    steps = list(itertools.zip_longest(*answers, fillvalue=[]))
    documents = [
        response(*(candidate(*parts, finish=None, index=at) for at, parts in enumerate(step))) for step in steps
    ]
    documents.append(response(*(candidate(finish=end, index=at) for at in range(len(answers))), used=usage(7, 9)))
    whole = response(*(candidate(*itertools.chain(*pieces), finish=end, index=at) for at, pieces in enumerate(answers)))
    written = b"".join(events(documents))
    said = told([written])
    assert gathered(said) == spelled(form.decode_completion(read_whole(json.dumps(whole).encode())[0]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=5)))
    assert told([written[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(written)])]) == said


def test_a_stream_cut_at_every_byte() -> None:
    """Says the same."""
    documents = [
        response(candidate({"text": "hm", "thought": True}, finish=None)),
        response(candidate("Hä", call("f", {"a": 1}, call_id="c"))),
    ]
    written = b": hello\r\n\r\n" + b"".join(events(documents))
    assert told([bytes([byte]) for byte in written]) == told([written])
    for place in range(len(written)):
        assert told([written[:place], written[place:]]) == told([written])


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_no_stream_of_gemini(first: bytes, last: bytes) -> None:
    """Fails the attempt, or says nothing; it never raises anything else."""
    stream, chat = new()
    try:
        said = stream.feed(b"data: " + first + b"\n\n" + last) + stream.end()
    except AttemptFailed:
        return
    assert chat.feed(said) is not None


def test_an_error_ends_it() -> None:
    """What follows it says nothing more, and no mark of the end does."""
    stream, chat = new()
    said = stream.feed(events([response(candidate("a", finish=None))])[0])
    said += stream.feed(b"".join(events([error(503), response(candidate("b"))]))) + stream.end()
    assert said.count(b"data: ") == 2
    assert b"[DONE]" not in said
    chat.feed(said)
    assert (chat.failed, chat.done) == (True, False)


def test_usage_before_any_output_is_no_usage_of_it() -> None:
    """Only what counts the output, too, is what a cut stream is charged for."""
    stream, chat = new()
    stream.feed(events([response(candidate("a", finish=None), used={"promptTokenCount": 3})])[0])
    assert chat.usage is None
    stream.feed(events([response(candidate("a", finish=None), used=usage(3, 2))])[0])
    assert chat.usage is not None
    assert chat.usage.output_tokens == 2


@pytest.mark.parametrize("documents", [[], [{"usageMetadata": {"promptTokenCount": 1}}]])
def test_a_stream_without_an_answer(documents: list[Any]) -> None:
    """Is none."""
    stream, _ = new()
    stream.feed(b"".join(events(documents)))
    with pytest.raises(AttemptFailed):
        stream.end()
