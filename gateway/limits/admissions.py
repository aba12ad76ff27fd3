"""Admissions of one turn of the event loop, asked for together.

Calls of one kind to one backend are gathered until the lane writes, and one run of ``admit.lua`` decides on them one
after the other: what is the same for all of them is sent, read and written once. Invariants: each call is answered by
its own answer or by the failure of the run; no call joins a run that has been written or has failed, nor one that
began before something was sent that has to come first (``begin_anew``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.errors import RedisFailure, RedisRefused
from gateway.limits.codec import admit_values, decode_admit, pack_admit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.limits.binding import Bound
    from gateway.limits.settlements import LaneLike
    from gateway.limits.wire import AdmitCall, AdmitReply, ScriptOptions
    from gateway.redis.script import Script, ScriptCall

TOGETHER_MAX: Final = 32
"""Calls of one run: a script runs alone, and must not keep the server from others for long."""


class Admissions:
    """``heard`` is told of one answer of each run, the last."""

    def __init__(
        self, lane: LaneLike, script: Script, options: ScriptOptions, heard: Callable[[Bound, AdmitReply], None]
    ) -> None:
        self.lane = lane
        self.script = script
        self.options = options
        self.heard = heard
        self.open: dict[tuple[Bound, str], _Run] = {}
        """Runs that calls may join."""
        self._loop = asyncio.get_running_loop()

    def ask(self, bound: Bound, call: AdmitCall) -> asyncio.Future[AdmitReply]:
        """Ask for the admission of a call. The future raises RedisFailure. Raises ValueError as ``admit_values``."""
        values = admit_values(call)
        key = (bound, call.backend)
        future: asyncio.Future[AdmitReply] = self._loop.create_future()
        run = self.open.get(key)
        is_new = run is None or len(run.calls) >= TOGETHER_MAX
        if run is None or is_new:
            run = self.open[key] = _Run(self, bound, key)
        run.calls.append(call)
        run.values += values
        run.futures.append(future)
        if is_new:  # with its first call in it, which is told where the lane takes nothing
            self.lane.gather(self.script, bound.kind.levels, run)
        return future

    def begin_anew(self) -> None:
        """Have calls that come from now on asked for behind what is sent next."""
        self.open.clear()


class _Run:
    """One run of the script; a ``Gathering`` of the lane."""

    __slots__ = ("_admissions", "_key", "bound", "calls", "futures", "values")

    def __init__(self, admissions: Admissions, bound: Bound, key: tuple[Bound, str]) -> None:
        self._admissions = admissions
        self._key = key
        self.bound = bound
        self.calls: list[AdmitCall] = []
        self.values: list[str | int] = []
        self.futures: list[asyncio.Future[AdmitReply]] = []

    def written(self) -> ScriptCall:
        """See Gathering."""
        self._close()
        return pack_admit(self.calls, self.values, self._admissions.options)

    def answered(self, answer: Any) -> None:
        """See Gathering."""
        try:
            replies = decode_admit(self.calls, answer)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            self.failed(RedisRefused(f"an answer that cannot be read: {error}"))
            return
        for future, reply in zip(self.futures, replies, strict=True):
            if not future.done():
                future.set_result(reply)
        self._admissions.heard(self.bound, replies[-1])  # last: whatever befalls it, the calls have their answers

    def failed(self, failure: RedisFailure) -> None:
        """See Gathering."""
        self._close()
        for future in self.futures:
            if not future.done():
                future.set_exception(type(failure)(failure.text))

    def _close(self) -> None:
        """Let no more calls in."""
        if self._admissions.open.get(self._key) is self:
            del self._admissions.open[self._key]
