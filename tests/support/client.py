"""An HTTP/1.1 client on a bare socket, for everything that a well-behaved client would not do.

It sends exactly the bytes it is told to and reads responses with their framing intact: pipelining, half a body, slow
sends, leaving in mid-stream. Blocking, with a deadline on every operation.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_READ_SIZE = 65536


@dataclass(frozen=True)
class Response:
    """A response as read: header names in lower case, the body without its transfer coding."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class ConnectionEnded(Exception):
    """The server ended the connection before what was waited for; ``received`` is what had come of it."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"the connection ended after {len(received)} more bytes: {received[:200]!r}")
        self.received = received


def request_bytes(
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> bytes:
    """A whole request; a mapping becomes a JSON body. ``headers`` are added, replacing the usual ones by name."""
    content = json.dumps(body).encode() if isinstance(body, Mapping) else body
    fields = {"host": "gateway.test"}
    if content is not None:
        fields |= {"content-type": "application/json", "content-length": str(len(content))}
    if key is not None:
        fields["authorization"] = f"Bearer {key}"
    fields |= headers or {}
    verb = method or ("GET" if content is None else "POST")
    lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (content or b"")


class RawClient:
    """One connection; a context manager that closes it. ``timeout_s`` bounds every read and write in seconds.

    ``receive_buffer`` bounds the kernel's receive buffer in bytes, for a client that reads slowly.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float = 10.0,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(timeout_s)
        try:
            raw.connect((host, port))
        except OSError:
            raw.close()
            raise
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: socket.socket = raw if tls is None else tls.wrap_socket(raw, server_hostname=host)
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- sending -------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send these bytes, as they are."""
        self.socket.sendall(data)

    def send_slowly(self, data: bytes, *, piece: int = 1, delay_s: float = 0.01) -> None:
        """Send ``piece`` bytes at a time, ``delay_s`` seconds apart."""
        for start in range(0, len(data), piece):
            self.socket.sendall(data[start : start + piece])
            time.sleep(delay_s)

    def close(self) -> None:
        """Leave with a FIN (a RST if there is something unread)."""
        self.socket.close()

    def reset(self) -> float:
        """Leave with a RST; the monotonic time of it."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        return time.monotonic()

    def half_close(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    # -- receiving -----------------------------------------------------------------------------------------------

    def request(self, path: str, body: bytes | Mapping[str, Any] | None = None, **options: Any) -> Response:
        """Send one request (see ``request_bytes``) and read its response."""
        self.send(request_bytes(path, body, **options))
        return self.read_response()

    def read_head(self) -> Response:
        """Read a response's head; 1xx heads are returned like any other."""
        block = self.read_until(b"\r\n\r\n")
        first, *lines = block[:-4].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return Response(int(first.split(" ")[1]), tuple((n.strip().lower(), v.strip()) for n, _, v in pairs))

    def read_response(self) -> Response:
        """Read a whole response, whatever its framing."""
        head = self.read_head()
        return Response(head.status, head.headers, b"".join(self.body_parts(head)))

    def body_parts(self, head: Response) -> Iterator[bytes]:
        """The body of a response whose head was read, chunk by chunk where it is chunked."""
        if head.status in (204, 304) or head.status < 200:
            return
        if (head.header("transfer-encoding") or "").lower() == "chunked":
            while part := self._read_chunk():
                yield part
        elif (length := head.header("content-length")) is not None:
            yield self.read_exactly(int(length))
        else:
            yield self.read_to_end()

    def events(self, head: Response) -> Iterator[bytes]:
        """The server-sent events of a stream, each with its blank line."""
        pending = bytearray()
        for part in self.body_parts(head):
            pending += part
            while (end := pending.find(b"\n\n")) >= 0:
                yield bytes(pending[: end + 2])
                del pending[: end + 2]
        assert not pending, f"an unfinished event: {bytes(pending)!r}"

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and with ``mark``."""
        while (end := self._buffer.find(mark)) < 0:
            self._fill()
        return self._taken(end + len(mark))

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        while len(self._buffer) < count:
            self._fill()
        return self._taken(count)

    def read_to_end(self) -> bytes:
        """Everything until the server closes; a RST counts as the end."""
        try:
            while True:
                self._fill()
        except ConnectionEnded as end:
            return end.received

    def closed_by_server(self) -> bool:
        """Whether the server closes the connection without another byte, within the timeout."""
        return self.read_to_end() == b""

    def _read_chunk(self) -> bytes:
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        data = self.read_exactly(size)
        assert self.read_exactly(2) == b"\r\n", "a chunk without its end"
        return data

    def _taken(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _fill(self) -> None:
        try:
            data = self.socket.recv(_READ_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            raise ConnectionEnded(self._taken(len(self._buffer)))
        self._buffer += data
