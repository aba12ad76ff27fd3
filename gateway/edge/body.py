"""The body of a request, read whole within its bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from gateway.errors import RequestTimeout, RequestTooLarge

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientGone(Exception):
    """The client left before its request was complete."""


class Asking(Protocol):
    """What the head of a request says beside its body."""

    @property
    def routing_headers(self) -> Mapping[str, str]:
        """The headers that conditions of targets may look at."""

    @property
    def cache_control(self) -> bytes:
        """What the caller says of answers that were kept."""


class Written:
    """A body that was written here, on behalf of a caller, who may have said something of kept answers."""

    def __init__(self, body: bytes, call: Asking) -> None:
        self._body = body
        self.routing_headers = call.routing_headers
        self.cache_control = call.cache_control

    def body_now(self) -> bytes:
        """All of it."""
        return self._body

    async def body(self) -> bytes:
        """The same."""
        return self._body


async def read_body(receive: Receive, content_length: int | None, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, waited for. Raises RequestTooLarge, RequestTimeout, ClientGone.

    A body that is announced as too large is refused before any of it is read.
    """
    if content_length is not None and content_length > max_bytes:
        raise too_large(max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(receive, max_bytes)
    except TimeoutError:
        raise RequestTimeout("The request's body took too long to arrive.") from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes)
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)


def too_large(max_bytes: int) -> RequestTooLarge:
    """The refusal of a body beyond its bound."""
    return RequestTooLarge(f"The request's body is larger than {max_bytes} bytes.")
