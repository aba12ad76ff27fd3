"""How many processes share the limits: each announces itself, and counts who else did of late.

The server's clock decides who is alive. Where it cannot be asked, the last known count holds.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from gateway.errors import RedisFailure
from gateway.redis import names

if TYPE_CHECKING:
    from gateway.limits.settlements import LaneLike

ANNOUNCE_S: Final = 2.0
"""How often a process announces itself."""

ALIVE_MS: Final = 10_000
"""How long an announcement counts."""


class Replicas:
    """The processes known to be alive; ``count`` >= ``least``, which is how many this replica has itself.

    ``id`` is the name of this process among them.
    """

    def __init__(self, lane: LaneLike | None, least: int) -> None:
        self._lane = lane
        self.id = secrets.token_hex(8)
        self._least = least
        self.count = least

    async def announce(self) -> None:
        """Say that this process lives, and count the others."""
        lane = self._lane
        if lane is None or not lane.available:
            return
        try:
            seconds, micros = await lane.send("TIME")
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            key = names.replicas()
            added = lane.send("ZADD", key, now_ms, self.id)
            forgotten = lane.send("ZREMRANGEBYSCORE", key, "-inf", now_ms - ALIVE_MS)
            counted = lane.send("ZCARD", key)
            expires = lane.send("PEXPIRE", key, ALIVE_MS)
            await added
            await forgotten
            self.count = max(int(await counted), self._least)
            await expires
        except RedisFailure:
            return  # the last known count holds

    async def leave(self) -> None:
        """This process ends."""
        if self._lane is not None and self._lane.available:
            try:
                await self._lane.send("ZREM", names.replicas(), self.id)
            except RedisFailure:
                return  # it will be forgotten in time
