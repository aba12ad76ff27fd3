"""What this process shares with the others through Redis: admissions, ends, slots, levels, who is alive.

One background task renews slots, announces this process, sends again what was not answered and restores levels after a
loss of data. Invariants: nothing but an admission makes a request wait; a change of Redis' state is one log line; where
a server may have lost what a tenant used, what was seen of it is sent there before the tenant's next admission.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from gateway.clock import monotonic, wall
from gateway.errors import RedisFailure, RedisRefused
from gateway.limits.admissions import Admissions
from gateway.limits.codec import decode_levels, decode_renew, encode_renew, encode_restore
from gateway.limits.replicas import ANNOUNCE_S, Replicas
from gateway.limits.seen import Restore, SeenLevels
from gateway.limits.settlements import LaneLike, Settlements
from gateway.limits.slots import RENEWALS, Slots

if TYPE_CHECKING:
    from collections.abc import Container

    from gateway.limits.binding import Bound
    from gateway.limits.limiter import LimitOptions, Observer
    from gateway.limits.scripts import LimitScripts
    from gateway.limits.wire import AdmitCall, AdmitReply, Held, SettleCall

_log = logging.getLogger("gateway.limits")

TICK_S: Final = 0.5
"""How often the background task looks around, where nothing wakes it."""

RESTORED_TOGETHER: Final = 100
"""Tenants whose levels are restored in one go where no call of theirs comes first."""

CLOSE_S: Final = 2.0
"""How long the end of the process waits for Redis to take the last settlements."""


class Shared:
    """The shared state as one process sees it; without a lane it keeps slots only."""

    def __init__(
        self, lane: LaneLike | None, scripts: LimitScripts | None, options: LimitOptions, observer: Observer
    ) -> None:
        self.slots = Slots()
        self.seen = SeenLevels()
        self.replicas = Replicas(lane, options.workers)
        self._lane = lane
        self._scripts = scripts
        self._options = options.scripts
        self._observer = observer
        self._wake = asyncio.Event()
        self._is_available = True
        self._renew_due = 0.0
        self.admissions: Admissions | None = None
        self._settlements: Settlements | None = None
        self.behind: Container[str] = ()  # tenants of whose calls that were let in without Redis it is yet to be told
        if lane is not None:
            assert scripts is not None, "a lane needs the scripts that it runs"
            self.admissions = Admissions(lane, scripts.admit, options.scripts, self._heard)
            self._settlements = Settlements(
                lane, (scripts, options.scripts), options.queue, self._epoch, observer.leases_lost
            )
            self.behind = self._settlements.behind
            lane.on_change(self._changed)
            lane.on_loss(self._may_have_lost)

    def settle(self, call: SettleCall) -> None:
        """A call has ended; told to Redis now or later."""
        if self._settlements is not None:
            if self.seen.lost:  # restored after it, use would not be added to what was seen but be a part of it
                self.restore(call.tenant)
            self._settlements.settle(call)

    def void(self, call: AdmitCall) -> None:
        """An admission that may have been executed must not count."""
        if self._settlements is not None:
            self._settlements.void(call.kind, call.lease_id)

    def _heard(self, bound: Bound, reply: AdmitReply) -> None:
        """Admissions were answered, the last of them by this."""
        seen, shared = self.seen, reply.shared
        if seen.epochs.get(bound.tenant) != shared.epoch:
            self._epoch(bound.tenant, shared.epoch)
        seen.remember(bound, reply, wall())
        if shared.expired:
            self._observer.leases_lost(shared.expired)

    def restore(self, tenant: str) -> list[asyncio.Future[Any]]:
        """Send what a tenant used and holds to a server that may have lost it, in front of whatever is sent next."""
        lane, scripts = self._lane, self._scripts
        if lane is None or scripts is None or not lane.available:
            return []
        sent: list[asyncio.Future[Any]] = []
        for restore in self.seen.to_restore(tenant):
            _, limits, levels, seen_ms = restore
            invocation = encode_restore(tenant, limits, levels, seen_ms, secrets.token_hex(8))
            future = lane.run(scripts.levels, invocation.keys, invocation.args)
            future.add_done_callback(partial(self._restored, restore))
            sent.append(future)
        if sent and self.admissions is not None:
            self.admissions.begin_anew()
        return sent + [self._send_renewal(lane, scripts, tenant, held) for held in self.slots.held(tenant)]

    async def run(self) -> None:
        """Do what has to be done time and again; never returns."""
        if self._lane is None:
            await asyncio.Event().wait()
        renew_s = self._options.slot_ms / 1000 / RENEWALS
        announce_due = 0.0
        while True:
            now = monotonic()
            if now >= announce_due:
                announce_due = now + ANNOUNCE_S
                await self.replicas.announce()
            if now >= self._renew_due:
                self._renew_due = now + renew_s
                await self._renew()
            await self._catch_up()
            self.seen.show()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), TICK_S)
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Tell Redis what it does not know yet, for a bounded time."""
        if self._settlements is not None:
            await self._settlements.close(CLOSE_S)
            await self.replicas.leave()

    def _changed(self, is_available: bool) -> None:
        assert self._settlements is not None, "only a lane tells of a change"
        if is_available == self._is_available:
            return  # a node of a cluster; others are there
        self._is_available = is_available
        if is_available:
            _log.info("limits are shared again; settlements that waited: %d", self._settlements.waiting)
            self._renew_due = 0.0  # calls that were let in meanwhile take their places
            self._wake.set()
        else:
            _log.warning("limits are not shared: Redis cannot be used, each limit follows its onRedisLoss")

    def _may_have_lost(self) -> None:
        """Redis is another process than before: all that was seen is sent to it, tenant by tenant."""
        self.seen.doubt()
        if self.seen.lost:
            _log.warning("Redis may have lost limits; restoring what was last seen: tenants: %d", len(self.seen.lost))
        self._renew_due = 0.0
        self._wake.set()

    def _epoch(self, tenant: str, epoch: str) -> None:
        if self.seen.epoch(tenant, epoch):
            _log.warning("the limits of tenant %s were lost in Redis; restoring what was last seen of them", tenant)
            self.restore(tenant)

    def _restored(self, restore: Restore, future: asyncio.Future[Any]) -> None:
        failure = None if future.cancelled() else future.exception()
        if isinstance(failure, RedisRefused):
            _log.error("the limits of tenant %s cannot be restored: %s", restore.tenant, failure.text)
        elif future.cancelled() or isinstance(failure, RedisFailure):
            self.seen.again(restore)
        else:
            self.seen.restored(restore.tenant, decode_levels(restore.limits, future.result()).epoch)

    async def _catch_up(self) -> None:
        lane = self._lane
        while self.seen.lost and lane is not None and lane.available:
            tenants = list(islice(self.seen.lost, RESTORED_TOGETHER))
            sent = [future for tenant in tenants for future in self.restore(tenant)]
            results = await asyncio.gather(*sent, return_exceptions=True)
            if any(isinstance(result, BaseException) for result in results):
                break  # of a cluster one node may be away: the others are told how calls ended
        if lane is not None and lane.available and self._settlements is not None:
            await self._settlements.flush()

    async def _renew(self) -> None:
        lane, scripts = self._lane, self._scripts
        for tenant, held in self.slots.batches():
            if lane is None or scripts is None or not lane.available:
                return
            with contextlib.suppress(RedisFailure):  # the next renewal comes before the slots expire
                await self._send_renewal(lane, scripts, tenant, held)

    def _send_renewal(
        self, lane: LaneLike, scripts: LimitScripts, tenant: str, held: list[Held]
    ) -> asyncio.Future[Any]:
        invocation = encode_renew(tenant, held, self._options)
        future = lane.run(scripts.renew, invocation.keys, invocation.args)
        future.add_done_callback(partial(self._renewed, tenant, held))
        return future

    def _renewed(self, tenant: str, held: list[Held], future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        reply = decode_renew(held, future.result())
        self._epoch(tenant, reply.epoch)
        if reply.expired:
            self._observer.leases_lost(reply.expired)
