"""One request and its response on a client connection: the ASGI ``receive`` and ``send`` of one application call.

Invariants: the head of a response leaves with the first byte of its body, in one write; nothing is sent after the
response is complete or the client is gone; a response whose length was promised is cut, never padded. An exchange
parses nothing and knows nothing of other requests on its connection: that is ``protocol``.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gateway.dialects.openai.errors import error_body
from gateway.errors import GatewayError, InternalError, Overloaded

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, HTTPScope

    from gateway.edge.known import KnownHead
    from gateway.edge.protocol import GatewayProtocol

_log = logging.getLogger("gateway.connection")

DISCONNECTED: Final = {"type": "http.disconnect"}
BODY_BUFFER_BYTES: Final = 65536  # of a request body that the application has not read yet; above it reading pauses
SMALL_PIECE_BYTES: Final = 1024  # a smaller piece of a request body is joined with those before it
SMALL_BODY_BYTES: Final = 65536  # joined with the head; a larger one is handed to the transport as it is

_FRAMING: Final = frozenset((b"content-length", b"connection", b"transfer-encoding"))
"""Response fields that the server decides on; their values in the application's head are advice."""

NOTHING, HEAD_HELD, STREAMING, COMPLETE = range(4)
UNKNOWN: Final = -1  # body length: ends with a chunk or with the connection

STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus
} | {529: b"HTTP/1.1 529 Overloaded\r\n"}  # of no register: Anthropic's, in its dialect


def error_response(error: GatewayError, head_lines: bytes) -> bytes:
    """The whole response, head and JSON envelope, that tells a client of ``error`` and closes the connection."""
    body = error_body(error)
    retry = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % max(1, round(error.retry_after_s))
    return b"%b%bcontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        STATUS_LINES[error.status],
        head_lines,
        len(body),
        retry,
        body,
    )


