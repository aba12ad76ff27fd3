"""Keeping connections: reuse, age, bounds, the silent retry, and addresses that change."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.model import Origin, Timeouts
from gateway.upstream import UpstreamLimits
from tests.support import faults
from tests.support.calls import (
    Run,
    ask,
    each_loop,
    failure_of,
    fetch,
    origin_of,
    until,
    upstream_client,
    whole,
)
from tests.support.scripts import Close, Gate, Hang, Pause, Reset, Script, Send, Step, head, reply
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import black_hole_port, refusing_port

OK = reply(body=b"ok")


@each_loop
def test_one_connection_serves_one_after_the_other(run: Run, upstream: ScriptedUpstream) -> None:
    """Ten calls in turn share a connection; ten at once have one each, and keep them."""

    async def main() -> None:
        async with upstream_client() as client:
            origin = origin_of(upstream)
            for _ in range(10):
                await fetch(client, origin)
            assert upstream.connections_total == client.open_connections == 1
            gate = Gate()
            upstream.behaviour = Script((gate, *OK.steps))
            calls = [asyncio.ensure_future(fetch(client, origin)) for _ in range(10)]
            await until(lambda: gate.reached == 10)
            gate.open()
            assert await asyncio.gather(*calls) == [b"ok"] * 10
            assert upstream.connections_total == client.open_connections == 10

    run(main())


@each_loop
def test_the_last_used_is_used_next(run: Run, upstream: ScriptedUpstream) -> None:
    """So that those not needed grow old; they are closed after the idle time, and no more than the bound is kept."""

    async def main() -> None:
        limits = UpstreamLimits(idle_s=0.3, max_idle_connections=3)
        async with upstream_client(limits) as client:
            origin = origin_of(upstream)
            open_calls = [await ask(client, origin) for _ in range(5)]
            for each in open_calls:
                await whole(each)
            assert client.open_connections == 3
            await until(lambda: upstream.open_connections == 3)
            for _ in range(12):
                await fetch(client, origin)
                await asyncio.sleep(0.05)
            assert client.open_connections == 1
            assert upstream.connections_total == 5
            await until(lambda: client.open_connections == 0, what="idle expiry")
            await until(lambda: upstream.open_connections == 0)

    run(main())


@each_loop
def test_a_connection_has_a_maximum_age(run: Run, upstream: ScriptedUpstream) -> None:
    """It is closed after the exchange in which it became too old, never within it."""

    async def main() -> None:
        async with upstream_client(UpstreamLimits(connection_max_age_s=0.2)) as client:
            origin = origin_of(upstream)
            assert await fetch(client, origin) == await fetch(client, origin)
            assert upstream.connections_total == 1
            upstream.enqueue(Script((Send(head(200, [("content-length", "2")])), Pause(0.3), Send(b"ok"))))
            assert await fetch(client, origin) == b"ok"
            assert client.open_connections == 0
            assert upstream.connections_total == 1

    run(main())


@each_loop
@pytest.mark.parametrize(
    "death", [faults.reset_on_first_byte(), faults.close_on_first_byte(), faults.close_before_reply()]
)
def test_a_kept_connection_that_died_is_replaced_silently(run: Run, upstream: ScriptedUpstream, death: Script) -> None:
    """Closed just as the next request arrives, before any byte of an answer: the request is sent once more."""

    async def main() -> None:
        async with upstream_client() as client:
            await fetch(client, origin_of(upstream))
            upstream.enqueue(death, OK)
            assert await fetch(client, origin_of(upstream)) == b"ok"
            assert upstream.connections_total == 2

    run(main())


@each_loop
def test_the_retry_is_made_once_and_on_a_new_connection(run: Run, upstream: ScriptedUpstream) -> None:
    """Other kept connections may be dead too, so none of them is tried; a second death is a failure."""

    async def main() -> None:
        async with upstream_client() as client:
            origin = origin_of(upstream)
            for each in [await ask(client, origin) for _ in range(3)]:
                await whole(each)
            upstream.enqueue(*(faults.reset_before_reply(),) * 3)
            assert (await failure_of(fetch(client, origin))).outcome == "reset"
            assert upstream.connections_total == 4
            assert len(upstream.requests) == 3 + 2

    run(main())


@each_loop
def test_a_new_connection_is_not_retried(run: Run, upstream: ScriptedUpstream) -> None:
    """A fresh connection that dies says something about the backend: the plan decides."""

    async def main() -> None:
        async with upstream_client() as client:
            upstream.enqueue(faults.reset_before_reply())
            assert (await failure_of(fetch(client, origin_of(upstream)))).outcome == "reset"
            assert len(upstream.requests) == 1

    run(main())


@each_loop
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (faults.close_in_head(), "reset"),
        (faults.reset_mid_body(), "reset"),
        (faults.garbage(), "protocol_error"),
        (faults.hang_before_first_byte(), "first_byte_timeout"),
    ],
)
def test_nothing_else_is_retried(run: Run, upstream: ScriptedUpstream, script: Script, outcome: str) -> None:
    """After any byte of an answer, or a timeout, the backend may have done the work."""

    async def main() -> None:
        async with upstream_client() as client:
            await fetch(client, origin_of(upstream))
            upstream.enqueue(script)
            timeouts = Timeouts(first_byte_s=0.2)
            assert (await failure_of(fetch(client, origin_of(upstream), timeouts))).outcome == outcome
            assert len(upstream.requests) == 2

    run(main())


@each_loop
def test_a_backend_that_worked_before_it_died_is_not_asked_again(run: Run, upstream: ScriptedUpstream) -> None:
    """A dead connection is refused at once; what took a second may have been work, and may be paid for."""

    async def main() -> None:
        async with upstream_client() as client:
            await fetch(client, origin_of(upstream))
            upstream.enqueue(Script((Pause(1.1), Close())), OK)
            assert (await failure_of(fetch(client, origin_of(upstream)))).outcome == "reset"
            assert len(upstream.requests) == 2

    run(main())


@each_loop
@pytest.mark.parametrize(
    ("timeouts", "outcome"),
    [(Timeouts(first_byte_s=0.9), "first_byte_timeout"), (Timeouts(total_s=0.9), "total_timeout")],
)
def test_the_retry_has_what_is_left_of_the_time(
    run: Run, upstream: ScriptedUpstream, timeouts: Timeouts, outcome: str
) -> None:
    """The deadlines are those of the first request."""

    async def main() -> None:
        async with upstream_client() as client:
            await fetch(client, origin_of(upstream))
            upstream.enqueue(Script((Pause(0.6), Close())), Script((Hang(),)))
            started = time.monotonic()
            assert (await failure_of(fetch(client, origin_of(upstream), timeouts))).outcome == outcome
            assert 0.9 <= time.monotonic() - started < 1.4
            assert len(upstream.requests) == 3

    run(main())


@each_loop
@pytest.mark.parametrize(
    "unread",
    [
        (Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),),
        (Send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"), Close()),
        (Close(),),
        (Reset(),),
    ],
    ids=["answer", "408", "close", "reset"],
)
def test_what_a_busy_loop_had_no_time_to_read_is_no_answer(
    run: Run, upstream: ScriptedUpstream, unread: tuple[Step, ...]
) -> None:
    """Bytes that came unasked to an idle connection and lie in the kernel end it just as those that were read."""

    async def main() -> None:
        async with upstream_client() as client:
            gate = Gate()
            upstream.enqueue(reply(body=b"first").then(gate, *unread), OK)
            assert await fetch(client, origin_of(upstream)) == b"first"
            gate.open()
            time.sleep(0.05)  # noqa: ASYNC251  # the loop is kept busy
            assert await fetch(client, origin_of(upstream)) == b"ok"
            assert len(upstream.requests) == 2, "not even sent over it"
            assert upstream.connections_total == 2

    run(main())


@each_loop
def test_a_whole_body_at_once(run: Run, upstream: ScriptedUpstream) -> None:
    """What has arrived to its end is taken without waiting, once; what has not, or is compressed, must be read."""

    async def main() -> None:
        async with upstream_client() as client:
            origin = origin_of(upstream)
            for framing in ("length", "chunked", "close"):
                upstream.enqueue(reply(body=b"x" * 1000, framing=framing))
                exchange = await ask(client, origin)
                await until(lambda exchange=exchange: exchange._connection.complete)  # type: ignore[misc]
                assert exchange.whole() == b"x" * 1000
                assert await exchange.read() == b""
                exchange.close()
                assert exchange.whole() is None
            gate = Gate()
            upstream.enqueue(
                Script((Send(head(200, [("content-length", "2")])), Send(b"o"), gate, Send(b"k"))),
                Script((Send(head(200, [("content-length", "2")])), Send(b"o"), Reset())),
                faults.compressed("gzip", "length"),
            )
            exchange = await ask(client, origin)
            assert exchange.whole() is None
            gate.open()
            assert await whole(exchange) == b"ok"
            exchange = await ask(client, origin)
            await until(lambda: exchange._connection.error)  # type: ignore[union-attr]
            assert exchange.whole() is None
            assert (await failure_of(whole(exchange))).outcome == "reset"
            exchange = await ask(client, origin)
            await until(lambda: exchange._connection.complete)  # type: ignore[union-attr]
            assert exchange.whole() is None
            assert await whole(exchange) == faults.plain_body()

    run(main())


@each_loop
def test_closed_idle_connections_are_forgotten(run: Run, upstream: ScriptedUpstream) -> None:
    """A backend that closes between calls costs nothing but a new connection."""

    async def main() -> None:
        async with upstream_client() as client:
            await fetch(client, origin_of(upstream))
            upstream.close_connections()
            await until(lambda: client.open_connections == 0)
            assert await fetch(client, origin_of(upstream))
            assert upstream.connections_total == 2

    run(main())


@each_loop
def test_early_bytes_end_an_idle_connection(run: Run, upstream: ScriptedUpstream) -> None:
    """Bytes that nobody asked for are never taken for the next answer."""

    async def main() -> None:
        async with upstream_client() as client:
            gate = Gate()
            unasked = Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            upstream.enqueue(reply(body=faults.plain_body()).then(gate, unasked))
            assert await fetch(client, origin_of(upstream)) == faults.plain_body()
            assert client.open_connections == 1
            gate.open()
            await until(lambda: client.open_connections == 0)
            assert await fetch(client, origin_of(upstream)) != b"{}"

    run(main())


@each_loop
def test_an_answer_left_unread_does_not_spoil_the_next(run: Run, upstream: ScriptedUpstream) -> None:
    """Closed before its whole body was taken, even where all of it has arrived, a connection is as good as new."""

    async def main() -> None:
        async with upstream_client() as client:
            for size in (10, 60_000, 65_536, 100_000, 200_000):
                upstream.enqueue(reply(body=b"x" * size), OK)
                exchange = await ask(client, origin_of(upstream))
                await asyncio.sleep(0.05)  # let the whole body arrive
                exchange.close()
                assert await fetch(client, origin_of(upstream), Timeouts(first_byte_s=0.5)) == b"ok", size

    run(main())


@each_loop
def test_a_kept_connection_forgets_the_last_exchange(run: Run, upstream: ScriptedUpstream) -> None:
    """Status, headers, lengths and codings of one answer have no part in the next."""

    async def main() -> None:
        async with upstream_client() as client:
            upstream.enqueue(faults.compressed("gzip", "chunked"), reply(404, body=b"no", headers=[]), OK)
            assert await fetch(client, origin_of(upstream)) == faults.plain_body()
            second = await ask(client, origin_of(upstream))
            assert (second.status, [name for name, _ in second.headers]) == (404, [b"content-length"])
            assert await whole(second) == b"no"
            assert await fetch(client, origin_of(upstream)) == b"ok"
            assert upstream.connections_total == 1

    run(main())


@each_loop
def test_connections_are_bounded(run: Run, upstream: ScriptedUpstream) -> None:
    """Beyond the bound a call fails at once as busy; when one ends there is room again."""

    async def main() -> None:
        async with upstream_client(UpstreamLimits(max_connections=2)) as client:
            upstream.behaviour = Script((Hang(),))
            calls = [asyncio.ensure_future(ask(client, origin_of(upstream))) for _ in range(2)]
            await until(lambda: len(upstream.requests) == 2)
            assert (await failure_of(ask(client, origin_of(upstream)))).outcome == "busy"
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            upstream.behaviour = OK
            assert await fetch(client, origin_of(upstream)) == b"ok"

    run(main())


@each_loop
def test_connect_errors(run: Run) -> None:
    """Refused is an error at once; silence is a timeout of the connect stage."""

    async def main() -> None:
        async with upstream_client() as client:
            with refusing_port() as port:
                origin = Origin(scheme="http", host="127.0.0.1", port=port)
                assert (await failure_of(ask(client, origin))).outcome == "connect_error"
            with black_hole_port() as port:
                origin = Origin(scheme="http", host="127.0.0.1", port=port)
                timeouts = Timeouts(connect_s=0.2)
                assert (await failure_of(ask(client, origin, timeouts))).outcome == "connect_timeout"
            assert client.open_connections == 0

    run(main())
