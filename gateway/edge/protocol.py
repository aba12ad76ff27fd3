"""The client's side of the data port: bytes to requests, bounded in size, number and time.

A uvicorn protocol (``uvicorn.Config(http=GatewayProtocol)``) on httptools, written for a gateway: no timers of its own,
head and body of an answer in one write, and the client's departure told to the application at once.

Invariants:
- Requests of one connection are answered one at a time and in order.
- A request whose end could be read in two ways (RFC 9112, section 11.2) is refused and its connection closed: nothing
  after it is interpreted. What llhttp refuses is refused; beyond it, transfer codings other than ``chunked``, any
  transfer coding in HTTP/1.0, and a missing or repeated ``host``.
- An offer to upgrade is ignored and the request answered as HTTP/1.1 (RFC 9110, section 7.8); fields after the body
  (trailers) are dropped.
- Input is bounded before it is kept, by the connection. What is refused is answered in our JSON error envelope.
- Reading pauses only for the body of the request that is being answered: a client that leaves is noticed at once.
What a request means is the application's to decide.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import httptools

from gateway.clock import monotonic
from gateway.edge.connections import CONNECTION_EXTENSION, LINGER_MAX_S, LINGER_S, NEVER, Connections
from gateway.edge.exchange import HEAD_HELD, NOTHING, Exchange, error_response
from gateway.edge.known import TRIES, KnownHead, learn
from gateway.edge.pipelined import Pipelined
from gateway.edge.wire import (
    Enough,
    address_of,
    check_coding,
    check_head,
    head_too_large,
    new_parser,
    promises_little,
    refusal_of,
    scope_of,
    without_upgrade,
)
from gateway.edge.writing import WritingHalf
from gateway.errors import GatewayError, InvalidRequest, Overloaded, RequestTimeout

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, HTTPScope
    from uvicorn.config import Config

_log = logging.getLogger("gateway.connection")

IDLE, HEAD, BODY = range(3)


class GatewayProtocol(WritingHalf):
    """One client connection; the parameters are those that uvicorn's server gives."""

    fault: GatewayError | None = None  # of the body of the request that is being answered
    stalled = False  # cut by us, since the client took nothing of what waited for it

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, Any],  # noqa: ARG002  # lifespan state: the gateway keeps none
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__()
        self.app: ASGI3Application = config.loaded_app
        self.state = server_state
        self.loop = _loop or asyncio.get_running_loop()
        self._limits = server_state.limits
        self._read_paused = False
        self._deaf = False  # further input is dropped
        self._phase = IDLE  # of the message that is being parsed
        self._fed_bytes = 0  # received since the message began or since its last piece of body
        self._exchange: Exchange | None = None  # that is being answered
        self._parsing: Exchange | None = None  # whose body is being received
        self._behind = Pipelined()  # received behind it
        self._known: KnownHead | None = None
        self._learns = TRIES + 1  # the first request is none that comes again
        self._last_words: bytes | None = None  # refusal of a message behind it
        self._upgrading = b""  # the head to parse again, without its offer to upgrade
        self._idle_since = self._head_started = 0.0
        self._closes_at = self._linger_ends = NEVER
        self.parser = new_parser(self)

    # Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn has TCP only
        """A client has connected."""
        self.transport = transport
        self._client = address_of(transport.get_extra_info("peername"))
        self._server = address_of(transport.get_extra_info("sockname"))
        now = self._idle_since = monotonic()
        self._age_ends = self._limits.age_ends(now)
        state = self.state
        state.connections.add(self)  # type: ignore[arg-type]  # uvicorn lists its own protocols
        if not state.full:
            return
        state.warn_full()
        if state.overflowing:
            state.refused(Overloaded.code)
            transport.abort()
        else:
            self._phase = HEAD  # the client is about to send one
            self._refuse(Overloaded("The gateway has too many connections.", retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The connection is closed, by whomever: the application is told at once."""
        self.state.connections.discard(self)
        self._deaf = True
        self._disconnect()
        self.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it refers to us

    def eof_received(self) -> None:
        """The client has closed its side: it is gone, whatever it may still read."""
        if self._exchange is not None:
            self.abort()

    def abort(self) -> None:
        """Cut the connection, so that the client sees an incomplete response."""
        self._disconnect()
        self._deaf = True
        self.transport.abort()

    def _disconnect(self) -> None:
        exchange, self._exchange, self._parsing = self._exchange, None, None
        self._behind.clear()
        if exchange is not None:
            exchange.disconnect()

    def resume_reading(self) -> None:
        """Take more of the request body."""
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Parse what came; what is wrong with it is answered and ends the connection."""
        if self._deaf:
            if self._closes_at != NEVER:
                self._closes_at = min(monotonic() + LINGER_S, self._linger_ends)
            return
        if self._exchange is None and self._phase == IDLE:
            known = self._known
            if known is not None and (body_at := known.body_at(data)):
                self._serve_known(known, data[body_at:])
                return
            self._parse(data)
            if self._learns and self._exchange is not None and self._phase == IDLE and not self._behind:
                self._learn(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._fed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._deaf:  # else it stopped because we want no more
                self._refuse(refusal_of(error))
        if self._fed_bytes > self._limits.max_header_bytes and not self._deaf:
            self._refuse(
                head_too_large(self._limits)
                if self._phase == HEAD
                else InvalidRequest("The request's framing is too large.")
            )

    def _learn(self, data: bytes) -> None:
        """Keep the head of a request that came whole in ``data``, from the connection's second one on."""
        self._learns -= 1
        if self._learns < TRIES and self._last().keep_alive:
            self._known = learn(data, scope_of("POST", self.url, "1.1", self.headers, (self._server, self._client)))

    def _serve_known(self, known: KnownHead, body: bytes) -> None:
        """Begin with a request whose head has been parsed before."""
        self._learns = TRIES
        exchange = Exchange(self, monotonic(), http11=True, keep_alive=True)
        exchange.known = known
        exchange.whole_body(body)
        self._start(exchange, known.scope())

    # Parser callbacks

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._phase = HEAD
        self._head_started = monotonic()
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self._hosts = 0
        self._continues = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer, which is dropped."""
        if self._phase != HEAD:
            return  # a trailer
        name = name.lower()
        self.headers.append((name, value.rstrip()))  # llhttp strips the other side
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self._continues = value.rstrip().lower() == b"100-continue"
        elif name == b"transfer-encoding":
            check_coding(value)

    def on_headers_complete(self) -> None:
        """The head is complete: the application gets the request, now or after those before it."""
        parser = self.parser
        if parser.should_upgrade():
            self._upgrading = without_upgrade(parser.get_method(), self.url, parser.get_http_version(), self.headers)
            return
        self._phase = BODY
        version = parser.get_http_version()
        if (
            self._hosts != 1
            or version != "1.1"
            or not 0 < self._fed_bytes <= self._limits.max_header_bytes
            or len(self.headers) > self._limits.max_header_count
        ):
            check_head(version, self._hosts, self.url, self.headers, self._limits)
        http11 = version == "1.1"
        exchange = Exchange(self, self._head_started, http11, http11 and parser.should_keep_alive())
        exchange.continues = http11 and self._continues  # RFC 9110, section 10.1.1
        method = parser.get_method().decode("ascii")
        if method == "HEAD":
            exchange.head_only = True
        self._parsing = exchange
        scope = scope_of(method, self.url, version, self.headers, (self._server, self._client))
        if self._exchange is None:
            self._start(exchange, scope)
        elif not self._behind.add(exchange, scope):
            self._overflow()

    def on_body(self, body: bytes) -> None:
        """A piece of the body; reading pauses when the application is behind."""
        self._fed_bytes = 0
        exchange = self._parsing
        if exchange is None:
            return
        full = exchange.body(body)
        if exchange is not self._exchange:
            if not self._behind.hold(len(body)):
                self._overflow()
        elif full and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._phase = IDLE
        self._fed_bytes = 0
        exchange = self._parsing
        if exchange is not None:
            self._parsing = None
            exchange.end_of_body()
            if self._read_paused:
                self.resume_reading()

    # Requests in order

    def _start(self, exchange: Exchange, scope: HTTPScope) -> None:
        self._exchange = exchange
        scope["extensions"] = {CONNECTION_EXTENSION: exchange}  # type: ignore[dict-item]
        exchange.task = task = self.loop.create_task(exchange.run(self.app, scope))
        self.state.tasks.add(task)

    def ends_with(self, exchange: Exchange) -> bool:
        """Whether the connection should close after the response of ``exchange``, whose head is about to be sent."""
        if self._behind:
            return False
        state = self.state
        return (
            state.draining
            or state.now >= self._age_ends
            # The rest of an unread body is read past where it is small and sure to come, not waiting to be asked for.
            or (self._parsing is exchange and (exchange.continues or not promises_little(self.headers)))
        )

    def response_complete(self, exchange: Exchange) -> None:
        """Go on after a response: the next request, the close, or idle."""
        self._exchange = None
        self.state.total_requests += 1
        if self._parsing is exchange:
            self._parsing = None  # the rest of its body is read past
        self.resume_reading()
        if not exchange.keep_alive:
            self._close()
        elif self._behind:
            self._start(*self._behind.take())
        elif self._last_words is not None:
            self.transport.write(self._last_words)
            self._close()
        else:
            self._idle_since = self.state.now

    # Refusals and the end

    def _refuse(self, error: GatewayError) -> None:
        """Answer with ``error`` when it is this message's turn, and close; nothing after it is interpreted."""
        _log.debug("refused: %s", error.message)
        self._listen_no_more()
        exchange, parsing = self._exchange, self._parsing
        if exchange is None or parsing is not exchange:
            self.state.refused(error.code)
            if exchange is not None:
                self._behind.drop(parsing)
                self._last_words = error_response(error, self.state.head_lines)
                return
        else:  # the body of the request that is being answered, which the application accounts for
            self.fault = error
            if exchange.state not in (NOTHING, HEAD_HELD):
                self.abort()
                return
            self._disconnect()
        self.transport.write(error_response(error, self.state.head_lines))
        self._close()

    def _overflow(self) -> NoReturn:
        """More is pipelined than may wait: answer what fits and close, whereupon a client sends the rest again."""
        self._listen_no_more()
        self._behind.drop(self._parsing)
        self._parsing = None
        self._last().keep_alive = False
        raise Enough

    def _last(self) -> Exchange:
        """The last request that will be answered; one is being answered."""
        assert self._exchange is not None
        return self._behind[-1][0] if self._behind else self._exchange

    def _listen_no_more(self) -> None:
        self._deaf = True
        self.watch_anew()

    def _close(self) -> None:
        """Close once everything is sent; a client that is still sending gets a moment to read its answer."""
        self._listen_no_more()
        self._behind.clear()
        if self._phase == IDLE:
            self.transport.close()
            return
        now = monotonic()
        self._closes_at = now + LINGER_S
        self._linger_ends = now + LINGER_MAX_S
        self.transport.write_eof()
        self.resume_reading()

    def shutdown(self) -> None:
        """Close between requests; called by a server that ends, whose ``quiet_s`` is how long one may still come."""
        if self.state.quiet_s and not self._deaf:
            return  # a response says close, unless its head is sent already; what is idle is closed by the sweep
        if self._exchange is not None:
            self._last().keep_alive = False
        elif self._deaf:
            self._linger_ends = min(self._linger_ends, monotonic() + LINGER_S)
        else:
            if self._phase == HEAD:
                self._phase = IDLE  # nothing was answered that the client would have to read
            self._close()

    def sweep(self, now: float) -> None:
        """Act on every timeout that has passed at ``now`` (monotonic seconds)."""
        if self.write_paused or self._deaf:
            self._sweep_sending(now)
        if self._exchange is None and not self._deaf:
            self._sweep_between_requests(now)

    def _sweep_sending(self, now: float) -> None:
        """Cut a client that takes nothing of what waits for it, and one whose time to read a refusal is over."""
        if self.taken_nothing_for(now) >= self._limits.write_timeout_s:
            self.stalled = True
            self.abort()
        if now >= self._closes_at:
            self.transport.abort()

    def _sweep_between_requests(self, now: float) -> None:
        if self._phase == IDLE:
            if self.state.is_unused(self._idle_since, self._age_ends, now):
                self._close()
        elif now - max(self._head_started, self._idle_since) >= self._limits.header_timeout_s:
            if self._phase == HEAD:
                self._refuse(RequestTimeout("The request's head took too long to arrive."))
            else:
                self._close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head again without its offer to upgrade, since llhttp would not read the body, and go on."""
        self.parser = new_parser(self)
        self._fed_bytes = -len(self._upgrading) - len(rest)  # already counted
        self.data_received(self._upgrading + rest)
