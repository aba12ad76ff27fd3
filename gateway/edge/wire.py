"""Rules of a request's head as it comes off the wire: what is refused, what is read as what. Pure.

Sources: RFC 9112 (HTTP/1.1), sections 2.3, 3.2, 6.1, 11.2; RFC 9110, section 7.8; RFC 6585, section 5.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import httptools

from gateway.errors import GatewayError, HeadersTooLarge, InternalError, InvalidRequest, MethodNotAllowed

if TYPE_CHECKING:
    from uvicorn._types import ASGIVersions, HTTPScope

    from gateway.edge.connections import ConnectionLimits

IGNORED_BODY_BYTES_MAX: Final = 65536
"""Of a body whose rest is read past after an early answer, rather than closing."""

ASGI_VERSION: Final[ASGIVersions] = {"version": "3.0", "spec_version": "2.3"}

Fields = list[tuple[bytes, bytes]]
Address = tuple[str, int] | None

_log = logging.getLogger("gateway.connection")


class Refusal(Exception):
    """Raised inside a parser callback to stop the parser; ``error`` is what the client is told."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


class Enough(Exception):
    """Raised inside a parser callback to stop the parser: what follows is of no interest."""


def new_parser(callbacks: object) -> httptools.HttpRequestParser:
    """A parser of requests. What follows a request that closes the connection is dropped rather than an error."""
    parser = httptools.HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def check_coding(coding: bytes) -> None:
    """Raise Refusal for a transfer coding other than ``chunked``: we would have to decode it to find the body."""
    if coding.rstrip().lower() != b"chunked":
        raise Refusal(InvalidRequest("Only the transfer coding 'chunked' is understood."))


def check_head(version: str, hosts: int, url: bytes, fields: Fields, limits: ConnectionLimits) -> None:
    """Raise Refusal where a whole head is ambiguous, or larger than allowed. ``hosts`` is how many it names."""
    if version != "1.1":
        if version != "1.0":
            raise Refusal(InvalidRequest("Only HTTP/1.1 and HTTP/1.0 are spoken here."))
        if any(name == b"transfer-encoding" for name, _ in fields):
            raise Refusal(InvalidRequest("HTTP/1.0 has no transfer codings."))
    if hosts != 1 and (hosts or version == "1.1"):
        raise Refusal(InvalidRequest("Exactly one 'host' header is needed."))
    size = len(url) + sum(len(name) + len(value) + 4 for name, value in fields)
    if size > limits.max_header_bytes or len(fields) > limits.max_header_count:
        raise Refusal(head_too_large(limits))


def head_too_large(limits: ConnectionLimits) -> GatewayError:
    """What the client is told of a head beyond the bounds."""
    return HeadersTooLarge(
        f"The request's headers are larger than {limits.max_header_bytes} bytes or more than {limits.max_header_count}."
    )


def promises_little(fields: Fields) -> bool:
    """Whether a request's body has a known length that is cheaper to read past than a new connection."""
    lengths = [int(value) for name, value in fields if name == b"content-length"]
    return bool(lengths) and lengths[0] <= IGNORED_BODY_BYTES_MAX


def split_target(url: bytes) -> tuple[bytes, str, bytes]:
    """Raw path, decoded path and query of a request target in origin or absolute form, or ``*``.

    Raises Refusal for a target that is neither.
    """
    if not url.startswith(b"/"):
        try:
            parsed = httptools.parse_url(url)
        except (httptools.HttpParserError, TypeError):
            raise Refusal(InvalidRequest("The request's target is not valid.", code="invalid_http")) from None
        url = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
    raw_path, _, query = url.partition(b"?")
    path = raw_path.decode("ascii")
    return raw_path, unquote(path) if "%" in path else path, query


def scope_of(method: str, url: bytes, version: str, fields: Fields, ends: tuple[Address, Address]) -> HTTPScope:
    """The ASGI scope of a request without extensions; ``ends`` are our address and the client's. Raises Refusal."""
    server, client = ends
    raw_path, path, query = split_target(url)
    return {
        "type": "http",
        "asgi": ASGI_VERSION,
        "http_version": version,
        "server": server,
        "client": client,
        "scheme": "http",
        "method": method,
        "root_path": "",
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": fields,
    }


def without_upgrade(method: bytes, url: bytes, version: str, fields: Fields) -> bytes:
    """The head again, without its offer to upgrade. Raises Refusal for CONNECT, which has nothing else to say."""
    if method == b"CONNECT":
        raise Refusal(MethodNotAllowed("CONNECT is not allowed here."))
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in fields:
        if name == b"connection":
            tokens = {token.strip() for token in value.lower().split(b",")}
            lines.append(b"connection: " + b", ".join(tokens & {b"close", b"keep-alive"}))
        elif name not in (b"upgrade", b"http2-settings"):
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refusal_of(error: httptools.HttpParserError) -> GatewayError:
    """What to tell the client when the parser stopped: our own refusal where a callback raised one."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause.error
    if isinstance(error, httptools.HttpParserCallbackError):
        _log.error("a parser callback failed", exc_info=cause)
        return InternalError("a parser callback failed")
    return InvalidRequest(f"The request is not valid HTTP: {str(error)[:200]}", code="invalid_http")


def header_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header fields as they are sent. Raises RuntimeError where one holds a line break."""
    lines = [name + b": " + value for name, value in fields]
    block = b"\r\n".join([*lines, b""])
    if block.count(b"\n") != len(lines) or block.count(b"\r") != len(lines):
        raise RuntimeError("a response header holds a line break")
    return block


def header_fields(lines: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of header lines, as ``header_lines`` makes them."""
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n") if line)
    return [(name, value) for name, _, value in pairs]


def address_of(value: Any) -> Address:
    """Host and port of a socket address; IPv4 in IPv6 clothes as IPv4, and None for a Unix socket."""
    if not isinstance(value, tuple):
        return None
    host, port = str(value[0]), int(value[1])
    return (host[7:] if host.startswith("::ffff:") and "." in host else host), port
