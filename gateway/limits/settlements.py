"""What has to reach the shared levels and may come late: ends of calls, and undone admissions.

Calls that are alike and end in one turn of the event loop are told together. Invariants: each is applied once, however
often it has to be sent, since the scripts know a lease that has ended; none waits in front of a request; what ends in a
turn is told before anything that is asked in a later one; the queue is bounded in length and age, and what is given up
is counted. A tenant is behind as long as an end waits here that the server certainly does not know of: its levels there
are too low until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gateway.clock import monotonic
from gateway.errors import RedisFailure, RedisRefused, RedisUnavailable
from gateway.limits.codec import decode_settle, encode_void, pack_settle
from gateway.model import Frozen

if TYPE_CHECKING:
    from gateway.limits.scripts import LimitScripts
    from gateway.limits.wire import LimitSet, ScriptOptions, SettleCall
    from gateway.redis.command import Gathering
    from gateway.redis.script import Script, ScriptCall

_FLUSHED_TOGETHER = 200
_DAY_S = 86_400
_SETTLED_TOGETHER = 32  # a script runs alone: what is told in one go must not keep the server from others for long
_LOOK_AGAIN_S = 0.05  # for Redis to be back, while the process ends

_log = logging.getLogger("gateway.limits")

_Like = tuple["LimitSet", str, str, str]
"""What calls have in common that are told together: their kind, key, scenario and backend."""


class LaneLike(Protocol):
    """The commands to Redis, as the limits use them; see ``gateway.redis.lane``."""

    @property
    def available(self) -> bool:
        """Whether commands are tried."""

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """Run a script."""

    def call(self, script: Script, call: ScriptCall) -> asyncio.Future[Any]:
        """Run a script whose keys and arguments are packed."""

    def gather(self, script: Script, key: bytes, gathering: Gathering) -> None:
        """Run a script whose keys and arguments are asked for when they are written."""

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
    """Something to tell: ends of calls that are alike, of one day, or, with ``void``, one admission that is undone."""

    __slots__ = ("calls", "day_ends_at", "due_s", "is_untold", "kind", "void")

    def __init__(self, kind: LimitSet, calls: list[SettleCall], void: str, due_s: float) -> None:
        self.kind = kind
        self.calls = calls
        self.void = void
        self.day_ends_at = (calls[0].ended_at // _DAY_S + 1) * _DAY_S if calls else 0.0  # Unix seconds
        self.due_s = due_s  # monotonic; after it the entry is given up
        self.is_untold = False  # it waits, and the server cannot have had it

    @property
    def size(self) -> int:
        """How many calls it tells of."""
        return len(self.calls) or 1


class Settlements:
    """Sends at once where it can, and again later where it must.

    ``on_epoch`` is told of the epoch of each answer, ``on_lost`` of how many entries were given up.
    """

    def __init__(
        self,
        lane: LaneLike,
        scripts: tuple[LimitScripts, ScriptOptions],
        bounds: QueueBounds,
        on_epoch: Callable[[str, str], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._lane = lane
        self._scripts, self._options = scripts
        self._bounds = bounds
        self._on_epoch = on_epoch
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Entry] = deque()
        self._count = 0  # calls that the entries in ``_waiting`` tell of
        self._ending: dict[_Like, _Entry] = {}  # of this turn of the loop
        self._sent: dict[asyncio.Future[Any], _Entry] = {}
        self.behind: dict[str, int] = {}  # by tenant: how many entries wait that the server cannot have had

    @property
    def waiting(self) -> int:
        """How many ends and undone admissions wait for Redis to be back."""
        return self._count

    def settle(self, call: SettleCall) -> None:
        """A call has ended."""
        kind = call.kind
        if not self._lane.available:
            due_s = monotonic() + self._bounds.age_max_s
            self._keep(_Entry(kind, [call], "", due_s), is_untold=True)
            return
        like = (kind, call.key, call.scenario, call.backend)
        entry = self._ending.get(like)
        if entry is None:
            self._begin(like, call)
        elif len(entry.calls) == _SETTLED_TOGETHER or call.ended_at >= entry.day_ends_at:
            self._tell(self._ending.pop(like))
            self._begin(like, call)
        else:
            entry.calls.append(call)

    def void(self, kind: LimitSet, lease_id: str) -> None:
        """An admission may have been executed and must not count."""
        self._tell(_Entry(kind, [], lease_id, monotonic() + self._bounds.age_max_s))

    async def flush(self) -> None:
        """Send what waits, part by part, each entry once, until all is sent or one is not answered."""
        self._end_turn()
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
        lost = self._count + sum(entry.size for entry in self._sent.values())
        if lost:
            _log.warning("the process ends and Redis could not be told how calls ended: %d", lost)
            self._on_lost(lost)
            self._waiting.clear()
            self._count = 0

    def _begin(self, like: _Like, call: SettleCall) -> None:
        if not self._ending:
            self._loop.call_soon(self._end_turn)
        self._ending[like] = _Entry(call.kind, [call], "", monotonic() + self._bounds.age_max_s)

    def _end_turn(self) -> None:
        """Tell of what has ended since the last turn of the loop."""
        ending = self._ending
        if ending:
            self._ending = {}
            for entry in ending.values():
                self._tell(entry)

    def _tell(self, entry: _Entry) -> None:
        if self._lane.available:
            _ = self._send(entry)  # ``_answered`` sees to it
        else:
            self._keep(entry, is_untold=True)

    def _send(self, entry: _Entry) -> asyncio.Future[Any]:
        if entry.void:
            invocation = encode_void(entry.kind, entry.void, self._options)
            future = self._lane.run(self._scripts.void, invocation.keys, invocation.args)
        else:
            future = self._lane.call(self._scripts.settle, pack_settle(entry.calls, self._options))
        self._sent[future] = entry
        future.add_done_callback(self._answered)
        return future

    def _answered(self, future: asyncio.Future[Any]) -> None:
        entry = self._sent.pop(future)
        failure = None if future.cancelled() else future.exception()
        if isinstance(failure, RedisRefused) and len(entry.calls) > 1:
            for call in entry.calls:  # one of them may be the reason, and must not keep the others
                self._keep(_Entry(entry.kind, [call], "", entry.due_s), is_untold=False)
        elif future.cancelled() or isinstance(failure, RedisFailure):
            self._keep(entry, is_untold=isinstance(failure, RedisUnavailable))
        elif not entry.void:
            self._on_epoch(entry.kind.tenant, decode_settle(future.result()).epoch)

    def _keep(self, entry: _Entry, *, is_untold: bool) -> None:
        bound = self._bounds.entries_max
        while self._waiting and self._count + entry.size > bound:
            self._on_lost(self._next().size)
        if len(entry.calls) > bound:
            self._on_lost(len(entry.calls) - bound)
            del entry.calls[:-bound]
        self._waiting.append(entry)
        self._count += entry.size
        if is_untold and not entry.void:
            entry.is_untold = True
            tenant = entry.kind.tenant
            self.behind[tenant] = self.behind.get(tenant, 0) + 1

    def _next(self) -> _Entry:
        """Take the first entry that waits."""
        entry = self._waiting.popleft()
        self._count -= entry.size
        if entry.is_untold:
            entry.is_untold = False
            tenant = entry.kind.tenant
            self.behind[tenant] -= 1
            if not self.behind[tenant]:
                del self.behind[tenant]
        return entry

    def _give_up_old(self) -> None:
        now = monotonic()
        lost = 0
        while self._waiting and self._waiting[0].due_s < now:
            lost += self._next().size
        if lost:
            self._on_lost(lost)
