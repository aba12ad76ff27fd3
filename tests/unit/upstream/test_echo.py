"""The echo provider: answers from the last user message, with usage that adds up."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from typing import Any

import pytest

from gateway.dialects.openai.reply import read_reply
from gateway.dialects.openai.request import read_chat_request
from gateway.dialects.openai.stream import ChatStream
from gateway.model import Backend, EchoOptions, Usage
from gateway.upstream.echo import echo


def answered(options: EchoOptions | None = None, *, cap: int = 4096, **fields: Any) -> bytes:
    """All that the provider answers, joined."""
    body = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]} | fields
    backend = Backend(name="e", provider="echo", origin=None, max_output_tokens=cap, echo=options)

    async def main() -> bytes:
        source = echo(backend, read_chat_request(json.dumps(body).encode(), 100))
        assert source.status == 200
        parts = []
        while part := await source.read():
            parts.append(part)
        source.close()
        assert await source.read() == b""
        return b"".join(parts)

    return asyncio.run(main())


def text_of(answer: bytes) -> list[str]:
    """The text of each choice, streamed or whole."""
    if not answer.startswith(b"data:"):
        return [choice["message"]["content"] for choice in json.loads(answer)["choices"]]
    texts: dict[int, str] = {}
    for event in answer.split(b"\n\n")[:-2]:
        for choice in json.loads(event.removeprefix(b"data: "))["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return [texts[index] for index in sorted(texts)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "one two"}], "one two"),
        ([{"role": "user", "content": "old"}, {"role": "assistant", "content": "x"}], "old"),
        ([{"role": "user", "content": "old"}, {"role": "user", "content": "new  one"}], "new one"),
        ([{"role": "user", "content": [{"type": "text", "text": "a b"}, {"type": "image_url"}]}], "a b"),
        ([{"role": "system", "content": "be kind"}], "..."),
        ([{"role": "user", "content": None}], "..."),
        ([{"role": "user", "content": 7}, "no message", 5], "..."),
    ],
)
def test_the_last_user_message_comes_back(messages: list[Any], text: str, stream: bool) -> None:
    """Streamed or whole; a request without words still gets an answer."""
    assert text_of(answered(messages=messages, stream=stream)) == [text]


def test_usage_is_the_words() -> None:
    """Of all messages in, of every choice out, in the stream and in the whole reply alike."""
    expected = Usage(input_tokens=3, output_tokens=6)
    assert read_reply(answered(n=2)).usage == expected
    stream = ChatStream(drop_usage=False, max_event_bytes=10_000)
    answer = answered(n=2, stream=True)
    assert stream.feed(answer) == answer
    assert (stream.usage, stream.done) == (expected, True)
    assert text_of(answer) == ["one two three"] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_limits_cut_the_answer(stream: bool) -> None:
    """The request's limit, the backend's, and the length that the backend is set to."""
    assert text_of(answered(stream=stream, max_tokens=2)) == ["one two"]
    assert text_of(answered(stream=stream, cap=1)) == ["one"]
    assert text_of(answered(EchoOptions(output_tokens=5), stream=stream)) == ["one two three one two"]
    assert b'"length"' in answered(stream=stream, max_tokens=2)
    assert b'"stop"' in answered(stream=stream)


def test_a_long_prompt_keeps_nobody_waiting() -> None:
    """Of millions of words as many are looked at as are needed; time and memory are those of its bytes."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "ab " * 6_000_000}]}).encode()
    request = read_chat_request(body, 100)
    tracemalloc.start()
    started = time.monotonic()
    echo(Backend(name="e", provider="echo", origin=None, max_output_tokens=2), request)
    taken_s = time.monotonic() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken_s < 1.0  # and half of that is the tracing
    assert peak < 3 * len(body)


def test_a_long_answer_is_repeated_no_further_than_it_is_used() -> None:
    """A length far beyond the limit costs nothing."""
    assert text_of(answered(EchoOptions(output_tokens=10**9), max_tokens=4)) == ["one two three one"]
    assert text_of(answered(EchoOptions(output_tokens=2))) == ["one two"]
    assert b'"stop"' in answered(EchoOptions(output_tokens=4), max_tokens=4)


def test_many_messages_and_parts() -> None:
    """The last ones are looked at."""
    parts = [{"type": "text", "text": "w"}] * 3000 + [{"type": "text", "text": "end"}]
    messages = [{"role": "user", "content": "x"}] * 3000 + [{"role": "user", "content": parts}]
    assert text_of(answered(messages=messages))[0].endswith("w end")


def test_the_pace() -> None:
    """A delay before the first token and one before each further one."""
    started = time.monotonic()
    answered(EchoOptions(first_token_delay_s=0.05, token_delay_s=0.01), stream=True)
    assert time.monotonic() - started >= 0.05 + 3 * 0.01
    started = time.monotonic()
    answered(EchoOptions(first_token_delay_s=0.05, token_delay_s=0.01))
    assert time.monotonic() - started >= 0.05


def test_a_long_answer_lets_others_run() -> None:
    """Without any delay too, the loop gets its turn between two tokens."""
    body = {"model": "m", "messages": [{"role": "user", "content": "w " * 1000}], "stream": True}
    backend = Backend(name="e", provider="echo", origin=None)

    async def main() -> int:
        source = echo(backend, read_chat_request(json.dumps(body).encode(), 100))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        while await source.read():
            pass
        task.cancel()
        return turns

    assert asyncio.run(main()) >= 1000
