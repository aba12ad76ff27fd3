"""``POST /v1/chat/completions``: plain ASGI, because every microsecond here is paid on every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from gateway.dialects.openai.replay import EVENT_STREAM
from gateway.dialects.openai.request import read_chat_request
from gateway.edge.body import Receive
from gateway.edge.call import Call, Frontdesk, Scope, Send
from gateway.edge.readings import Readings
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

_KINDS_MAX = 1024  # of answers, by what their header lines have in common


class ChatCompletions:
    """The endpoint as an ASGI application."""

    def __init__(self, frontdesk: Frontdesk, pipeline: Pipeline, *, expose_backend: bool) -> None:
        self._frontdesk = frontdesk
        self._pipeline = pipeline
        self._expose_backend = expose_backend
        self.max_fields = frontdesk.limits.max_top_level_fields
        self._readings = Readings()
        self._common_lines: dict[tuple[bytes, str, str, str], bytes] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        return self._frontdesk.receive(scope, receive, send, self.handle)

    def handle(self, call: Call) -> Awaitable[None]:
        """Answer one call; to be awaited at once. Raises MethodNotAllowed."""
        if call.scope["method"] != "POST":
            raise MethodNotAllowed("Use POST here.", allow="POST")
        return self.complete(call, partial(self._read, call))

    async def complete(self, call: Call, read: Callable[[bytes], ChatRequest]) -> None:
        """Answer a call whose body ``read`` makes a request of."""
        record = call.record
        reply = await self._pipeline.chat(call.head.credentials, call, read, record)
        try:
            if call.reading is not None and record.cache == "hit":
                self._readings.keep(record.tenant, *call.reading, record.started_at)
            if reply.stream is not None:
                await send_stream(call, reply.status, reply.stream, self._headers(reply))
            elif not call.respond(reply.status, reply.body or b"", self._lines(reply)):
                await call.answer(reply.status, reply.body or b"", self._headers(reply) + header_fields(reply.lines))
        finally:
            reply.close()

    def _headers(self, reply: Reply) -> list[tuple[bytes, bytes]]:
        return reply_headers(reply, expose_backend=self._expose_backend)

    def _lines(self, reply: Reply) -> bytes:
        """The header lines of a whole answer; those that good ones have in common are put together once."""
        if reply.status != 200 or reply.headers:
            return header_lines(self._headers(reply)) + reply.lines
        kind = (reply.content_type, reply.scenario, reply.cache, reply.backend)
        lines = self._common_lines.get(kind)
        if lines is None:
            lines = header_lines(_common_headers(reply, expose_backend=self._expose_backend))
            if len(self._common_lines) >= _KINDS_MAX:
                self._common_lines.clear()
            self._common_lines[kind] = lines
        return lines + reply.lines if reply.age_s is None else b"%bage: %d\r\n%b" % (lines, reply.age_s, reply.lines)

    def _read(self, call: Call, body: bytes) -> ChatRequest:
        record = call.record
        known = self._readings.find(record.tenant, body, record.started_at)
        if known is not None:
            return known
        request = read_chat_request(body, self.max_fields)
        call.reading = body, request
        return request


def reply_headers(reply: Reply, *, expose_backend: bool) -> list[tuple[bytes, bytes]]:
    """The header fields that say what a reply is, where it came from, and how old it is (RFC 9111, 5.1)."""
    headers = _common_headers(reply, expose_backend=expose_backend)
    if reply.age_s is not None:
        headers.append((b"age", b"%d" % reply.age_s))
    return [*headers, *reply.headers]


def _common_headers(reply: Reply, *, expose_backend: bool) -> list[tuple[bytes, bytes]]:
    """Those of the fields that follow from content type, scenario, backend and what the cache did."""
    headers = [(b"content-type", reply.content_type), (b"x-llm-gateway-scenario", reply.scenario.encode())]
    if reply.cache:
        headers.append((b"x-llm-gateway-cache", reply.cache.encode()))
        if reply.stream is None and reply.content_type == EVENT_STREAM:
            headers += _LEAVE_ALONE
    if expose_backend and reply.backend:
        headers.append((b"x-llm-gateway-backend", reply.backend.encode()))
    return headers


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
