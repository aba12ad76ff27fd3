"""``POST /v1/chat/completions``: plain ASGI, because every microsecond here is paid on every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from gateway.dialects.openai.replay import EVENT_STREAM
from gateway.dialects.openai.request import read_chat_request
from gateway.edge.body import Receive
from gateway.edge.call import Call, Frontdesk, Scope, Send
from gateway.edge.wire import header_fields, header_lines
from gateway.errors import MethodNotAllowed
from gateway.model import ChatRequest
from gateway.pipeline import Pipeline
from gateway.reply import Reply

PATH = "/v1/chat/completions"


class Pieces(Protocol):
    """What a stream is sent from; see ``MeteredStream``."""

    def take(self) -> bytes | None:
        """What is there for the caller; ``b""`` at the end, None where nothing is there yet."""

    async def relay(self, push: Callable[[bytes], bool]) -> bytes | None:
        """After ``take`` gave None: hand on what comes, until something is not taken, the end, or ``take`` is asked."""


_LEAVE_ALONE = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""Asks caches and buffering proxies (nginx) on the way to leave a stream alone."""


class ChatCompletions:
    """The endpoint as an ASGI application."""

    def __init__(self, frontdesk: Frontdesk, pipeline: Pipeline, *, expose_backend: bool) -> None:
        self._frontdesk = frontdesk
        self._pipeline = pipeline
        self._expose_backend = expose_backend
        self.max_fields = frontdesk.limits.max_top_level_fields

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        return self._frontdesk.receive(scope, receive, send, self.handle)

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use POST here.", allow="POST")
        return self.complete(call, self._read)

    async def complete(self, call: Call, read: Callable[[bytes], ChatRequest]) -> None:
        """Answer a call whose body ``read`` makes a request of."""
        reply = await self._pipeline.chat(call.head.credentials, call, read, call.record)
        try:
            headers = reply_headers(reply, expose_backend=self._expose_backend)
            if reply.stream is not None:
                await send_stream(call, reply.status, reply.stream, headers)
            elif not call.respond(reply.status, reply.body or b"", header_lines(headers) + reply.lines):
                await call.answer(reply.status, reply.body or b"", headers + header_fields(reply.lines))
        finally:
            reply.close()

    def _read(self, body: bytes) -> ChatRequest:
        return read_chat_request(body, self.max_fields)


def reply_headers(reply: Reply, *, expose_backend: bool) -> list[tuple[bytes, bytes]]:
    """The header fields that say what a reply is and where it came from."""
    headers = [(b"content-type", reply.content_type), (b"x-llm-gateway-scenario", reply.scenario.encode())]
    if reply.headers:
        headers += reply.headers
    if reply.cache:
        headers += _cache_headers(reply)
    if expose_backend and reply.backend:
        headers.append((b"x-llm-gateway-backend", reply.backend.encode()))
    return headers


def _cache_headers(reply: Reply) -> Iterator[tuple[bytes, bytes]]:
    """What the cache did, and the age of a kept answer (RFC 9111, 5.1)."""
    yield b"x-llm-gateway-cache", reply.cache.encode()
    if reply.age_s is not None:
        yield b"age", b"%d" % reply.age_s
        if reply.content_type == EVENT_STREAM:
            yield from _LEAVE_ALONE


async def send_stream(call: Call, status: int, stream: Pieces, headers: list[tuple[bytes, bytes]]) -> None:
    """Pass on what comes as it comes: a piece that can be sent at once costs no coroutine."""
    headers += _LEAVE_ALONE
    await call.start(status, headers)
    while True:
        piece = stream.take()
        if piece is None:
            piece = await stream.relay(call.push)
            if piece is None:
                continue
        if not piece:
            break
        if not call.push(piece):
            await call.send(piece, more=True)
    await call.send(b"", more=False)
