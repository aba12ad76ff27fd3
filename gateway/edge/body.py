"""The body of a request, read whole within its bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.errors import RequestTimeout, RequestTooLarge

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientGone(Exception):
    """The client left before its request was complete."""


async def read_body(receive: Receive, content_length: int | None, max_bytes: int, timeout_s: float | None) -> bytes:
    """The whole body. Raises RequestTooLarge, RequestTimeout, ClientGone.

    A body that is announced as too large is refused before any of it is read. ``timeout_s`` is None where the body is
    known to have arrived, so that no timer is needed.
    """
    if content_length is not None and content_length > max_bytes:
        raise _too_large(max_bytes)
    if timeout_s is None:
        return await _read(receive, max_bytes)
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
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request's body is larger than {max_bytes} bytes.")
