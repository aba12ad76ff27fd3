"""What has to reach the shared levels and may come late: ends of calls, and undone admissions.

Invariants: each is applied once, however often it has to be sent, since the scripts know a lease that has ended; none
waits in front of a request; the queue is bounded in length and age, and what is given up is counted. A tenant is behind
as long as an end waits here that the server certainly does not know of: its levels there are too low until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from gateway.clock import monotonic
from gateway.errors import RedisFailure, RedisRefused, RedisUnavailable
from gateway.limits.codec import decode_settle, encode_settle, encode_void
from gateway.model import Frozen

if TYPE_CHECKING:
    from gateway.limits.scripts import LimitScripts
    from gateway.limits.wire import Invocation, LimitSet, ScriptOptions, SettleCall
    from gateway.redis.script import Script

_FLUSHED_TOGETHER = 200
_LOOK_AGAIN_S = 0.05  # for Redis to be back, while the process ends

_log = logging.getLogger("gateway.limits")


class LaneLike(Protocol):
    """The commands to Redis, as the limits use them; see ``gateway.redis.lane``."""

    @property
    def available(self) -> bool:
        """Whether commands are tried."""

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """Run a script."""

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command."""

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Call back with ``available`` at each change."""

    def on_loss(self, callback: Callable[[], None]) -> None:
        """Call back where a server may have lost writes."""


class QueueBounds(Frozen, frozen=True):
    """Most entries that wait, and how long one may, in seconds; each > 0."""

    entries_max: int = 20_000
    age_max_s: float = 600.0


class _Entry:
    __slots__ = ("due_s", "invocation", "is_untold", "script", "tenant")

    def __init__(self, tenant: str, script: Script, invocation: Invocation, due_s: float) -> None:
        self.tenant = tenant
        self.script = script
        self.invocation = invocation
        self.due_s = due_s  # monotonic; after it the entry is given up
        self.is_untold = False  # it waits, and the server cannot have had it


class Settlements:
    """Sends at once where it can, and again later where it must.

    ``on_epoch`` is told of the epoch of each answer, ``on_lost`` of how many entries were given up.
    """

    def __init__(
        self,
        lane: LaneLike,
        scripts: tuple[LimitScripts, ScriptOptions],
        bounds: QueueBounds,
        on_epoch: Callable[[str, bytes], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._lane = lane
        self._scripts, self._options = scripts
        self._bounds = bounds
        self._on_epoch = on_epoch
        self._on_lost = on_lost
        self._waiting: deque[_Entry] = deque()
        self._sent: set[asyncio.Future[Any]] = set()
        self._untold: dict[str, int] = {}  # by tenant

    @property
    def waiting(self) -> int:
        """How many entries wait for Redis to be back."""
        return len(self._waiting)

    def is_behind(self, tenant: str) -> bool:
        """Whether there are ends of a tenant's calls that Redis is yet to be told of."""
        return tenant in self._untold

    def settle(self, call: SettleCall) -> None:
        """A call has ended."""
        self._take(call.tenant, self._scripts.settle, encode_settle(call, self._options))

    def void(self, kind: LimitSet, lease_id: str) -> None:
        """An admission may have been executed and must not count."""
        self._take(kind.tenant, self._scripts.void, encode_void(kind, lease_id, self._options))

    async def flush(self) -> None:
        """Send what waits, part by part, each entry once, until all is sent or one is not answered."""
        self._give_up_old()
        left = len(self._waiting)
        while left > 0 and self._waiting and self._lane.available:
            part = [self._next() for _ in range(min(left, len(self._waiting), _FLUSHED_TOGETHER))]
            left -= len(part)
            futures = [self._send(entry) for entry in part]
            results = await asyncio.gather(*futures, return_exceptions=True)
            if any(isinstance(each, BaseException) and not isinstance(each, RedisRefused) for each in results):
                return

    async def close(self, timeout_s: float) -> None:
        """Send what waits and wait for the answers, ``timeout_s`` at most; what is left then is lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.flush()
                while self._waiting or self._sent:
                    if self._sent:
                        await asyncio.wait(set(self._sent))
                    else:
                        await asyncio.sleep(_LOOK_AGAIN_S)
                    await self.flush()
        lost = len(self._waiting) + len(self._sent)
        if lost:
            _log.warning("the process ends and Redis could not be told how calls ended: %d", lost)
            self._on_lost(lost)
            self._waiting.clear()

    def _take(self, tenant: str, script: Script, invocation: Invocation) -> None:
        entry = _Entry(tenant, script, invocation, monotonic() + self._bounds.age_max_s)
        if self._lane.available:
            _ = self._send(entry)  # ``_answered`` sees to it
        else:
            self._keep(entry, is_untold=True)

    def _send(self, entry: _Entry) -> asyncio.Future[Any]:
        future = self._lane.run(entry.script, entry.invocation.keys, entry.invocation.args)
        self._sent.add(future)
        future.add_done_callback(partial(self._answered, entry))
        return future

    def _answered(self, entry: _Entry, future: asyncio.Future[Any]) -> None:
        self._sent.discard(future)
        failure = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(failure, RedisFailure):
            self._keep(entry, is_untold=isinstance(failure, RedisUnavailable))
        elif entry.script is self._scripts.settle:
            self._on_epoch(entry.tenant, decode_settle(future.result()).epoch)

    def _keep(self, entry: _Entry, *, is_untold: bool) -> None:
        if len(self._waiting) >= self._bounds.entries_max:
            self._next()
            self._on_lost(1)
        self._waiting.append(entry)
        if is_untold and entry.script is self._scripts.settle:
            entry.is_untold = True
            self._untold[entry.tenant] = self._untold.get(entry.tenant, 0) + 1

    def _next(self) -> _Entry:
        """Take the first entry that waits."""
        entry = self._waiting.popleft()
        if entry.is_untold:
            entry.is_untold = False
            self._untold[entry.tenant] -= 1
            if not self._untold[entry.tenant]:
                del self._untold[entry.tenant]
        return entry

    def _give_up_old(self) -> None:
        now = monotonic()
        lost = 0
        while self._waiting and self._waiting[0].due_s < now:
            self._next()
            lost += 1
        if lost:
            self._on_lost(lost)
