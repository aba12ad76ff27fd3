"""One request on the data port, from its head to its log line: what every endpoint has in common.

Invariants:
- Whatever happens, the request is answered once, counted once and logged once.
- A client that leaves cancels the task that serves it, at once and wherever it waits; on the way out the upstream
  connection is closed and the lease settled.
- No exception text but the public one of a GatewayError reaches a client.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.auth import ClientAddress
from gateway.clock import monotonic
from gateway.dialects.contract import ErrorDialect
from gateway.dialects.openai.errors import OPENAI_ERRORS
from gateway.edge.body import ClientGone, Receive, read_body, too_large
from gateway.edge.connections import CONNECTION_EXTENSION, ClientConnection
from gateway.edge.head import RequestHead, read_head, refuse_encoded_body
from gateway.edge.wire import header_lines
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, Overloaded, RequestTimeout
from gateway.model import ChatRequest, Frozen
from gateway.telemetry import AccessLog, Metrics, RequestRecord, new_request_id, new_trace

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_log = logging.getLogger("gateway.edge")
_CLIENT_GONE = 499  # nginx's status for a client that closed the request; never sent, only logged


class EdgeLimits(Frozen, frozen=True):
    """Bounds of what a request may bring; bytes, seconds, counts."""

    max_body_bytes: int = 20_971_520
    body_timeout_s: float = 60.0
    max_top_level_fields: int = 256
    max_upload_bytes: int = 104_857_600
    routing_headers: frozenset[str] = frozenset()  # names that conditions of targets may look at


class Call:
    """A request being served: its head, its record, and how to answer it."""

    __slots__ = (
        "_connection",
        "_receive",
        "_send",
        "_task",
        "_watcher",
        "dialect",
        "direct",
        "gone",
        "has_body",
        "head",
        "limits",
        "reading",
        "record",
        "scope",
        "started",
    )

    def __init__(
        self,
        desk: Frontdesk,
        scope: Scope,
        receive: Receive,
        send: Send,
        connection: ClientConnection | None,
        head: RequestHead,
    ) -> None:
        self.scope = scope
        self.head = head
        self.dialect: ErrorDialect = OPENAI_ERRORS
        self.gone = False
        self.has_body = True  # there may be more of it
        self.started = False
        self.direct = not desk.is_wrapped
        self.reading: tuple[bytes, ChatRequest] | None = None  # the body, where it had to be read
        self._receive = receive
        self._send = send
        self.limits = desk.limits
        self._watcher: asyncio.Task[None] | None = None
        self._connection = connection
        self._task: asyncio.Task[Any] | None = asyncio.current_task() if connection is None else connection.task
        self.record = RequestRecord(
            request_id=head.request_id or new_request_id(),
            trace=head.trace or new_trace(),
            client_ip=head.credentials.client_ip,
            started_at=monotonic() if connection is None else connection.request_started,
        )
        if connection is not None:
            connection.on_disconnect(self.leave)

    @property
    def routing_headers(self) -> Mapping[str, str]:
        """The headers that conditions of targets may look at."""
        return self.head.routing

    def leave(self) -> None:
        """The client is gone: end the task that serves it."""
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    @property
    def cache_control(self) -> bytes:
        """What the caller says of answers that were kept."""
        return self.head.cache_control

    def body_now(self) -> bytes | None:
        """The request's body where all of it has arrived, else None. Raises InvalidRequest, RequestTooLarge."""
        if self.head.content_encoding:
            refuse_encoded_body(self.head)
        connection = self._connection
        if connection is None or not connection.body_received:
            return None
        body = connection.take_body()
        if len(body) > self.limits.max_body_bytes:
            raise too_large(self.limits.max_body_bytes)
        self.record.bytes_in = len(body)
        return body

    async def body(self) -> bytes:
        """The request's body, waited for. Raises InvalidRequest, RequestTooLarge, RequestTimeout, ClientGone."""
        body = self.body_now()
        if body is not None:
            return body
        limits = self.limits
        started_at = monotonic()
        try:
            body = await read_body(
                self._receive, self.head.content_length, limits.max_body_bytes, limits.body_timeout_s
            )
        finally:
            self.record.client_wait_s += monotonic() - started_at
        self.record.bytes_in = len(body)
        if self._connection is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="watch for a disconnect")
        return body

    async def piece(self) -> bytes:
        """The next piece of a body that is passed on as it comes; ``b""`` at its end.

        Each has the time that a whole body has otherwise. Raises RequestTimeout, ClientGone.
        """
        started_at = monotonic()
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                while self.has_body:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        raise ClientGone
                    self.has_body = message.get("more_body", False)
                    if data := message.get("body", b""):
                        self.record.bytes_in += len(data)
                        return bytes(data)
                return b""
        except TimeoutError:
            raise RequestTimeout("The request's body took too long to arrive.") from None
        finally:
            self.record.client_wait_s += monotonic() - started_at

    async def _watch(self) -> None:
        """On a server that does not tell: wait for the disconnect, which after the body is all that can come."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.record.finished_at:
            self.leave()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the answer."""
        self.started = True
        self.record.status = status
        headers.append((b"x-request-id", self.record.request_id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def push(self, body: bytes) -> bool:
        """Send a piece of the body at once, where the client keeps up; else False, and ``send`` has to wait for it."""
        connection = self._connection
        if connection is None or not self.direct or not connection.push(body):
            return False
        self.record.bytes_out += len(body)
        return True

    async def send(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body; waits while the client reads slowly."""
        record = self.record
        record.bytes_out += len(body)
        started_at = monotonic()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        record.client_wait_s += monotonic() - started_at

    def respond(self, status: int, body: bytes, lines: bytes) -> bool:
        """Send a whole answer at once, where the client keeps up; else False, and ``answer`` has to.

        ``lines`` are header lines as ``wire.header_lines`` makes them.
        """
        connection = self._connection
        record = self.record
        if (
            connection is None
            or not self.direct
            or not connection.respond(status, b"%bx-request-id: %b\r\n" % (lines, record.request_id.encode()), body)
        ):
            return False
        self.started = True
        record.status = status
        record.bytes_out += len(body)
        return True

    async def answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a whole answer."""
        if self.respond(status, body, header_lines(headers)):
            return
        headers.append((b"content-length", b"%d" % len(body)))
        await self.start(status, headers)
        await self.send(body, more=False)

    async def refuse(self, error: GatewayError) -> None:
        """Tell the client of ``error``, and the record of its detail."""
        note_error(self.record, error)
        if not self.started:
            fields = self.dialect.header_fields(error_headers(error))
            await self.answer(self.dialect.status(error), self.dialect.error_body(error), fields)

    async def cut(self) -> None:
        """The gateway ends before the request does: say so, as a refusal or as the last event of a stream."""
        error = Overloaded("The gateway is shutting down.", code="shutting_down", retry_after_s=1)
        streams = self.started and self.record.stream_end_reason not in {None, "complete"}
        await self.refuse(error)
        if streams:
            self.record.stream_end_reason = "shutting_down"
            await self.send(self.dialect.error_event(error), more=False)

    def end(self) -> None:
        """Stop watching; the record is complete."""
        if self._watcher is not None:
            self._watcher.cancel()
        record = self.record
        record.finished_at = monotonic()
        if self.gone and record.outcome == "" and record.stream_end_reason != "complete":
            self._note_departure()
        elif record.outcome == "":
            record.outcome = "ok" if record.status < 400 else "refused"

    def _note_departure(self) -> None:
        """Why the client is gone: of its own will, or because of what the server could not accept of it."""
        record = self.record
        fault = None if self._connection is None else self._connection.fault
        if fault is not None:
            note_error(record, fault)
            return
        record.status = _CLIENT_GONE
        record.outcome = record.error_code = "client_gone"
        if self._connection is not None and self._connection.stalled:
            record.detail = "it took none of the answer for too long"


def note_error(record: RequestRecord, error: GatewayError) -> None:
    """Keep what an operator wants to know of ``error``."""
    record.status = error.status
    record.error_code = error.code
    record.outcome = error.code
    record.detail = error.detail or ""


def error_headers(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """The header fields of an answer that tells of ``error``."""
    headers = [(b"content-type", b"application/json"), *error.headers]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(math.ceil(error.retry_after_s), 0)).encode()))
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers.append((b"allow", error.allow.encode()))
    return headers


class Frontdesk:
    """Receives requests: makes the Call, has it handled, and closes the books on it."""

    def __init__(
        self,
        limits: EdgeLimits,
        addresses: ClientAddress,
        metrics: Metrics,
        access_log: AccessLog,
        judge: Callable[[RequestRecord], None],
    ) -> None:
        self.limits = limits
        self.is_wrapped = False  # by something that must see the messages of every answer
        self._addresses = addresses
        self._metrics = metrics
        self._access_log = access_log
        self._judge = judge  # is told of what may say something of a canary

    async def receive(
        self, scope: Scope, receive: Receive, send: Send, handle: Callable[[Call], Awaitable[None]]
    ) -> None:
        """Serve one request with ``handle``."""
        extensions = scope.get("extensions")
        connection: ClientConnection | None = extensions.get(CONNECTION_EXTENSION) if extensions else None
        call = Call(self, scope, receive, send, connection, self._head(scope, connection))
        self._metrics.request_started()
        try:
            await handle(call)
        except GatewayError as error:
            await call.refuse(error)
        except ClientGone:
            call.gone = True
        except asyncio.CancelledError:
            if not call.gone:
                await call.cut()
                raise
            asyncio.current_task().uncancel()  # type: ignore[union-attr]  # a coroutine of ours runs in a task
        except Exception as error:  # noqa: BLE001  # the last line of defence: a fault of ours is a 500 and a trace in our log
            _log.exception("a request failed: %s", call.record.request_id)
            await call.refuse(InternalError(type(error).__name__))
        finally:
            call.end()
            self._metrics.request_finished(call.record)
            self._access_log.write(call.record)
            if call.record.rollout:
                self._judge(call.record)

    def _head(self, scope: Scope, connection: ClientConnection | None) -> RequestHead:
        """What the head says; read once where a connection sends it again and again."""
        known = None if connection is None else connection.known
        if known is None:
            return read_head(scope, self._addresses, self.limits.routing_headers)
        if known.derived is None:
            known.derived = read_head(scope, self._addresses, self.limits.routing_headers)
        head: RequestHead = known.derived
        return head
