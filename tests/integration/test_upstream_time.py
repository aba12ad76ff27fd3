"""Deadlines of every stage, a slow reader, and a caller who leaves: seen by a real backend."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

import pytest

from gateway.errors import AttemptFailed
from gateway.model import Origin, Timeouts
from gateway.upstream import UpstreamClient, UpstreamLimits
from gateway.upstream.client import Exchange
from tests.support import faults
from tests.support.calls import (
    BODY,
    Run,
    ask,
    each_loop,
    failure_of,
    fetch,
    origin_of,
    request_parts,
    until,
    upstream_client,
    whole,
)
from tests.support.scripts import JSON_TYPE, Gate, Hang, Pause, Script, Send, Step, chunk, head, reply, stream
from tests.support.upstream import ScriptedUpstream

GRACE_S = 2.0
"""How late a loaded machine may be; a deadline is never early."""

START = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")])
TRICKLE = (Send(START), *(Send(chunk(b"x")), Pause(0.05)) * 100)


@each_loop
@pytest.mark.parametrize(
    ("script", "timeouts", "outcome", "after_s"),
    [
        (faults.hang_before_first_byte(), Timeouts(first_byte_s=0.2), "first_byte_timeout", 0.2),
        (faults.hang_after_head(), Timeouts(first_byte_s=0.2, idle_s=9), "first_byte_timeout", 0.2),
        (faults.endless_head(), Timeouts(first_byte_s=0.3), "first_byte_timeout", 0.3),
        (Script((Send(head(103, [])), Hang())), Timeouts(first_byte_s=0.2), "first_byte_timeout", 0.2),
        (faults.hang_mid_stream(), Timeouts(first_byte_s=9, idle_s=0.2), "idle_timeout", 0.2),
        (faults.hang_mid_body(), Timeouts(first_byte_s=9, idle_s=0.2), "idle_timeout", 0.2),
        (Script(TRICKLE), Timeouts(first_byte_s=9, idle_s=1, total_s=0.4), "total_timeout", 0.4),
        (faults.hang_before_first_byte(), Timeouts(first_byte_s=9, total_s=0.2), "total_timeout", 0.2),
    ],
)
def test_each_stage_has_its_deadline(
    run: Run, upstream: ScriptedUpstream, script: Script, timeouts: Timeouts, outcome: str, after_s: float
) -> None:
    """A stage that takes too long fails the attempt by its name, and the backend is left at once."""

    async def main() -> None:
        async with upstream_client() as client:
            started = time.monotonic()
            assert (await failure_of(fetch(client, origin_of(upstream), timeouts))).outcome == outcome
            assert after_s <= time.monotonic() - started < after_s + GRACE_S
            assert client.open_connections == 0
            await until(lambda: upstream.open_connections == 0)

    upstream.enqueue(script)
    run(main())


@each_loop
@pytest.mark.parametrize(
    ("steps", "outcome", "after_s"),
    [
        ((Send(chunk(b": wait")), Hang()), "first_byte_timeout", 0.4),
        ((Send(chunk(b": wait")), Pause(0.1)) * 30, "first_byte_timeout", 0.4),
        ((Send(chunk(b": " + b"x" * 100_000)), Hang()), "first_byte_timeout", 0.4),
        ((Send(chunk(b": wait")), Pause(0.25), Send(chunk(b"data")), Hang()), "idle_timeout", 0.35),
    ],
    ids=["a comment", "comments", "a long comment", "an answer after a comment"],
)
def test_bytes_that_are_no_answer_leave_the_first_byte_timeout_in_force(
    run: Run, upstream: ScriptedUpstream, steps: tuple[Step, ...], outcome: str, after_s: float
) -> None:
    """Until the reader says that the answer began, it has to begin; the idle timeout counts only then."""

    async def main() -> None:
        async with upstream_client() as client:
            started = time.monotonic()
            exchange = await ask(client, origin_of(upstream), Timeouts(first_byte_s=0.4, idle_s=0.1))

            async def read() -> None:
                while part := await exchange.read():
                    if b"data" in part:
                        exchange.begun()
                        exchange.begun()

            assert (await failure_of(read())).outcome == outcome
            assert after_s - 0.01 <= time.monotonic() - started < after_s + GRACE_S
            exchange.close()

    upstream.enqueue(Script((Send(START), *steps)))
    run(main())


@each_loop
def test_a_slow_reader_before_the_answer_began(run: Run, upstream: ScriptedUpstream) -> None:
    """While nobody reads, no first-byte time counts either; a backend that then is silent is late at once."""

    async def main() -> None:
        async with upstream_client(UpstreamLimits(read_buffer_bytes=1000)) as client:
            exchange = await ask(client, origin_of(upstream), Timeouts(first_byte_s=0.3, idle_s=9))
            await asyncio.sleep(0.6)
            resumed = time.monotonic()
            while True:
                failure = await failure_of_read(exchange)
                if failure is not None:
                    break
            assert failure.outcome == "first_byte_timeout"
            assert time.monotonic() - resumed < GRACE_S
            exchange.close()

    async def failure_of_read(exchange: Exchange) -> AttemptFailed | None:
        try:
            assert await exchange.read()
        except AttemptFailed as failure:
            return failure
        return None

    upstream.enqueue(Script((Send(START), Send(chunk(b"x" * 5000)), Hang())))
    run(main())


@each_loop
def test_a_deadline_moves_with_every_piece(run: Run, upstream: ScriptedUpstream) -> None:
    """A stream may last much longer than the idle timeout, as long as it goes on."""

    async def main() -> None:
        async with upstream_client() as client:
            timeouts = Timeouts(first_byte_s=0.4, idle_s=0.4, total_s=9)
            assert await fetch(client, origin_of(upstream), timeouts) == b"x" * 16

    upstream.enqueue(stream([b"x"] * 16, delay_s=0.05))
    run(main())


@each_loop
def test_deadlines_of_many_calls(run: Run, upstream: ScriptedUpstream) -> None:
    """Calls with different deadlines, begun in any order, each end at their own."""

    async def main() -> None:
        async with upstream_client() as client:

            async def one(limit_s: float) -> float:
                started = time.monotonic()
                await failure_of(fetch(client, origin_of(upstream), Timeouts(first_byte_s=limit_s)))
                return time.monotonic() - started - limit_s

            late = await asyncio.gather(*(one(limit_s) for limit_s in (1.0, 0.1, 0.6, 0.3)))
            assert all(0 <= each < GRACE_S for each in late)
            await asyncio.sleep(0.2)
            assert 0 <= await one(0.1) < GRACE_S  # after a pause without calls, too

    upstream.behaviour = faults.hang_before_first_byte()
    run(main())


@each_loop
def test_a_sweep_that_fails_is_not_the_last(
    run: Run, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pools of other origins keep their deadlines; the fault is in the log."""

    async def main() -> None:
        async with upstream_client() as client:
            bad = Origin(scheme="http", host="127.0.0.9", port=1)
            await failure_of(ask(client, bad))

            def fail(_now: float) -> None:
                raise RuntimeError("scripted")

            monkeypatch.setattr(client._pools[bad], "sweep", fail)
            for _ in range(2):
                failure = await failure_of(fetch(client, origin_of(upstream), Timeouts(first_byte_s=0.1)))
                assert failure.outcome == "first_byte_timeout"

    upstream.behaviour = faults.hang_before_first_byte()
    run(main())
    assert "127.0.0.9 failed" in caplog.text
    assert "scripted" in caplog.text


