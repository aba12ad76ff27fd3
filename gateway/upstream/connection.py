"""One HTTP/1.1 connection to a backend, one exchange at a time, parsed by llhttp through httptools.

Invariants:
- Not one byte is read past a response: bytes after its end, bytes on an idle connection, a response with an ambiguous
  length, or a head beyond its bounds end the connection with an error and it is never used again (RFC 9112, 6.3, 9).
- A connection is reusable only after the whole response arrived, the whole request left, and both sides allow it.
- Reading stops while ``read_buffer_bytes`` wait to be taken, so a slow reader slows the backend and not our memory.

Timeouts are deadlines kept here and judged by the client's sweep: no timer is made per exchange.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence

import httptools

from gateway.clock import monotonic
from gateway.errors import AttemptFailed, Outcome
from gateway.model import Timeouts
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.source import Takeable

_MAX_INTERIM_RESPONSES = 8
_SMALL_BODY_BYTES = 65_536
_BODILESS = frozenset({204, 304})
_IDENTITY = frozenset({b"", b"identity"})
_NEVER = float("inf")


class _Refused(Exception):
    """Raised inside a parser callback; the connection fails with its text."""


class Connection(asyncio.Protocol, Takeable):
    """The protocol object of one connection; owned by its pool while idle, by one exchange while busy.

    Once the future of ``start`` is done: either ``status``, ``headers`` (names in lower case) and ``delimited``, which
    is False where only the close of the connection ends the body; or ``status`` is 0 and ``error`` says why.
    """

    def __init__(self, limits: UpstreamLimits, on_idle_loss: Callable[[Connection], None]) -> None:
        self._limits = limits
        self._max_fields = limits.max_header_count
        self._on_idle_loss = on_idle_loss
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._listener: Callable[[bool], None] | None = None
        self._timeouts = Timeouts()
        self.address = ""
        self.idle_since = monotonic()
        self.old_at = self.idle_since + limits.connection_max_age_s
        self.busy = False
        self.closed = False
        self._full: asyncio.Future[None] | None = None  # done when what is written has left, or never will
        self.delimited = True
        self._keep_alive = False
        self._poll: select.poll | None = None
        self._begin()

    def _begin(self) -> None:
        """Forget the last exchange."""
        self.status = 0  # of the final response, once its head is complete
        self.headers: list[tuple[bytes, bytes]] = []
        self.coding = b""  # content coding, in lower case; empty for none
        self.received_any = self.complete = self._is_begun = self._paused = False
        self.error: AttemptFailed | None = None
        self._interim = self._trailers = self._unparsed = self._buffered = 0
        self._chunks: list[bytes] = []
        self._is_open = False  # more of the request is to follow

    # -- the exchange --------------------------------------------------------------------------------------------

    def start(self, parts: Sequence[bytes], timeouts: Timeouts, since: float) -> asyncio.Future[None]:
        """Send a request, given as the bytes that make it up; the connection must be idle. Timeouts count ``since``.

        The future is done when the head of the final response is there, or never will be.
        """
        assert self._transport is not None
        self._begin()
        self.busy = True
        self._timeouts = timeouts
        self._total_deadline = since + timeouts.total_s
        self._stage_deadline = since + timeouts.first_byte_s
        self._waiter = waiter = self._loop.create_future()
        if self.closed:  # just after it was made
            self._fail("reset", "connection closed before any answer")
        elif len(parts[-1]) <= _SMALL_BODY_BYTES:  # to copy it costs less than a write of two pieces
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)
        return waiter

    def start_open(self, head: bytes, timeouts: Timeouts, since: float) -> asyncio.Future[None]:
        """The same for a request whose body follows by ``write``, then ``end``; until then no answer has to begin."""
        waiter = self.start((head,), timeouts, since)
        self._is_open = True
        self._stage_deadline = _NEVER
        return waiter

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the backend does not take it, for as long as an answer may take."""
        if self._transport is None or self.closed:
            return  # the future of the start tells why
        self._transport.write(data)
        if self._full is not None:
            self._stage_deadline = monotonic() + self._timeouts.first_byte_s
            await asyncio.shield(self._full)
            self._stage_deadline = _NEVER

    def end(self) -> None:
        """The request is complete: from now on the answer has to begin."""
        self._is_open = False
        self._stage_deadline = monotonic() + self._timeouts.first_byte_s

    def begun(self) -> None:
        """The answer really began: from now on it must go on (``idle_s``); until now it had to begin.

        Bytes alone do not say so: servers send comments while a request waits for its turn.
        """
        if not self._is_begun:
            self._is_begun = True
            self._stage_deadline = monotonic() + self._timeouts.idle_s

    def whole(self) -> bytes | None:
        """All of the body that was not yet taken, if its end has arrived too."""
        return self._taken() if self.complete and self.error is None else None

    def take(self) -> bytes | None:
        """All body bytes that have arrived; ``b""`` at the end of the body, None if there are none yet.

        Raises AttemptFailed after everything that arrived before the failure has been taken.
        """
        if self._chunks:
            return self._taken()
        if self.error is not None:
            raise self.error
        return b"" if self.complete else None

    def arrival(self) -> asyncio.Future[None]:
        """Done when ``take`` has something to say, or soon after."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def listen(self, listener: Callable[[bool], None] | None) -> None:
        """Have ``listener`` called whenever ``take`` has something to say, with True when it is the last of it.

        Once for all that has arrived, from within the event loop's read; it must not raise. None ends it.
        """
        self._listener = listener

    def _taken(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        if self._paused:
            self._paused = False
            if self._is_begun:
                self._stage_deadline = monotonic() + self._timeouts.idle_s
            if self._transport is not None and not self.closed:
                self._transport.resume_reading()
        return data

    def _wake(self) -> None:
        waiter = self._waiter
        if self._listener is not None:
            self._listener(self.complete or self.error is not None)
        elif waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def finish(self) -> bool:
        """End the exchange; True if the connection may serve another one, else it is closed here and now."""
        self.busy = False
        self._listener = None
        transport = self._transport
        reusable = (
            self.complete
            and self._keep_alive
            and not self._paused
            and not self._is_open
            and self.error is None
            and not self.closed
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )
        if reusable:
            self.idle_since = monotonic()
        else:
            self.abort()
        return reusable

    def is_readable(self) -> bool:
        """Whether anything, an end too, waits in the kernel that the loop had no time to read; for an idle connection.

        It would be taken for the answer to the next request. TLS is no exception: what a server sends unasked is a
        session ticket, right after the handshake and so before an answer.
        """
        if self._poll is None:  # poll, as select ends at file 1023; one for the connection's life, as it costs to make
            assert self._transport is not None
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def abort(self) -> None:
        """Close at once; what has not been written is dropped."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def expire(self, now: float) -> float:
        """Fail the exchange if one of its deadlines has passed at ``now``; returns when to look again at the latest."""
        if self.complete or self.error is not None:
            return _NEVER
        if now >= self._total_deadline:
            self._fail("total_timeout", f"not done after {self._timeouts.total_s:g} s")
            return _NEVER
        idle_deadline = now + self._timeouts.idle_s  # if a byte came, or reading went on, this very moment
        if self._paused:  # it is not the backend that is slow
            resumed_deadline = idle_deadline if self._is_begun else max(self._stage_deadline, now)
            return min(self._total_deadline, resumed_deadline, idle_deadline)
        if now < self._stage_deadline:
            return min(self._total_deadline, self._stage_deadline, idle_deadline)
        if self._is_begun:
            self._fail("idle_timeout", f"nothing more within {self._timeouts.idle_s:g} s")
        else:
            self._fail("first_byte_timeout", f"no answer begun within {self._timeouts.first_byte_s:g} s")
        return _NEVER

    def _fail(self, outcome: Outcome, detail: str) -> None:
        if self.error is None:
            self.error = AttemptFailed(outcome, detail, status=self.status or None)
        self._wake()
        self.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP and TLS only
        """Keep the transport; its peer's address tells the pool when DNS has moved on."""
        self._transport = transport
        if self.closed:  # given up while it was being made
            transport.abort()
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""

    def pause_writing(self) -> None:
        """The backend takes less than is written."""
        if self._full is None:
            self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has taken enough."""
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse; anything out of place ends the connection."""
        if not self.busy or self.complete:
            self._out_of_place()
            return
        self.received_any = True
        self._unparsed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("protocol_error", "the backend switched protocols unasked")
        except httptools.HttpParserCallbackError as error:
            self._fail("protocol_error", str(error.__context__ or error))
        except httptools.HttpParserError as error:
            self._fail("protocol_error", f"not valid HTTP/1.1: {error}")
        else:
            if self._unparsed > self._limits.max_header_bytes:
                self._fail("protocol_error", f"more than {self._limits.max_header_bytes} bytes of header fields")
                return
            if self._is_begun and self._chunks:
                self._stage_deadline = monotonic() + self._timeouts.idle_s
            if self._listener is not None:
                self._listener(self.complete)
            elif self.status:
                self._wake()
            if self._buffered >= self._limits.read_buffer_bytes and not self._paused and not self.complete:
                self._paused = True
                assert self._transport is not None
                self._transport.pause_reading()

    def _out_of_place(self) -> None:
        """Bytes that belong to no exchange: the two sides no longer agree on where a message ends."""
        if self.busy:
            self._fail("protocol_error", "bytes after the end of the response")
            return
        self.abort()
        self._on_idle_loss(self)

    def eof_received(self) -> bool:
        """The backend closed its side; so do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange: well, if the body runs until the close; else as a reset."""
        self.closed = True
        self.resume_writing()
        if not self.busy:
            self._on_idle_loss(self)
            return
        if self.complete or self.error is not None:
            return
        if self.status and not self.delimited and exc is None:
            self.complete = True
            self._wake()
            return
        where = "in the body" if self.status else "in the head" if self.received_any else "before any answer"
        reason = f" ({exc})" if exc is not None else ""
        self._fail("reset", f"connection closed {where}{reason}")

    # -- parser callbacks ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A message starts; after a complete response there may be none."""
        if self.complete:
            raise _Refused("bytes after the end of the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header field; trailers are counted and dropped."""
        headers = self.headers
        if len(headers) + self._trailers >= self._max_fields:
            raise _Refused(f"more than {self._max_fields} header fields")
        if self.status:
            self._trailers += 1
        else:
            headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide how long the body is, from the head alone."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._skip_interim(status)
            return
        if self._unparsed > self._limits.max_header_bytes and not self._fits_head():
            raise _Refused(f"more than {self._limits.max_header_bytes} bytes of header fields")
        self._keep_alive = self._parser.should_keep_alive()
        self.delimited = self._read_framing() or status in _BODILESS
        self._unparsed = 0
        self.status = status

    def _skip_interim(self, status: int) -> None:
        """1xx answers come before the final one and mean nothing to us (RFC 9110, 15.2)."""
        self._interim += 1
        if status == 101 or self._interim > _MAX_INTERIM_RESPONSES:
            raise _Refused(f"unexpected interim response {status}")
        self.headers.clear()

    def _fits_head(self) -> bool:
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return size <= self._limits.max_header_bytes

    def _read_framing(self) -> bool:
        """Whether the head says where the body ends; takes note of its coding."""
        has_length = False
        for name, value in self.headers:
            if name == b"content-length":
                has_length = True
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or self._parser.get_http_version() != "1.1":
                    raise _Refused("a transfer-encoding other than chunked, or in HTTP/1.0")
                has_length = True
            elif name == b"content-encoding":
                coding = value.strip().lower()
                if coding not in _IDENTITY:
                    self.coding = coding
        return has_length

    def on_body(self, body: bytes) -> None:
        """Keep what arrived until it is taken; called for every chunk, so the rest is done once per read."""
        self._unparsed = 0
        self._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        """The response is whole (an interim one does not count)."""
        if self.status:
            self.complete = True
