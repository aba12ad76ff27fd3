"""A lane to a server of a test, with an observer that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from gateway.errors import RedisFailure
from gateway.redis.config import RedisConfig, parse_url
from gateway.redis.lane import RedisLane
from gateway.redis.observer import Failure, Notice

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
"""The event loops that a gateway may run on; they differ in when timers run."""


def run(main: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    """Run a coroutine on one of LOOPS."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


class Remembered:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failures: dict[Failure, int] = {"unavailable": 0, "unanswered": 0}
        self.unused: list[int] = []
        self.notices: list[Notice] = []
        self.evicting_servers = 0

    def answered(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def failed(self, how: Failure, count: int) -> None:
        self.failures[how] += count

    def unavailable(self, servers: int) -> None:
        self.unused.append(servers)

    def evicting(self, change: int) -> None:
        self.evicting_servers += change

    def noticed(self, what: Notice) -> None:
        self.notices.append(what)


@asynccontextmanager
async def lane_to(url: str, observer: Remembered | None = None, **options: Any) -> AsyncIterator[RedisLane]:
    """A started lane; ``options`` are fields of RedisConfig. Its deadline is long where a test does not set it."""
    options = {"deadline_s": 2.0, "probe_s": 0.1} | options
    lane = RedisLane(RedisConfig(server=parse_url(url), **options), observer)
    await lane.start()
    try:
        yield lane
    finally:
        await lane.close()


async def until(probe: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait until a coroutine function says True; a RedisFailure counts as False."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                if await probe():
                    return
            except RedisFailure:
                pass
            await asyncio.sleep(0.01)


async def until_answered(lane: RedisLane, timeout_s: float = 10.0) -> None:
    """Wait until the lane answers."""

    async def pong() -> bool:
        return bool(await lane.send("PING") == b"PONG")

    await until(pong, timeout_s)


async def outcome(future: asyncio.Future[Any]) -> object:
    """What became of a command: its answer, or the failure itself."""
    try:
        return await future
    except RedisFailure as failure:
        return failure
