"""The protocol object of a connection at every split of its input, and under any damage to it."""

from __future__ import annotations

import asyncio
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import AttemptFailed
from gateway.model import Timeouts
from gateway.upstream import UpstreamLimits
from gateway.upstream.connection import Connection
from tests.support.scripts import LAST_CHUNK, chunk, framing_headers, head
from tests.support.sse import split

LIMITS = UpstreamLimits(max_header_bytes=2000, max_header_count=20, read_buffer_bytes=500)
CUTS = st.lists(st.integers(0, 5000), max_size=20)


class FakeTransport:
    """Keeps what a connection did to it."""

    def __init__(self) -> None:
        self.paused = self.aborted = False

    def get_extra_info(self, name: str) -> object:
        """The peer's address."""
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        """Sent at once."""

    def writelines(self, parts: object) -> None:
        """Sent at once."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def pause_reading(self) -> None:
        """May be asked once."""
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        """Only after a pause."""
        assert self.paused
        self.paused = False

    def abort(self) -> None:
        """Close."""
        self.aborted = True


async def outcome(pieces: list[bytes], *, closes: bool) -> tuple[int, bytes, str, bool]:
    """Status, body, failure and whether the connection may serve again, for an answer that comes in these pieces."""
    connection = Connection(LIMITS, lambda _: None)
    transport = FakeTransport()
    connection.connection_made(cast("asyncio.Transport", transport))
    answered = connection.start((b"request",), Timeouts(), 0.0)
    body, failure = b"", ""
    reader = asyncio.ensure_future(_read(connection, answered))
    for piece in pieces:
        if transport.aborted:
            break
        connection.data_received(piece)
        while transport.paused:  # noqa: ASYNC110  # a transport gives nothing more until reading goes on
            await asyncio.sleep(0)
    if closes and not transport.aborted:
        connection.connection_lost(None)
    await asyncio.sleep(0)
    if not reader.done() and not connection.complete and connection.error is None:
        connection.expire(float("inf"))
    body, failure = await reader
    status = connection.status
    return status, body, failure, connection.finish()


async def _read(connection: Connection, answered: asyncio.Future[None]) -> tuple[bytes, str]:
    body = b""
    try:
        await answered
        if connection.error is not None and not connection.status:
            raise connection.error
        while part := await connection.read():
            body += part
    except AttemptFailed as failure:
        return body, failure.outcome
    return body, ""


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["length", "chunked", "close"]),
    st.lists(st.binary(min_size=1, max_size=400), max_size=6),
    CUTS,
    st.integers(0, 3),
)
def test_any_answer_at_any_split(framing: str, parts: list[bytes], cuts: list[int], interim: int) -> None:
    """Status and body are the same however an answer arrives; only the close ends its connection."""
    body = b"".join(parts)
    start = head(103, []) * interim + head(200, [("x", "y"), *framing_headers(framing, len(body))])  # type: ignore[arg-type]
    sent = b"".join(map(chunk, parts)) + LAST_CHUNK if framing == "chunked" else body
    closes = framing == "close"
    found = asyncio.run(outcome(split(start + sent, cuts), closes=closes))
    assert found == (200, body, "", not closes)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(["length", "chunked", "close"]),
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4),
    CUTS,
    st.booleans(),
)
def test_any_damage_ends_well(
    framing: str, body: bytes, damage: list[tuple[int, int, bytes]], cuts: list[int], closes: bool
) -> None:
    """Bytes changed, lost, added or cut: an answer or a failure, never anything else, and never both."""
    sent = chunk(body) + LAST_CHUNK if framing == "chunked" else body
    data = head(200, [("content-type", "x"), *framing_headers(framing, len(body))]) + sent  # type: ignore[arg-type]
    for at, lost, added in damage:
        at %= len(data) + 1
        data = data[:at] + added + data[at + lost :]
    _, _, failure, reusable = asyncio.run(outcome(split(data, cuts), closes=closes))
    assert failure in {"", "protocol_error", "reset", "total_timeout"}
    assert not (failure and reusable)
    assert not (closes and reusable)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), CUTS)
def test_any_bytes_at_all(data: bytes, cuts: list[int]) -> None:
    """Noise is no answer."""
    status, _, failure, reusable = asyncio.run(outcome(split(data, cuts), closes=True))
    assert (status, reusable) == (0, False)
    assert failure in {"protocol_error", "reset"}