@each_loop
def test_a_slow_reader_is_not_a_slow_backend(run: Run, upstream: ScriptedUpstream) -> None:
    """While nobody reads, no idle time counts; when reading goes on, the stream does."""

    async def main() -> None:
        async with upstream_client() as client:
            timeouts = Timeouts(idle_s=0.2, total_s=20)
            exchange = await ask(client, origin_of(upstream), timeouts)
            first = len(await exchange.read())
            exchange.begun()
            await asyncio.sleep(0.8)
            assert first + len(await whole(exchange)) == 20_000_000

    upstream.enqueue(stream([b"x" * 1_000_000] * 20))
    run(main())


@each_loop
def test_a_slow_reader_stops_the_backend(run: Run, upstream: ScriptedUpstream) -> None:
    """Without a reader, an endless stream fills the kernel's buffers and our bound, and no more memory."""

    async def main() -> None:
        async with upstream_client() as client:
            exchange = await ask(client, origin_of(upstream))
            await exchange.read()
            amounts = [-2, -1]

            def plateau() -> bool:
                return amounts[-1] == amounts[-2] > 0

            tracemalloc.start()
            while not plateau():
                assert len(amounts) < 40
                await asyncio.sleep(0.2)
                amounts.append(upstream.bytes_sent())
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert held < 1_000_000
            for _ in range(200):
                await exchange.read()
            assert upstream.bytes_sent() > amounts[-1]
            exchange.close()
            assert client.open_connections == 0

    upstream.enqueue(faults.endless_stream(size=5000))
    run(main())
    upstream.wait_for_disconnect()


