"""A stream on its way to the caller: every end of it, and what the record says afterwards."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.dialects.openai.stream import ChatStream
from gateway.errors import AttemptFailed, Outcome
from gateway.meter import MeteredStream
from gateway.telemetry import RequestRecord

FIRST = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Pieces:
    """A source that gives pieces, then fails or ends."""

    def __init__(self, *pieces: bytes, failure: AttemptFailed | None = None, delimited: bool = True) -> None:
        self.delimited = delimited
        self._pieces = list(pieces)
        self._failure = failure
        self.takes = 0

    def take(self) -> bytes | None:
        """The next piece."""
        self.takes += 1
        if self._pieces:
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        return b""

    async def arrival(self) -> None:
        """Never needed: a piece is always there."""
        raise AssertionError

    def listen(self, _listener: object) -> bool:
        """Nor this."""
        raise AssertionError


def read_all(source: Pieces, record: RequestRecord) -> list[bytes]:
    """Everything that a caller gets, piece by piece; reading past the end stays at the end."""

    async def main() -> list[bytes]:
        chat = ChatStream(drop_usage=True, max_event_bytes=1000)
        stream = MeteredStream(source, chat, chat.feed(FIRST), record)
        assert record.stream_end_reason == "client_gone"
        pieces = []
        while piece := stream.take():
            pieces.append(piece)
        assert stream.take() == b""
        return pieces

    return asyncio.run(main())


def test_a_complete_stream() -> None:
    """What came is passed on piece by piece; the record says complete."""
    record = RequestRecord()
    assert read_all(Pieces(WORD, WORD[:9], WORD[9:] + DONE), record) == [FIRST, WORD, WORD + DONE]
    assert (record.stream_end_reason, record.outcome) == ("complete", "")


def test_a_stream_need_not_say_done() -> None:
    """Servers that end the body without ``[DONE]`` are believed where the end is certain."""
    record = RequestRecord()
    assert read_all(Pieces(WORD), record) == [FIRST, WORD]
    assert record.stream_end_reason == "complete"


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        ("reset", 502, "upstream_failed"),
        ("protocol_error", 502, "upstream_failed"),
        ("idle_timeout", 504, "upstream_timeout"),
        ("total_timeout", 504, "upstream_timeout"),
    ],
)
def test_a_broken_stream_ends_in_an_error_event(outcome: Outcome, status: int, code: str) -> None:
    """Half an event is dropped, one error event follows, then the end; the detail is the operator's."""
    record = RequestRecord(status=200)
    *passed, last = read_all(Pieces(WORD, WORD[:9], failure=AttemptFailed(outcome, "secret")), record)
    assert passed == [FIRST, WORD]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("upstream_error", code)
    assert b"secret" not in last
    assert (record.status, record.error_code, record.outcome) == (status, code, outcome)
    assert (record.stream_end_reason, record.detail) == (outcome, "secret")


def test_a_close_is_an_end_only_where_done_was_said() -> None:
    """Where only the close ends the body, a stream without ``[DONE]`` was cut."""
    cut, whole = RequestRecord(), RequestRecord()
    assert b"upstream_error" in read_all(Pieces(WORD, delimited=False), cut)[-1]
    assert cut.stream_end_reason == "reset"
    assert read_all(Pieces(DONE, delimited=False), whole)[-1] == DONE
    assert whole.stream_end_reason == "complete"


def test_an_oversized_event_breaks_the_stream() -> None:
    """An event beyond its bound ends the stream with an error event; nothing of it is passed on."""
    record = RequestRecord()
    passed = read_all(Pieces(WORD, b"data: " + b"x" * 2000), record)
    assert passed[:2] == [FIRST, WORD]
    assert b"xxx" not in passed[2]
    assert record.stream_end_reason == "protocol_error"


def test_a_backend_that_reports_an_error_in_its_stream() -> None:
    """The backend's own error event is passed on as it is; for an operator the stream failed."""
    record = RequestRecord(status=200)
    broken = b'data: {"error":{"message":"CUDA out of memory"}}\n\n'
    assert read_all(Pieces(WORD, broken, DONE), record) == [FIRST, WORD, broken, DONE]
    assert record.stream_end_reason == "error_in_body"
    assert (record.status, record.error_code, record.outcome) == (502, "upstream_failed", "error_in_body")


def test_a_connection_that_dies_after_done_broke_nothing() -> None:
    """The caller has its end already; no error event follows it."""
    record = RequestRecord(status=200)
    source = Pieces(WORD, DONE, failure=AttemptFailed("reset", "no last chunk"))
    assert read_all(source, record) == [FIRST, WORD, DONE]
    assert (record.status, record.stream_end_reason) == (200, "complete")


@pytest.mark.parametrize("rest", [[], [WORD + DONE]])
def test_whoever_leaves_after_done_has_had_it_all(rest: list[bytes]) -> None:
    """Official clients close at ``[DONE]``, often before the backend ends its body: that is a complete stream."""

    async def main() -> None:
        chat = ChatStream(drop_usage=True, max_event_bytes=1000)
        record = RequestRecord()
        stream = MeteredStream(Pieces(*rest), chat, chat.feed(FIRST if rest else FIRST + DONE), record)
        for _ in range(1 + len(rest)):
            stream.take()
        assert record.stream_end_reason == "complete"

    asyncio.run(main())


def test_a_watch_is_shown_what_is_passed_on() -> None:
    """Every whole event once, the first and the last included, and nothing of what is removed or added."""
    seen: list[bytes] = []
    chat = ChatStream(drop_usage=True, max_event_bytes=1000)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    source = Pieces(WORD[:9], WORD[9:] + usage, DONE[:-1])
    stream = MeteredStream(source, chat, chat.feed(FIRST), RequestRecord(), seen.append)
    read = []
    while piece := stream.take():
        read.append(piece)
    assert seen == read == [FIRST, WORD, DONE[:-1]]
