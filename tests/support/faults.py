"""The ways in which an upstream goes wrong, each as a script for ``ScriptedUpstream``.

Whatever breaks a connection before it is accepted is in ``tests.support.waiting`` (``refusing_port``,
``black_hole_port``).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from typing import Literal

from tests.support.scripts import (
    DONE,
    JSON_TYPE,
    SSE_TYPE,
    Chat,
    Close,
    Framing,
    Hang,
    Pause,
    Reset,
    Script,
    Send,
    Step,
    StopReading,
    chunk,
    drip,
    event,
    framing_headers,
    head,
    json_reply,
    reply,
    stream,
)

_MODEL = "scripted-model"
_CHUNKED_HEAD = head(200, [SSE_TYPE, ("transfer-encoding", "chunked")])


def plain_body() -> bytes:
    """The body of a good plain reply."""
    return Chat().body(_MODEL)


def events() -> list[bytes]:
    """The events of a good stream."""
    return Chat().events(_MODEL)


def accept_and_hang() -> Script:
    """For ``on_connect``: accept, never read, never answer."""
    return Script((StopReading(), Hang()), "connect")


def hang_before_first_byte() -> Script:
    """Read the request and answer nothing."""
    return Script((Hang(),))


def hang_after_head() -> Script:
    """Send the head of a stream and nothing more."""
    return Script((Send(_CHUNKED_HEAD), Hang()))


def hang_mid_stream(after: int = 2) -> Script:
    """Send ``after`` events of a good stream and nothing more."""
    return stream(events()[:after], ending=[Hang()])


def hang_mid_body() -> Script:
    """Send half of a plain reply and nothing more."""
    return Script((Send(_half_a_reply()), Hang()))


def reset_on_connect() -> Script:
    """For ``on_connect``: reset at once."""
    return Script((Reset(),), "connect")


def reset_on_first_byte() -> Script:
    """Reset when the request starts to arrive: a keep-alive connection that died at the worst moment."""
    return Script((Reset(),), "first_byte")


def close_on_first_byte() -> Script:
    """Close when the request starts to arrive, with its unread bytes (so the peer sees a FIN or a RST)."""
    return Script((Close(),), "first_byte")


def reset_before_reply() -> Script:
    """Read the whole request, then reset."""
    return Script((Reset(),))


def close_before_reply() -> Script:
    """Read the whole request, then close without a byte."""
    return Script((Close(),))


def reset_in_head() -> Script:
    """Reset in the middle of the response head."""
    return Script((Send(_CHUNKED_HEAD[:25]), Pause(0.02), Reset()))


def close_in_head() -> Script:
    """Close in the middle of the response head."""
    return Script((Send(_CHUNKED_HEAD[:25]), Close()))


def reset_mid_body() -> Script:
    """Reset after half of a plain reply's body."""
    return Script((Send(_half_a_reply()), Pause(0.02), Reset()))


def close_mid_body() -> Script:
    """Close after half of a plain reply's body of known length."""
    return Script((Send(_half_a_reply()), Close()))


def reset_mid_stream(after: int = 2) -> Script:
    """Reset after ``after`` events of a stream."""
    return stream(events()[:after], ending=[Pause(0.02), Reset()])


def close_mid_stream(after: int = 2) -> Script:
    """Close after ``after`` events of a chunked stream, without the last chunk."""
    return stream(events()[:after], ending=[Close()])


def stream_without_done() -> Script:
    """A chunked stream that ends properly in HTTP, but without ``[DONE]``."""
    return stream([each for each in events() if each != DONE])


def garbage(data: bytes = b"\x16\x03\x01\x00\xa5 not HTTP at all \xff\xfe\r\n\r\n") -> Script:
    """Bytes that are no HTTP response, then close."""
    return Script((Send(data), Close()))


def garbage_mid_stream(after: int = 2) -> Script:
    """A stream that turns into bytes which are no chunk."""
    return stream(events()[:after], ending=[Send(b"\x00\xff garbage \r\n\r\n"), Hang()])


def error_in_json_body(message: str = "CUDA out of memory") -> Script:
    """Status 200 with an error document as the body, as some model servers do."""
    return json_reply({"error": {"message": message, "type": "server_error", "code": 500}})


def error_in_stream(after: int = 0, message: str = "CUDA out of memory") -> Script:
    """A 200 stream whose event number ``after`` is an error document."""
    broken = event({"error": {"message": message, "type": "server_error", "code": 500}})
    return stream([*events()[:after], broken, DONE])


def large_error(status: int = 500, size: int = 10_000_000, framing: Framing = "length") -> Script:
    """An error reply with a body of ``size`` bytes."""
    message = b"x" * size
    return reply(status, body=b'{"error":{"message":"%s"}}' % message, framing=framing)


def both_lengths() -> Script:
    """A head with content-length and transfer-encoding: ambiguous, RFC 9112, section 6.3."""
    body = plain_body()
    headers = [JSON_TYPE, *framing_headers("length", len(body)), *framing_headers("chunked", 0)]
    return Script((Send(head(200, headers) + chunk(body) + b"0\r\n\r\n"),))


