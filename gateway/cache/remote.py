"""A call in flight across processes: said through Redis by the one that makes it, followed by polling by the others.

Polled over the ordinary lane, not waited for with a blocking command: it works with Sentinel and Cluster as all else
does, needs no further connection, and one poll serves all callers of a process. Invariants:
- Pieces are said once and in order; one that may have been said and was not answered for is the last.
- Whoever makes the call holds a lease that it renews; a process that dies is found out when the lease has expired.
- Nobody's own call waits for anything here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from gateway.cache import wire
from gateway.cache.store import Store, flight_keys
from gateway.clock import monotonic
from gateway.errors import AttemptFailed, RedisFailure
from gateway.redis import names

if TYPE_CHECKING:
    from gateway.cache.flight import Flight
    from gateway.cache.key import Way

SAY_EVERY_S: Final = 0.01
"""The first bytes are said at once, what follows together this often."""

_RENEWALS: Final = 3
_PAUSE_LEAST_S: Final = 0.004
_PAUSE_GROWTH: Final = 1.5
_PIECES_MAX: Final = 256


class Saying:
    """What a process says of the call that it makes. ``id`` is that of the lease it took."""

    def __init__(self, store: Store, way: Way, leader_id: bytes) -> None:
        self.id = leader_id
        self._store = store
        digest = way.flight.hex()
        leader, waits = flight_keys(way)
        self._keys = (leader, names.cache_flight(way.tenant, digest, "said", leader_id.decode()), waits)
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._said = 0
        self._is_ended = False
        self._is_over = False
        self._sent: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_followed = False
        self._rest()

    def say(self, piece: bytes) -> None:
        """One more piece, in the next write or, where one was made just now, in the one after."""
        if self._is_over:
            return
        pieces = self._pieces
        if pieces and piece[:1] == b"d" and pieces[-1][:1] == b"d":
            pieces[-1] += piece[1:]
        else:
            pieces.append(piece)
        if self._said == 0 and self._sent is None and len(pieces) > 1:  # how it begins, and its first bytes
            self._flush()
        elif self._timer is None or self._timer.when() > self._loop.time() + SAY_EVERY_S:
            self._arm(SAY_EVERY_S)

    def end(self, *pieces: bytes) -> None:
        """The last pieces; they are said at once with all that is left, whatever was not answered yet."""
        if self._is_over:
            return
        self._pieces += pieces
        self._is_ended = True
        self._flush()

    async def ask_followed(self) -> bool:
        """Whether another process follows the call just now."""
        if self._sent is None and not self._is_over:
            self._flush()
        if self._sent is not None:
            await asyncio.wait((self._sent,))
        return self.is_followed and not self._is_over

    def _arm(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    def _rest(self) -> None:
        self._arm(self._store.lease_ms / 1000 / _RENEWALS)

    def _on_timer(self) -> None:
        self._timer = None
        if self._sent is None:
            self._flush()

    def _flush(self) -> None:
        if self._is_over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pieces, self._pieces = self._pieces, []
        args: list[bytes | str | int] = [self.id, self._said, self._store.lease_ms, int(self._is_ended), *pieces]
        self._said += len(pieces)
        self._is_over = self._is_ended
        self._sent = self._store.lane.run(self._store.scripts.say, self._keys, args)
        self._sent.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[Any]) -> None:
        if self._sent is future:
            self._sent = None
        failure = None if future.cancelled() else future.exception()
        if failure is not None or future.cancelled() or future.result() < 0:
            self._is_over = True
            self.is_followed = False
            self._pieces.clear()
            return
        self.is_followed = future.result() == 1
        if self._is_over:
            return
        if self._pieces:
            self._arm(SAY_EVERY_S)
        else:
            self._rest()


class Following:
    """Reads what another process says of its call, and says it to the callers here."""

    def __init__(self, store: Store, way: Way, flight: Flight, leader_id: bytes) -> None:
        self._store = store
        self._flight = flight
        self._id = leader_id
        leader, waits = flight_keys(way)
        said = names.cache_flight(way.tenant, way.flight.hex(), "said", leader_id.decode(errors="replace"))
        self._keys = (leader, said, waits)

    async def run(self, *, pause_max_s: float, idle_s: float, total_s: float) -> None:
        """Until the end, or until nobody waits here. ``idle_s`` and ``total_s`` bound it, from the first bytes on."""
        place, pause_s = 0, _PAUSE_LEAST_S
        began_at = heard_at = 0.0
        flight = self._flight
        while not flight.is_done:
            try:
                is_there, pieces = await self._ask(place)
                for piece in pieces:
                    wire.tell(flight, piece)
            except (RedisFailure, ValueError) as failure:
                flight.lose(f"what was shared cannot be read: {failure}")
                return
            now = monotonic()
            if pieces:
                began_at = began_at if place else now
                place += len(pieces)
                heard_at, pause_s = now, _PAUSE_LEAST_S
                continue
            if not is_there:
                flight.lose("the process that made the call that was shared is gone")
                return
            if flight.head is not None and (now - heard_at > idle_s or now - began_at > total_s):
                flight.break_off(AttemptFailed("idle_timeout", "nothing was said of a shared answer for too long"))
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _PAUSE_GROWTH, pause_max_s)

    async def _ask(self, place: int) -> tuple[bool, list[bytes]]:
        args = (self._id, place, self._store.lease_ms, _PIECES_MAX)
        is_there, pieces = await self._store.lane.run(self._store.scripts.follow, self._keys, args)
        return bool(is_there), pieces
