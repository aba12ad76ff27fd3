"""Pieces that are passed on as they are read: in order, each once, and no stream that stays open after its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.dialects.openai.stream import ChatStream
from gateway.errors import AttemptFailed
from gateway.meter import MeteredStream
from gateway.telemetry import RequestRecord

FIRST = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
ONE, TWO = (b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in (1, 2))
DONE = b"data: [DONE]\n\n"


class Arriving:
    """A source whose bytes arrive when a test says so."""

    delimited = True

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._is_complete = False
        self._failure: AttemptFailed | None = None
        self.listener: Callable[[bool], None] | None = None

    def take(self) -> bytes | None:
        """What has arrived."""
        if self._chunks:
            chunks, self._chunks = self._chunks, []
            return b"".join(chunks)
        if self._failure is not None:
            raise self._failure
        return b"" if self._is_complete else None

    async def arrival(self) -> None:
        """Never needed: it can be listened to."""
        raise AssertionError

    def listen(self, listener: Callable[[bool], None] | None) -> bool:
        """It can."""
        self.listener = listener
        return True

    def arrive(self, data: bytes = b"", *, last: bool = False, failure: AttemptFailed | None = None) -> None:
        """Some bytes, the end, a failure."""
        self._chunks += [data] if data else []
        self._is_complete, self._failure = last, failure
        if self.listener is not None:
            self.listener(last or failure is not None)


class Relay:
    """A stream being relayed to a client that takes what ``keeps_up`` allows; made inside an event loop."""

    def __init__(self, max_event_bytes: int = 1000) -> None:
        self.source = Arriving()
        self.record = RequestRecord()
        self.sent: list[bytes] = []
        self.keeps_up = True
        chat = ChatStream(drop_usage=False, max_event_bytes=max_event_bytes)
        self.stream = MeteredStream(self.source, chat, chat.feed(FIRST), self.record)
        assert self.stream.take() == FIRST
        assert self.stream.take() is None
        self.task = asyncio.ensure_future(self.stream.relay(self._push))

    def _push(self, piece: bytes) -> bool:
        if self.keeps_up:
            self.sent.append(piece)
        return self.keeps_up

    async def left(self) -> bytes | None:
        """What the relay leaves to its caller."""
        return await asyncio.wait_for(self.task, 5)


def test_pieces_pass_while_the_client_keeps_up() -> None:
    """In the very turn that they arrive in; half an event waits for its rest; the end is told."""

    async def main() -> None:
        relay = Relay()
        await asyncio.sleep(0)
        relay.source.arrive(ONE)
        assert relay.sent == [ONE]
        relay.source.arrive(TWO[:9])
        assert relay.sent == [ONE]
        relay.source.arrive(TWO[9:])
        relay.source.arrive(DONE, last=True)
        assert relay.sent == [ONE, TWO, DONE]
        assert await relay.left() == b""
        assert relay.record.stream_end_reason == "complete"

    asyncio.run(main())


def test_a_slow_client_gets_every_piece_once_and_in_order() -> None:
    """The piece it did not take is left to the caller, and so is all that arrives from then on."""

    async def main() -> None:
        relay = Relay()
        await asyncio.sleep(0)
        relay.keeps_up = False
        relay.source.arrive(ONE)
        relay.keeps_up = True
        relay.source.arrive(TWO)
        assert await relay.left() == ONE
        assert relay.sent == []
        assert relay.source.listener is None
        assert relay.stream.take() == TWO

    asyncio.run(main())


@pytest.mark.parametrize("keeps_up", [True, False])
def test_a_stream_that_is_broken_off_here_ends_at_once(keeps_up: bool) -> None:
    """An event beyond its bound ends the stream, though the backend has more to say and the connection stays open."""

    async def main() -> None:
        relay = Relay(max_event_bytes=100)
        await asyncio.sleep(0)
        relay.keeps_up = keeps_up
        relay.source.arrive(b"data: " + b"x" * 200)
        left = await relay.left()
        told = b"".join(relay.sent) + (left or b"")
        assert told.count(b'"error"') == 1
        assert relay.stream.take() == b""
        assert relay.record.stream_end_reason == "protocol_error"

    asyncio.run(main())


def test_a_backend_that_fails_is_told_of_and_ends_the_stream() -> None:
    """As one error event, after what had arrived before."""

    async def main() -> None:
        relay = Relay()
        await asyncio.sleep(0)
        relay.source.arrive(ONE, failure=AttemptFailed("reset", "gone"))
        assert await relay.left() == b""
        assert relay.sent[0] == ONE
        assert b'"error"' in relay.sent[1]
        assert len(relay.sent) == 2

    asyncio.run(main())


def test_a_fault_while_passing_on_is_the_callers() -> None:
    """Not the backend connection's, whose reading it happened in."""

    async def main() -> None:
        relay = Relay()
        relay.task.cancel()
        task = asyncio.ensure_future(relay.stream.relay(lambda _: 1 // 0 == 0))
        await asyncio.sleep(0)
        relay.source.arrive(ONE)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(task, 5)

    asyncio.run(main())


def test_a_client_that_leaves_ends_the_relay_and_its_wait_is_counted() -> None:
    """The wait was for the backend, and nothing more is taken from it."""

    async def main() -> None:
        relay = Relay()
        await asyncio.sleep(0.01)
        relay.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relay.task
        relay.stream.stop_waiting()
        assert relay.record.upstream_wait_s > 0
        assert relay.source.listener is None

    asyncio.run(main())
