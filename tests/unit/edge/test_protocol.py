"""What the protocol does with its transport at moments that a real socket cannot be made to hit."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from gateway.edge.connections import CONNECTION_EXTENSION, ConnectionLimits, Connections
from gateway.edge.exchange import BODY_BUFFER_BYTES
from gateway.edge.pipelined import WAITING_BYTES_MAX
from gateway.edge.protocol import GatewayProtocol
from tests.support.client import request_bytes
from tests.support.served import App, Receive, Send, answer, read_all

NOW = 1e9  # a time of sweeps, of which only differences matter


class Wire(asyncio.Transport):
    """A transport that keeps what is written, or holds ``waiting`` bytes of it back."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.waiting = 0
        self.reading = True
        self.aborted = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.sent += bytes(data)

    def write_eof(self) -> None:
        """Nothing to do."""

    def get_write_buffer_size(self) -> int:
        """As a test has set it."""
        return self.waiting

    def pause_reading(self) -> None:
        """From now on a test must not feed."""
        self.reading = False

    def resume_reading(self) -> None:
        """Again it may."""
        self.reading = True

    def abort(self) -> None:
        """Remember it."""
        self.aborted = True


class Connected:
    """A protocol on a Wire that serves ``app``; made inside an event loop."""

    def __init__(self, app: App, **limits: Any) -> None:
        self.wire = Wire()
        state = Connections(ConnectionLimits(**limits), lambda _: None)
        self.protocol = GatewayProtocol(SimpleNamespace(loaded_app=app), state, {})  # type: ignore[arg-type]
        self.protocol.connection_made(self.wire)

    def feed(self, data: bytes) -> None:
        """Let it receive ``data``, as one packet."""
        assert self.wire.reading
        self.protocol.data_received(data)

    async def responses(self, count: int) -> bytes:
        """What was sent, once it holds so many responses."""
        async with asyncio.timeout(5):
            while self.wire.sent.count(b"HTTP/1.1 ") < count:  # noqa: ASYNC110  # nothing tells of a write
                await asyncio.sleep(0)
        return self.wire.sent


class Held:
    """Answers the first request when it is let go, without a look at the body, and echoes the others."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.bodies: list[bytes] = []
        self.connection: Any = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if self.connection is None:
            self.connection = scope["extensions"][CONNECTION_EXTENSION]
            await self.go_on.wait()
        else:
            self.bodies.append(await read_all(receive))
        await answer(send, b"")


def test_a_request_behind_one_that_was_refused_unread_is_read() -> None:
    """The pause that the unread body caused ends with it."""

    async def main() -> None:
        app = Held()
        connected = Connected(app)
        behind = request_bytes("/", b"x" * 50_000)
        connected.feed(request_bytes("/", b"x" * 2 * BODY_BUFFER_BYTES) + behind[:1000])
        await asyncio.sleep(0)
        app.go_on.set()
        await connected.responses(1)
        connected.feed(behind[1000:])
        await connected.responses(2)
        assert app.bodies == [b"x" * 50_000]

    asyncio.run(main())


def test_reading_pauses_only_while_the_body_of_the_current_request_is_on_its_way() -> None:
    """So that nothing hides a client's departure once its request is there."""

    async def main() -> None:
        connected = Connected(Held())
        request = request_bytes("/", b"x" * 2 * BODY_BUFFER_BYTES)
        connected.feed(request[:-10])
        assert not connected.wire.reading
        connected.protocol.data_received(request[-10:])  # in flight when reading paused
        assert connected.wire.reading

    asyncio.run(main())


def test_what_waits_behind_a_request_is_bounded_in_memory() -> None:
    """However it is cut up; reading goes on, and what fitted is answered before the connection closes."""

    async def main() -> None:
        app = Held()
        connected = Connected(app)
        chunked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        connected.feed(request_bytes("/") + request_bytes("/", b"small"))
        connected.feed(chunked + b"2\r\nxy\r\n" * (WAITING_BYTES_MAX // 4))
        assert len(connected.protocol._behind) == 2
        connected.feed(b"2\r\nxy\r\n" * (WAITING_BYTES_MAX // 4))
        assert len(connected.protocol._behind) == 1
        for _ in range(10):
            connected.feed(b"2\r\nxy\r\n" * 10_000)
        app.go_on.set()
        sent = await connected.responses(2)
        assert app.bodies == [b"small"]
        assert sent.count(b"connection: close") == 1

    asyncio.run(main())


def test_a_steady_pipeline_is_not_taken_for_a_flood() -> None:
    """What has been answered counts no more."""

    async def main() -> None:
        app = Held()
        connected = Connected(app)
        request = request_bytes("/", b"x" * 20_000)
        connected.feed(request * 2)
        app.go_on.set()
        for number in range(20):
            connected.feed(request)
            assert b"connection: close" not in await connected.responses(number + 1)

    asyncio.run(main())


def test_many_small_pieces_of_a_body_cost_no_more_than_a_large_one() -> None:
    """A client chooses its chunks."""

    async def main() -> None:
        app = Held()
        connected = Connected(app)
        connected.feed(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + b"2\r\nxy\r\n" * 10_000)
        await asyncio.sleep(0)
        assert len(app.connection.chunks) <= 2
        assert (await app.connection.receive())["body"] == b"xy" * 10_000
        app.go_on.set()
        await connected.responses(1)

    asyncio.run(main())


def test_a_pause_counts_from_its_own_beginning() -> None:
    """The same number of waiting bytes as in an earlier pause is no sign that nothing was taken since."""

    async def main() -> None:
        app = Held()
        connected = Connected(app, write_timeout_s=60.0)
        protocol, wire = connected.protocol, connected.wire
        connected.feed(request_bytes("/"))
        await asyncio.sleep(0)
        wire.waiting = 1000
        for at in (0.0, 100.0, 200.0):
            protocol.pause_writing()
            protocol.sweep(NOW + at)
            protocol.sweep(NOW + at + 59.0)
            protocol.resume_writing()
        assert not wire.aborted

        protocol.pause_writing()
        reasons: list[bool] = []
        app.connection.on_disconnect(lambda: reasons.append(app.connection.stalled))
        protocol.sweep(NOW + 300.0)
        protocol.sweep(NOW + 360.0)
        assert wire.aborted
        assert reasons == [True]

    asyncio.run(main())