def two_content_lengths() -> Script:
    """A head with two different content-lengths."""
    body = plain_body()
    headers = [JSON_TYPE, ("content-length", str(len(body))), ("content-length", str(len(body) - 5))]
    return Script((Send(head(200, headers) + body),))


def bad_chunk_size(after: int = 1) -> Script:
    """A chunked stream where, after ``after`` good events, a chunk's size is no number."""
    return stream(events()[:after], ending=[Send(b"zz\r\ndata: nonsense\n\n\r\n"), Hang()])


def early_bytes(data: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", delay_s: float = 0.05) -> Script:
    """A good plain reply, then ``delay_s`` seconds later bytes that nobody asked for on the idle connection."""
    return reply(body=plain_body()).then(Pause(delay_s), Send(data))


def extra_bytes(data: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") -> Script:
    """A good plain reply with more bytes after its end, in the same write."""
    body = plain_body()
    return Script((Send(head(200, [JSON_TYPE, *framing_headers("length", len(body))]) + body + data),))


def informational(statuses: Sequence[int] = (103,)) -> Script:
    """1xx heads before the final one (RFC 9110, section 15.2)."""
    first = b"".join(head(status, [("link", "</x>; rel=preload")]) for status in statuses)
    return Script((Send(first), *reply(body=plain_body()).steps))


def switching_protocols() -> Script:
    """A 101 that nobody asked for."""
    return Script((Send(head(101, [("upgrade", "h2c"), ("connection", "Upgrade")])), Hang()))


def compressed(coding: Literal["gzip", "deflate", "raw-deflate"], framing: Framing = "length") -> Script:
    """A plain reply with a content coding; ``raw-deflate`` is what some servers wrongly send as ``deflate``."""
    headers = [JSON_TYPE, ("content-encoding", "gzip" if coding == "gzip" else "deflate")]
    return reply(body=compress(plain_body(), coding), headers=headers, framing=framing)


def compress(data: bytes, coding: Literal["gzip", "deflate", "raw-deflate"]) -> bytes:
    """``data`` in one of the content codings of RFC 9110, section 8.4.1."""
    if coding == "gzip":
        return gzip.compress(data, mtime=0)
    if coding == "deflate":
        return zlib.compress(data)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def compression_bomb(size: int = 200_000_000) -> Script:
    """A small gzip body that unpacks to ``size`` bytes."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    block = b"\0" * 1_000_000
    packed = b"".join(packer.compress(block) for _ in range(size // len(block))) + packer.flush()
    return reply(body=packed, headers=[JSON_TYPE, ("content-encoding", "gzip")])


def huge_header(size: int = 1_000_000) -> Script:
    """A response with one header of ``size`` bytes."""
    return reply(body=plain_body(), headers=[JSON_TYPE, ("x-huge", "h" * size)])


def many_headers(count: int = 5_000) -> Script:
    """A response with ``count`` headers."""
    return reply(body=plain_body(), headers=[JSON_TYPE, *((f"x-many-{n}", "v") for n in range(count))])


def endless_head() -> Script:
    """A response head that never ends: a header every 20 ms, until the peer leaves or 1,000 are sent."""
    steps: list[Step] = [Send(b"HTTP/1.1 200 OK\r\n")]
    for number in range(1000):
        steps += [Send(b"x-endless-%d: v\r\n" % number), Pause(0.02)]
    return Script(tuple(steps))


def huge_event(size: int = 4_000_000) -> Script:
    """A stream whose only event is ``size`` bytes long."""
    return stream([event({"choices": [{"index": 0, "delta": {"content": "x" * size}}]}), DONE])


def slow_drip(*, piece: int = 1, delay_s: float = 0.002) -> Script:
    """A good plain reply, a few bytes at a time, head included."""
    body = plain_body()
    start = head(200, [JSON_TYPE, *framing_headers("length", len(body))])
    return Script(drip(start + body, piece=piece, delay_s=delay_s))


def endless_stream(size: int = 200, delay_s: float = 0.0, count: int = 1_000_000) -> Script:
    """A stream of ``count`` equal events of about ``size`` bytes, as fast as the peer reads (or ``delay_s`` apart)."""
    one = chunk(event({"choices": [{"index": 0, "delta": {"content": "x" * size}, "finish_reason": None}]}))
    if not delay_s:
        return Script((Send(_CHUNKED_HEAD), *((Send(one * 100),) * (count // 100))))
    return Script((Send(_CHUNKED_HEAD), *((Send(one), Pause(delay_s)) * count)))


def no_json(status: int = 200) -> Script:
    """A reply that claims to be JSON and is not."""
    return reply(status, body=b"<html>not JSON</html>")


def wrong_type(status: int = 200) -> Script:
    """An HTML page, as a proxy in between would answer."""
    return reply(status, body=b"<html>maintenance</html>", headers=[("content-type", "text/html")])


def empty_reply(status: int = 200) -> Script:
    """A reply without a body."""
    return reply(status, body=b"")


def stream_answered_plain() -> Script:
    """A plain JSON completion whatever was asked: some servers ignore ``stream``."""
    return json_reply({"id": "chatcmpl-plain", "object": "chat.completion", "choices": []})


def _half_a_reply() -> bytes:
    body = plain_body()
    return head(200, [JSON_TYPE, *framing_headers("length", len(body))]) + body[: len(body) // 2]
