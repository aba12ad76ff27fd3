"""CPU of this process per Redis command: our lane, redis-py, and redis-py with one pipeline per tick.

    python -m bench.redis_cpu

Each of 32 callers awaits its own command and asks again, against an embedded Valkey, on uvloop; the command is a script
call with two keys and eight arguments. Microseconds of user and system time, the best of five rounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import redis.asyncio
import uvloop

from gateway.redis.config import RedisConfig, parse_url
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.lane import RedisLane
from gateway.redis.names import tenant_key
from gateway.redis.script import Script

CALLERS = 32
CALLS = 250
ROUNDS = 5
SCRIPT = Script("answer", "return {1, 2, ARGV[8]}")
KEYS = [tenant_key("acme", "levels"), tenant_key("acme", "lease", "0192f3a0")]
ARGS: tuple[str | int, ...] = ("t:requests-minute", 600, 1000, 200000, 250, 1024, 30000, "x")


async def cpu_us(call: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of CPU per call."""

    async def caller() -> None:
        for _ in range(CALLS):
            await call()

    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        best = min(best, (time.process_time() - before) * 1e6 / (CALLERS * CALLS))
    return best


class PipelinePerTick:
    """redis-py, with the commands of one tick in one pipeline."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: list[asyncio.Future[object]] = []

    def call(self) -> asyncio.Future[object]:
        """One command."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(future)
        if len(self._waiting) == 1:
            loop.call_soon(lambda: loop.create_task(self._flush()))
        return future

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        pipeline = self._client.pipeline(transaction=False)
        for _ in waiting:
            pipeline.execute_command("EVALSHA", SCRIPT.sha, len(KEYS), *KEYS, *ARGS)
        for future, answer in zip(waiting, await pipeline.execute(), strict=True):
            future.set_result(answer)


async def measure(url: str) -> None:
    """Print one line for each way."""
    lane = RedisLane(RedisConfig(server=parse_url(url), deadline_s=5.0))
    await lane.start()
    await lane.run(SCRIPT, KEYS, ARGS)
    print(f"lane                     {await cpu_us(lambda: lane.run(SCRIPT, KEYS, ARGS)):7.1f} us")
    print(f"lane, PING               {await cpu_us(lambda: lane.send('PING')):7.1f} us")
    await lane.close()
    async with redis.asyncio.Redis.from_url(url) as client:
        pipelined = PipelinePerTick(client)
        print(f"redis-py, one pipeline   {await cpu_us(pipelined.call):7.1f} us")

        def alone() -> Awaitable[object]:
            answer: Awaitable[object] = client.execute_command("EVALSHA", SCRIPT.sha, len(KEYS), *KEYS, *ARGS)  # type: ignore[no-untyped-call]
            return answer

        single = await cpu_us(alone)
        print(f"redis-py                 {single:7.1f} us")


def main() -> None:
    """Measure."""
    valkey = EmbeddedValkey.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(valkey.url))
    finally:
        valkey.stop()


if __name__ == "__main__":
    main()