class Exchange:
    """One request and its response; also the request's ``ClientConnection``."""

    __slots__ = (
        "_callback",
        "_chunked",
        "_event",
        "_flows",
        "_headers",
        "_length",
        "_status",
        "buffered_bytes",
        "chunks",
        "continues",
        "delivered",
        "gone",
        "head_only",
        "http11",
        "keep_alive",
        "known",
        "more_body",
        "protocol",
        "request_started",
        "state",
        "task",
    )

    def __init__(self, protocol: GatewayProtocol, request_started: float, http11: bool, keep_alive: bool) -> None:
        self.protocol = protocol
        self.request_started = request_started
        self.http11 = http11
        self.keep_alive = keep_alive  # false: the connection closes after the response
        self.head_only = False
        self.continues = False  # the client waits for "100 Continue"
        self.chunks: list[bytes | bytearray] = []  # of the body, not read by the application yet
        self.buffered_bytes = 0
        self.more_body = True
        self.delivered = False  # the application has the last of the body
        self.gone = False
        self.state = NOTHING
        self._flows = False  # in chunks, and neither complete nor cut
        self.task: asyncio.Task[None] | None = None  # that runs the application
        self.known: KnownHead | None = None
        self._event: asyncio.Event | None = None
        self._callback: Callable[[], None] | None = None

    # ClientConnection

    @property
    def body_received(self) -> bool:
        """See ClientConnection."""
        return not self.more_body

    def take_body(self) -> bytes:
        """See ClientConnection."""
        body = b"".join(self.chunks)  # of one piece, this is the piece itself
        self._taken()
        return body

    @property
    def write_paused(self) -> bool:
        """See ClientConnection."""
        return self.protocol.write_paused

    @property
    def fault(self) -> GatewayError | None:
        """See ClientConnection."""
        return self.protocol.fault

    @property
    def stalled(self) -> bool:
        """See ClientConnection."""
        return self.protocol.stalled

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """See ClientConnection."""
        if self.gone and callback is not None:
            callback()
        elif self.state != COMPLETE:
            self._callback = callback

    def respond(self, status: int, fields: bytes, body: bytes) -> bool:
        """See ClientConnection."""
        protocol = self.protocol
        if self.state != NOTHING or self.gone or self.head_only or protocol.write_paused:
            return False
        closing = b""
        if not self.keep_alive or protocol.ends_with(self):
            self.keep_alive = False
            closing = b"connection: close\r\n"
        head = b"%b%b%bcontent-length: %d\r\n%b\r\n" % (
            STATUS_LINES[status],
            protocol.state.head_lines,
            fields,
            len(body),
            closing,
        )
        if len(body) <= SMALL_BODY_BYTES:
            protocol.transport.write(head + body)
        else:
            protocol.transport.writelines((head, body))
        self._complete()
        return True

    def push(self, body: bytes) -> bool:
        """See ClientConnection."""
        protocol = self.protocol
        if self._flows and body and not protocol.write_paused:  # as below, with fewer questions
            protocol.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            return True
        if self.gone or protocol.write_paused or self.state not in (HEAD_HELD, STREAMING):
            return False
        self._send_body(body, more_body=True)
        return True

    # What the protocol tells it

    def whole_body(self, body: bytes) -> None:
        """The request body, all of it."""
        if body:
            self.chunks.append(body)
            self.buffered_bytes = len(body)
        self.more_body = False

    def body(self, data: bytes) -> bool:
        """Take a piece of the request body; true when enough is waiting and reading should pause."""
        if len(data) < SMALL_PIECE_BYTES and self.chunks:
            self._join(data)
        else:
            self.chunks.append(data)
        self.buffered_bytes += len(data)
        if self._event is not None:
            self._event.set()
        return self.buffered_bytes > BODY_BUFFER_BYTES

    def _join(self, data: bytes) -> None:
        """Keep a small piece without the memory of an object: a client chooses how many it sends."""
        last = self.chunks[-1]
        if isinstance(last, bytearray):
            last += data
        else:
            self.chunks.append(bytearray(data))

    def end_of_body(self) -> None:
        """The request body is complete."""
        self.more_body = False
        if self._event is not None:
            self._event.set()

    def disconnect(self) -> None:
        """The client is gone; tells the application, once."""
        if self.gone or self.state == COMPLETE:
            return
        self.gone = True
        self._flows = False
        if self._event is not None:
            self._event.set()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    # ASGI

    async def run(self, app: ASGI3Application, scope: HTTPScope) -> None:
        """Call the application and make sure that the client is not left waiting, whatever it does."""
        try:
            await app(scope, self.receive, self.send)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001  # the server's last resort: the client must not be left waiting
            _log.exception("the application failed")
        finally:
            task, self.task = self.task, None
            self.protocol.state.tasks.discard(task)
            if self.state != COMPLETE and not self.gone:
                self._give_up(cancelled=task is not None and task.cancelling() > 0)

    def _give_up(self, *, cancelled: bool) -> None:
        """The application ended before its response did; ``cancelled`` by the server, which is ending."""
        protocol = self.protocol
        self.keep_alive = False
        if self.state in (NOTHING, HEAD_HELD):
            error: GatewayError = InternalError("no response")
            if cancelled:
                error = Overloaded("The gateway is shutting down.", code="shutting_down", retry_after_s=1)
            protocol.transport.write(error_response(error, protocol.state.head_lines))
            self._complete()
        else:
            protocol.abort()

    async def receive(self) -> dict[str, Any]:
        """The next piece of the request body, then the disconnect (ASGI HTTP 2.3)."""
        if self.continues and self.state == NOTHING:
            self.continues = False
            if not self.gone:
                self.protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self.gone and self.state != COMPLETE:
            if self.chunks or not (self.more_body or self.delivered):
                return self._next_piece()
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        return DISCONNECTED

    def _next_piece(self) -> dict[str, Any]:
        body = b"".join(self.chunks)
        self._taken()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def _taken(self) -> None:
        self.chunks.clear()
        if self.buffered_bytes > BODY_BUFFER_BYTES:
            self.protocol.resume_reading()
        self.buffered_bytes = 0
        self.delivered = not self.more_body

    async def send(self, message: dict[str, Any]) -> None:
        """Send the response's head or a piece of its body; waits while the client reads too slowly.

        Raises RuntimeError where the messages are out of order, or the body differs from its promised length.
        """
        if self.protocol.write_paused and not self.gone:
            await self.protocol.drained()
        if self.gone:
            return
        if self.state == NOTHING:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"expected http.response.start, not {message['type']}")
            self._status = message["status"]
            self._headers = message.get("headers", ())
            self.state = HEAD_HELD
        elif self.state == COMPLETE or message["type"] != "http.response.body":
            raise RuntimeError(f"unexpected {message['type']}")
        else:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    def _send_body(self, body: bytes, more_body: bool) -> None:
        head = b""
        if self.state == HEAD_HELD:
            head = self._head(body, more_body)
            self.state = STREAMING
            self._flows = self._chunked and more_body and not self.head_only
        if self.head_only:
            body = b""
        elif self._chunked:
            body = self._chunk(body, more_body)
        elif self._length != UNKNOWN:
            self._length -= len(body)
            if self._length < 0 or (self._length and not more_body):
                self._wrong_length()
        if len(body) <= SMALL_BODY_BYTES:
            self.protocol.transport.write(head + body)
        else:
            self.protocol.transport.writelines((head, body))
        if not more_body:
            self._complete()

    @staticmethod
    def _chunk(body: bytes, more_body: bool) -> bytes:
        """RFC 9112, section 7.1."""
        if more_body:
            return b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"

    def _wrong_length(self) -> NoReturn:
        self.protocol.abort()
        raise RuntimeError("the response body differs from its content-length")

    def _head(self, body: bytes, more_body: bool) -> bytes:
        """The head's bytes; decides how the body is framed and whether the connection survives.

        Header names are lower case, as ASGI demands. Raises RuntimeError where a field holds a line break.
        """
        fields = []
        length: int | None = None
        for name, value in self._headers:
            if name in _FRAMING:
                if name == b"content-length":
                    length = int(value)
                elif name == b"connection" and b"close" in value.lower():
                    self.keep_alive = False
                continue
            fields.append(name + b": " + value)
        self._headers = ()
        self._frame(fields, length, body, more_body)
        if not self.keep_alive or self.protocol.ends_with(self):
            self.keep_alive = False
            fields.append(b"connection: close")
        count = len(fields) + 1
        fields.append(b"\r\n")
        block = b"\r\n".join(fields)
        if block.count(b"\n") != count or block.count(b"\r") != count:
            raise RuntimeError("a response header holds a line break")
        status_line = STATUS_LINES.get(self._status) or b"HTTP/1.1 %d \r\n" % self._status
        return status_line + self.protocol.state.head_lines + block

    def _frame(self, fields: list[bytes], length: int | None, body: bytes, more_body: bool) -> None:
        """Choose content-length, chunks or the connection's end for the body (RFC 9112, section 6.3)."""
        self._chunked = False
        self._length = UNKNOWN
        if self._status in (204, 304) or self._status < 200:
            self.head_only = True
            return
        if length is None and not more_body and not self.head_only:
            length = len(body)
        if length is not None:
            self._length = length
            fields.append(b"content-length: %d" % length)
        elif self.http11:
            self._chunked = True
            fields.append(b"transfer-encoding: chunked")
        else:
            self.keep_alive = False

    def _complete(self) -> None:
        self.state = COMPLETE
        self._flows = False
        self._callback = None
        self.chunks.clear()
        if self._event is not None:
            self._event.set()
        self.protocol.response_complete(self)
