"""The body of a request, read whole within its bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.edge.body import ClientGone, Receive, read_body
from gateway.edge.call import error_headers, note_error
from gateway.errors import InvalidRequest, Overloaded, RequestTimeout, RequestTooLarge
from gateway.telemetry import RequestRecord


def pieces(*messages: dict[str, Any]) -> Receive:
    """An ASGI receive that gives these and then waits for ever."""
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return receive


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    """A piece of the body."""
    return {"type": "http.request", "body": body, "more_body": more}


def read(receive: Receive, length: int | None = None, max_bytes: int = 10, timeout_s: float = 5.0) -> bytes:
    """Read it."""
    return asyncio.run(read_body(receive, length, max_bytes, timeout_s))


def test_pieces_are_joined() -> None:
    """In order, up to the bound and with it."""
    parts = (part(b"01234", more=True), part(b"", more=True), part(b"56789", more=False))
    assert read(pieces(*parts)) == b"0123456789"
    assert read(pieces({"type": "http.request"})) == b""


def test_an_announced_length_is_refused_unread() -> None:
    """Too large by its own word: nothing of it is read."""
    with pytest.raises(RequestTooLarge):
        read(pieces(), length=11)


def test_what_was_not_announced_is_counted() -> None:
    """A chunked body ends at the bound."""
    with pytest.raises(RequestTooLarge):
        read(pieces(part(b"01234567890", more=True)))


def test_a_slow_body() -> None:
    """The whole body has one deadline."""
    with pytest.raises(RequestTimeout):
        read(pieces(part(b"0", more=True)), timeout_s=0.05)


def test_a_client_that_leaves() -> None:
    """Half a body is no request."""
    with pytest.raises(ClientGone):
        read(pieces(part(b"0", more=True), {"type": "http.disconnect"}))


@pytest.mark.parametrize(("wait_s", "shown"), [(0.0, b"0"), (0.2, b"1"), (7.0, b"7"), (7.1, b"8")])
def test_retry_after_is_rounded_up(wait_s: float, shown: bytes) -> None:
    """Whole seconds, never too few."""
    assert (b"retry-after", shown) in error_headers(Overloaded("", retry_after_s=wait_s))


def test_without_a_wait_no_header() -> None:
    """Only where something is known."""
    assert error_headers(InvalidRequest("")) == [(b"content-type", b"application/json")]


def test_the_record_keeps_the_detail() -> None:
    """For the operator."""
    record = RequestRecord()
    note_error(record, Overloaded("public", detail="secret"))
    assert (record.status, record.error_code, record.outcome, record.detail) == (
        503,
        "overloaded",
        "overloaded",
        "secret",
    )