@each_loop
def test_memory_is_bounded_by_the_read_buffer(run: Run, upstream: ScriptedUpstream) -> None:
    """One read returns what has come, up to the bound and one read of the socket."""

    async def main() -> None:
        async with upstream_client(UpstreamLimits(read_buffer_bytes=16_384)) as client:
            exchange = await ask(client, origin_of(upstream))
            for _ in range(20):
                await asyncio.sleep(0.01)
                assert len(await exchange.read()) <= 16_384 + 262_144
            exchange.close()

    upstream.enqueue(faults.endless_stream(size=50_000))
    run(main())


@each_loop
@pytest.mark.parametrize("stage", ["connect", "before head", "after head", "mid-stream"])
def test_a_caller_who_leaves_stops_the_backend(run: Run, upstream: ScriptedUpstream, stage: str) -> None:
    """Cancelled or closed at any stage, the connection is closed at once and nothing is left of the call."""
    scripts = {
        "before head": Script((Hang(),)),
        "after head": faults.hang_after_head(),
        "mid-stream": faults.endless_stream(),
    }
    upstream.behaviour = scripts.get(stage, Script((Hang(),)))

    async def call(client: UpstreamClient) -> bytes:
        return await fetch(client, origin_of(upstream))

    async def main() -> float:
        async with upstream_client() as client:
            task = asyncio.ensure_future(call(client))
            if stage != "connect":
                await until(lambda: upstream.requests)
                await asyncio.sleep(0.05)
            else:
                await asyncio.sleep(0)
            left_at = time.monotonic()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert client.open_connections == 0
            await until(lambda: upstream.open_connections == 0)
            return time.monotonic() - left_at

    assert run(main()) < GRACE_S
    if stage != "connect":
        assert len(upstream.disconnects) == 1


@each_loop
def test_a_caller_who_leaves_while_his_request_is_being_sent(run: Run, upstream: ScriptedUpstream) -> None:
    """A backend that does not read cannot hold the connection."""

    async def main() -> None:
        async with upstream_client() as client:
            body = BODY * 200_000
            parts = (request_parts(body)[0], body)
            task = asyncio.ensure_future(client.exchange(origin_of(upstream), parts, Timeouts()))
            await until(lambda: upstream.open_connections == 1)
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert client.open_connections == 0

    upstream.on_connect(faults.accept_and_hang())
    run(main())


@each_loop
def test_an_early_answer_to_an_unsent_request_ends_the_connection(run: Run, upstream: ScriptedUpstream) -> None:
    """An answer before the request has left is taken, but the connection is not used again."""
    refusal = reply(413, body=b"too large", at="head")

    async def main() -> None:
        async with upstream_client() as client:
            body = b"x" * 30_000_000
            exchange = await client.exchange(origin_of(upstream), (request_parts(body)[0], body), Timeouts())
            assert exchange.status == 413
            assert await whole(exchange) == b"too large"
            assert client.open_connections in {0, 1}  # kept only if all of it had left by then

    upstream.enqueue(refusal)
    run(main())


@each_loop
def test_closing_the_client_ends_everything(run: Run, upstream: ScriptedUpstream) -> None:
    """Busy and idle connections are closed; who waits for an answer is told."""
    gate = Gate()

    async def main() -> None:
        async with upstream_client() as client:
            await fetch(client, origin_of(upstream))
            upstream.enqueue(Script((gate, Hang())))
            task = asyncio.ensure_future(ask(client, origin_of(upstream)))
            await until(lambda: gate.reached)
            client.close()
            assert (await failure_of(result_of(task))).outcome == "connect_error"
            await until(lambda: upstream.open_connections == 0)
            assert len(upstream.requests) == 2  # it is not sent again

    async def result_of(task: asyncio.Task[Exchange]) -> Exchange:
        return await task

    run(main())
    gate.open()
