"""Calls with the gateway's own upstream client inside a test's event loop, against a scripted upstream.

``each_loop`` runs a test on asyncio's loop and on uvloop's, which the shipped process uses: they differ in when they
report a lost connection and in what they read at once. A loop must end without a task left behind.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import pytest
import uvloop

from gateway.errors import AttemptFailed
from gateway.model import Origin, Timeouts
from gateway.upstream import UpstreamClient, UpstreamLimits
from gateway.upstream.client import Exchange
from tests.support.upstream import ScriptedUpstream

T = TypeVar("T")

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
QUICK = Timeouts(connect_s=2, first_byte_s=5, idle_s=5, total_s=10)


class Run(Protocol):
    """Runs a coroutine to its end on one kind of loop."""

    def __call__(self, main: Coroutine[Any, Any, T]) -> T: ...


def _runner(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    def run(main: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(_without_leaks(main))
        gc.collect(1)  # what was not closed warns here, in the test that left it
        return result

    return run


async def _without_leaks(main: Coroutine[Any, Any, T]) -> T:
    result = await asyncio.wait_for(main, 30)
    for _ in range(5):  # what was cancelled at the very end gets its turn
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    return result


each_loop = pytest.mark.parametrize(
    "run",
    [
        pytest.param(_runner(asyncio.new_event_loop), id="asyncio"),
        pytest.param(_runner(uvloop.new_event_loop), id="uvloop"),
    ],
)


@asynccontextmanager
async def upstream_client(limits: UpstreamLimits | None = None) -> AsyncIterator[UpstreamClient]:
    """A client, closed at the end."""
    client = UpstreamClient(limits or UpstreamLimits())
    try:
        yield client
    finally:
        client.close()


def origin_of(upstream: ScriptedUpstream, host: str | None = None) -> Origin:
    """Where ``upstream`` listens, maybe under another name."""
    scheme = "https" if upstream.url.startswith("https") else "http"
    return Origin(scheme=scheme, host=host or upstream.host, port=upstream.port)  # type: ignore[arg-type]


def request_parts(body: bytes = BODY) -> tuple[bytes, bytes]:
    """A request as the gateway would send it: head and body."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream.test\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head, body


async def ask(client: UpstreamClient, origin: Origin, timeouts: Timeouts = QUICK) -> Exchange:
    """Send a request and wait for the head of its answer."""
    return await client.exchange(origin, request_parts(), timeouts)


async def whole(exchange: Exchange) -> bytes:
    """The body to its end; the exchange is closed whatever happens."""
    parts = []
    try:
        while part := await exchange.read():
            exchange.begun()
            parts.append(part)
    finally:
        exchange.close()
    return b"".join(parts)


async def fetch(client: UpstreamClient, origin: Origin, timeouts: Timeouts = QUICK) -> bytes:
    """Ask and read everything."""
    return await whole(await ask(client, origin, timeouts))


async def failure_of(call: Awaitable[object]) -> AttemptFailed:
    """The failure that a call must end in."""
    try:
        result = await call
    except AttemptFailed as failure:
        return failure
    raise AssertionError(f"no failure but {result!r}")


async def until(ready: Callable[[], object], timeout_s: float = 5.0, what: str = "") -> float:
    """Wait, without blocking the loop, until ``ready`` returns something true; how many seconds it took."""
    started = time.monotonic()
    while not ready():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.002)
    return time.monotonic() - started
