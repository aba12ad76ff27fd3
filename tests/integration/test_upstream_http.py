"""What the upstream client takes for an answer and what it refuses, over real sockets."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.upstream import UpstreamLimits
from tests.support import faults
from tests.support.calls import QUICK, Run, ask, each_loop, failure_of, fetch, origin_of, upstream_client, whole
from tests.support.scripts import (
    JSON_TYPE,
    LAST_CHUNK,
    Close,
    Framing,
    Hang,
    Pause,
    Script,
    Send,
    chunk,
    drip,
    head,
    reply,
    stream,
)
from tests.support.upstream import ScriptedUpstream

CHUNKED = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")])


def bodies(run: Run, upstream: ScriptedUpstream, *scripts: Script, limits: UpstreamLimits | None = None) -> list[bytes]:
    """The bodies of the answers of these scripts, asked for one after the other."""

    async def main() -> list[bytes]:
        async with upstream_client(limits) as client:
            found = [await fetch(client, origin_of(upstream)) for _ in scripts]
            assert client.open_connections <= 1
            return found

    upstream.enqueue(*scripts)
    return run(main())


def refusal(run: Run, upstream: ScriptedUpstream, script: Script, limits: UpstreamLimits | None = None) -> str:
    """How the answer of a script is refused; its connection must be closed and the next call must work."""

    async def main() -> str:
        async with upstream_client(limits) as client:
            failure = await failure_of(fetch(client, origin_of(upstream)))
            assert client.open_connections == 0
            assert await fetch(client, origin_of(upstream)) == faults.plain_body()
            return f"{failure.outcome}: {failure.detail}"

    upstream.enqueue(script, reply(body=faults.plain_body()))
    return run(main())


@each_loop
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_bodies_of_every_framing(run: Run, upstream: ScriptedUpstream, framing: Framing) -> None:
    """Content-length, chunks and the close all end a body; the first two keep the connection."""
    body = faults.plain_body() * 100
    assert bodies(run, upstream, *(reply(body=body, framing=framing),) * 3) == [body] * 3
    assert upstream.connections_total == (3 if framing == "close" else 1)


@each_loop
def test_byte_by_byte(run: Run, upstream: ScriptedUpstream) -> None:
    """An answer may come in any pieces, the head too."""
    start = CHUNKED + chunk(b"one") + b'3;name="value"\r\ntwo\r\n' + b"0\r\nx-trailer: t\r\n\r\n"
    assert bodies(run, upstream, Script(drip(start, delay_s=0))) == [b"onetwo"]


@each_loop
def test_answers_without_a_body(run: Run, upstream: ScriptedUpstream) -> None:
    """A 204 and an empty 200 end with their head, and the connection goes on."""
    no_content = Script((Send(head(204, [])),))
    assert bodies(run, upstream, no_content, reply(body=b""), reply(body=b"x")) == [b"", b"", b"x"]
    assert upstream.connections_total == 1


@each_loop
def test_interim_answers_are_passed_over(run: Run, upstream: ScriptedUpstream) -> None:
    """1xx heads come before the answer and mean nothing (RFC 9110, 15.2)."""
    script = faults.informational((100, 103, 103))
    assert bodies(run, upstream, script, reply(body=b"x")) == [faults.plain_body(), b"x"]
    assert upstream.connections_total == 1


@each_loop
def test_status_and_headers(run: Run, upstream: ScriptedUpstream) -> None:
    """Any final status is an answer; names are in lower case, values as sent."""

    async def main() -> None:
        async with upstream_client() as client:
            exchange = await ask(client, origin_of(upstream))
            assert exchange.status == 429
            assert (b"retry-after", b"7") in exchange.headers
            assert await whole(exchange) == b"slow down"

    upstream.enqueue(reply(429, body=b"slow down", headers=[("Retry-After", "7")]))
    run(main())


@each_loop
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw-deflate"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_content_codings(run: Run, upstream: ScriptedUpstream, coding: str, framing: Framing) -> None:
    """Servers that compress unasked are understood."""
    assert bodies(run, upstream, faults.compressed(coding, framing)) == [faults.plain_body()]  # type: ignore[arg-type]


@each_loop
def test_a_compressed_body_byte_by_byte(run: Run, upstream: ScriptedUpstream) -> None:
    """Raw deflate is told from zlib even when its first byte comes alone."""
    packed = faults.compress(faults.plain_body(), "raw-deflate")
    start = head(200, [JSON_TYPE, ("content-encoding", "deflate"), ("content-length", str(len(packed)))])
    script = Script((Send(start), Pause(0.02), *drip(packed, delay_s=0.0001)))
    assert bodies(run, upstream, script) == [faults.plain_body()]


@each_loop
def test_a_compression_bomb_unpacks_in_steps(run: Run, upstream: ScriptedUpstream) -> None:
    """However far a body expands, only a step of it is in memory at a time."""

    async def main() -> int:
        async with upstream_client() as client:
            exchange = await ask(client, origin_of(upstream))
            size = 0
            while part := await exchange.read():
                assert len(part) <= 65_536
                size += len(part)
            exchange.close()
            return size

    upstream.enqueue(faults.compression_bomb(50_000_000))
    tracemalloc.start()
    try:
        assert run(main()) == 50_000_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@each_loop
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(faults.garbage(), "protocol_error", id="garbage"),
        pytest.param(faults.both_lengths(), "protocol_error", id="both lengths"),
        pytest.param(faults.two_content_lengths(), "protocol_error", id="two lengths"),
        pytest.param(faults.bad_chunk_size(), "protocol_error", id="bad chunk size"),
        pytest.param(faults.garbage_mid_stream(), "protocol_error", id="garbage for a chunk"),
        pytest.param(faults.switching_protocols(), "protocol_error", id="101"),
        pytest.param(faults.informational((103,) * 9), "protocol_error", id="too many 1xx"),
        pytest.param(faults.huge_header(), "protocol_error", id="huge header"),
        pytest.param(faults.many_headers(129), "protocol_error", id="too many headers"),
        pytest.param(faults.reset_in_head(), "reset", id="reset in head"),
        pytest.param(faults.close_in_head(), "reset", id="close in head"),
        pytest.param(faults.reset_mid_body(), "reset", id="reset in body"),
        pytest.param(faults.close_mid_body(), "reset", id="close in body"),
        pytest.param(faults.close_mid_stream(), "reset", id="close between chunks"),
        pytest.param(faults.close_before_reply(), "reset", id="close before head"),
        pytest.param(faults.reset_before_reply(), "reset", id="reset before head"),
        pytest.param(faults.extra_bytes(), "protocol_error", id="bytes after the end"),
        pytest.param(
            Script((Send(CHUNKED + chunk(b"x") + b"0\r\n" + b"x-t: v\r\n" * 130 + b"\r\n"),)),
            "protocol_error",
            id="too many trailers",
        ),
        pytest.param(
            Script((Send(CHUNKED + chunk(b"x") + b"0\r\nx-t: " + b"v" * 1_000_000 + b"\r\n\r\n"),)),
            "protocol_error",
            id="huge trailer",
        ),
        pytest.param(
            Script((Send(CHUNKED + b"1;x=" + b"e" * 1_000_000 + b"\r\nx\r\n" + LAST_CHUNK),)),
            "protocol_error",
            id="huge chunk extension",
        ),
        pytest.param(
            Script((Send(head(200, [("transfer-encoding", "gzip, chunked")]) + chunk(b"x") + LAST_CHUNK),)),
            "protocol_error",
            id="other transfer coding",
        ),
        pytest.param(
            Script((Send(head(200, [("transfer-encoding", "identity")]) + b"x"), Close())),
            "protocol_error",
            id="transfer coding identity",
        ),
        pytest.param(
            Script((Send(CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + chunk(b"x") + LAST_CHUNK),)),
            "protocol_error",
            id="chunks in HTTP/1.0",
        ),
        pytest.param(
            Script((Send(head(200, [("content-length", "-1")]) + b"x"), Close())),
            "protocol_error",
            id="negative length",
        ),
        pytest.param(
            Script((Send(head(200, [("content-length", "1" * 30)]) + b"x"), Close())),
            "protocol_error",
            id="huge length",
        ),
    ],
)
def test_what_is_no_answer(run: Run, upstream: ScriptedUpstream, script: Script, expected: str) -> None:
    """Broken, ambiguous or oversized answers fail the attempt and end the connection; the next call works."""
    assert refusal(run, upstream, script).startswith(expected)


@each_loop
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"x"),
        ("gzip", b"no gzip"),
        ("gzip", faults.compress(b"x" * 99, "gzip")[:-9]),
        ("gzip", faults.compress(b"x" * 99, "gzip")[:1]),
        ("gzip", faults.compress(b"x" * 99, "gzip") + b"more"),
        ("gzip, gzip", b"x"),
    ],
)
def test_bad_content_codings(run: Run, upstream: ScriptedUpstream, coding: str, body: bytes) -> None:
    """A coding that is unknown, broken, cut or followed by more fails the attempt; the next call works."""

    async def main() -> None:
        async with upstream_client() as client:
            assert (await failure_of(fetch(client, origin_of(upstream)))).outcome == "protocol_error"
            assert await fetch(client, origin_of(upstream)) == faults.plain_body()

    upstream.enqueue(reply(body=body, headers=[("content-encoding", coding)]), reply(body=faults.plain_body()))
    run(main())


@each_loop
def test_heads_just_within_their_bounds(run: Run, upstream: ScriptedUpstream) -> None:
    """The bounds are what they say: one header less than too many, and a head just small enough, pass."""
    limits = UpstreamLimits(max_header_count=10, max_header_bytes=2000)
    nine = reply(body=b"x", headers=[(f"x-{number}", "v") for number in range(9)])
    long = reply(body=b"y" * 10_000, headers=[("x-long", "v" * 1900)])
    assert bodies(run, upstream, nine, long, limits=limits) == [b"x", b"y" * 10_000]
    ten = reply(body=b"x", headers=[(f"x-{number}", "v") for number in range(10)])
    assert refusal(run, upstream, ten, limits).startswith("protocol_error: more than 10 header")
    longer = reply(body=b"y" * 10_000, headers=[("x-long", "v" * 2100)])
    assert refusal(run, upstream, longer, limits).startswith("protocol_error: more than 2000 bytes")


@each_loop
def test_an_endless_head(run: Run, upstream: ScriptedUpstream) -> None:
    """A head that never ends is cut at its bound, not kept."""
    script = Script((Send(b"HTTP/1.1 200 OK\r\nx-endless: "), *(Send(b"v" * 1000),) * 200, Hang()))
    assert refusal(run, upstream, script).startswith("protocol_error")


@each_loop
def test_what_arrived_before_a_failure_is_read_first(run: Run, upstream: ScriptedUpstream) -> None:
    """A broken stream gives all its good bytes, then the failure."""

    async def main() -> None:
        async with upstream_client() as client:
            exchange = await ask(client, origin_of(upstream))
            seen = b""

            async def read() -> None:
                nonlocal seen
                while part := await exchange.read():
                    seen += part

            assert (await failure_of(read())).outcome == "reset"
            assert seen == b"".join(faults.events()[:2])
            assert (await failure_of(exchange.read())).outcome == "reset"
            exchange.close()
            exchange.close()
            assert await exchange.read() == b""

    upstream.enqueue(faults.close_mid_stream(2))
    run(main())


@each_loop
def test_a_request_larger_than_the_buffers(run: Run, upstream: ScriptedUpstream) -> None:
    """A large request leaves whole while the upstream reads; an answer before its end is still read to its end."""

    async def main() -> None:
        async with upstream_client() as client:
            body = b"x" * 5_000_000
            first = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body)
            exchange = await client.exchange(origin_of(upstream), (first, body), QUICK)
            assert await whole(exchange) == b"ok"

    upstream.enqueue(reply(body=b"ok"))
    run(main())
    assert len(upstream.requests[0].body) == 5_000_000
    assert upstream.protocol_errors == []


@each_loop
def test_a_stream_comes_piece_by_piece(run: Run, upstream: ScriptedUpstream) -> None:
    """Each piece can be read when it is there, long before the end."""

    async def main() -> None:
        async with upstream_client() as client:
            exchange = await ask(client, origin_of(upstream))
            assert await exchange.read() == b"data: 1\n\n"
            exchange.close()
            assert client.open_connections == 0

    upstream.enqueue(stream([b"data: 1\n\n"], ending=[Hang()]))
    run(main())
    upstream.wait_for_disconnect()
