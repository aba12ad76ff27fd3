"""Background tasks that do not die unseen.

Invariant: a task that ends by itself is logged, and started again if it is one that must run as long as the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

_log = logging.getLogger("gateway.app")

BACKOFF_S: Final = (0.1, 0.5, 1.0, 5.0)
"""Pauses before a task is started again; the last one repeats."""


class BackgroundTasks:
    """The background tasks of one event loop, ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def keep_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` until ``close``; when it ends or fails, log that and run it again after a pause."""
        task = asyncio.get_running_loop().create_task(_keep_running(name, work), name=name)
        self._tasks.add(task)

    async def close(self) -> None:
        """Cancel every task and wait for the ends of all."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    failures = 0
    while True:
        try:
            await work()
            _log.error("the background task %r ended, which it never should; starting it again", name)
        except Exception:  # noqa: BLE001  # whatever kills a background task, the process needs it
            _log.exception("the background task %r failed; starting it again", name)
        await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
        failures += 1
