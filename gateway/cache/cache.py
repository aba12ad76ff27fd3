"""What a process keeps and shares: looks answers up, knows the calls in flight, and bounds both.

Invariants:
- Of one tenant's identical calls in flight that may share, one is made: in this process by ``flights``, over all by a
  lease in Redis.
- Without Redis nothing is kept and calls are shared within the process only; nobody waits longer for that than the
  lane's deadline.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.cache import wire
from gateway.cache.flight import Flight, Head, Refusal
from gateway.cache.key import Way, Ways
from gateway.cache.local import LocalAnswers
from gateway.cache.remote import Following, Saying
from gateway.cache.similar import IndexBounds, SimilarAnswers, packed
from gateway.cache.store import Found, Store
from gateway.dialects.openai.replay import JSON
from gateway.errors import AttemptFailed, RedisFailure
from gateway.model import Frozen

if TYPE_CHECKING:
    from gateway.model import Plan

_log = logging.getLogger("gateway.cache")

GIVEN_UP: Final = "the call that was shared was given up"

_TOO_LARGE: Final = AttemptFailed("protocol_error", "the answer is too large to be shared")


class Counts(Protocol):
    """Where the cache counts; see ``gateway.telemetry.CacheMetrics``."""

    def request(self, scenario: str, result: str) -> None:
        """A call of a scenario with a cache was answered so."""

    def similarity(self, scenario: str, similarity: float) -> None:
        """An answer to a question that is so similar was given."""


class CacheOptions(Frozen, frozen=True):
    """Bounds; see the settings of the same names. Sizes are bytes."""

    lease_s: float = 3.0
    poll_s: float = 0.02
    max_entry_bytes: int = 4_194_304
    max_flight_bytes: int = 8_388_608
    max_flights_bytes: int = 268_435_456
    max_followed: int = 500
    index: IndexBounds = IndexBounds()
    local_s: float = 1.0
    max_local_bytes: int = 33_554_432


class Shared:
    """A call in flight as whoever makes it here sees it: what is said goes to the callers here and elsewhere."""

    __slots__ = ("_saying", "flight", "is_said", "marks", "way")

    def __init__(self, way: Way, flight: Flight, saying: Saying | None, marks: bytes | None) -> None:
        self.way = way
        self.flight = flight
        self.marks = marks
        self.is_said = False  # all of a stream was said, though its connection has not ended yet
        self._saying = saying

    def begin(self, head: Head) -> None:
        """See Flight."""
        self.flight.begin(head)
        if self._saying is None:
            return
        if head.body is None:
            self._saying.say(wire.begin(head))
        elif len(head.body) > self.flight.size_max:
            self._stop(_TOO_LARGE)
        else:
            self._end(wire.begin(head), wire.END)

    def push(self, data: bytes) -> None:
        """See Flight. An answer that outgrows its bound is not shared beyond this process any more."""
        self.flight.push(data)
        if self._saying is not None:
            if self.flight.joinable:
                self._saying.say(wire.data(data))
            else:
                self._stop(_TOO_LARGE)

    def finish(self) -> None:
        """See Flight."""
        self.flight.finish()
        self._end(wire.END)

    def refuse(self, refusal: Refusal) -> None:
        """See Flight."""
        self.flight.refuse(refusal)
        self._end(wire.refused(refusal))

    def break_off(self, failure: AttemptFailed) -> None:
        """See Flight."""
        self.flight.break_off(failure)
        self._stop(failure)

    def lose(self) -> None:
        """The call is given up."""
        self.flight.lose(GIVEN_UP)
        self._end(wire.LOST)

    @property
    def is_told(self) -> bool:
        """Whether other processes may follow it."""
        return self._saying is not None

    async def is_followed(self) -> bool:
        """Whether anybody waits for it, here or elsewhere."""
        if self.flight.is_followed:
            return True
        return self._saying is not None and (await self._saying.ask_followed() or self.flight.is_followed)

    def _stop(self, failure: AttemptFailed) -> None:
        self._end(wire.broken(failure))

    def _end(self, *pieces: bytes) -> None:
        saying, self._saying = self._saying, None
        if saying is not None:
            saying.end(*pieces)


def _read(future: asyncio.Future[Any]) -> None:
    """A failure is counted by the lane."""
    if not future.cancelled():
        future.exception()


class Cache:
    """See the module. ``store`` None: there is no Redis."""

    def __init__(self, store: Callable[[], Store | None], options: CacheOptions, counts: Counts) -> None:
        self._open_store = store
        self._store: Store | None = None
        self._similar: SimilarAnswers | None = None
        self._is_open = False
        self.options = options
        self.counts = counts
        self.ways = Ways()
        self.local = LocalAnswers(options.local_s, options.max_local_bytes)
        self._flights: dict[tuple[str, bytes], Flight] = {}
        self._bytes = 0
        self._followed = 0
        self._prefix = secrets.token_hex(8)
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # Calls in flight

    @property
    def has_room(self) -> bool:
        """Whether a further call may be shared."""
        return self._bytes < self.options.max_flights_bytes

    def flight(self, way: Way) -> Flight | None:
        """The call in flight here that this one may join."""
        flight = self._flights.get((way.tenant, way.flight))
        return flight if flight is not None and flight.joinable and not flight.is_lost else None

    def open(self, way: Way) -> Flight:
        """A call in flight that others join from now on; one that only takes a new answer is joined by nobody."""
        flight = Flight(self.options.max_flight_bytes, self._add_bytes)
        if way.reads:
            self._flights[way.tenant, way.flight] = flight
        return flight

    def forget(self, way: Way, flight: Flight) -> None:
        """The call is over, or given up: nobody joins it any more."""
        flight.close()
        if self._flights.get((way.tenant, way.flight)) is flight:
            del self._flights[way.tenant, way.flight]

    def _add_bytes(self, size: int) -> None:
        self._bytes += size

    # Redis

    @property
    def store(self) -> Store | None:
        """Where answers are kept; made when it is first asked for."""
        if not self._is_open:
            self._is_open = True
            self._store = self._open_store()
            if self._store is not None:
                self._similar = SimilarAnswers(self._store.lane, self.options.index)
        return self._store

    async def look(self, way: Way) -> tuple[Found | None, bytes]:
        """What is kept, or who makes the call, and the id that it was looked for under; None without Redis."""
        store = self.store
        self._number += 1
        leader_id = b"%s%x" % (self._prefix.encode(), self._number) if way.reads else b""
        if store is None:
            return None, leader_id
        try:
            found = await store.look(way, leader_id)
        except RedisFailure:
            return None, leader_id
        if found.kept is not None:
            self.local.hold(way, found.kept)
        return found, leader_id

    async def similar(self, way: Way, vector: list[float]) -> Head | None:
        """The kept answer to a question that is similar enough; None where there is none, or Redis does not answer."""
        store, index, question = self._store, self._similar, way.question
        if store is None or index is None or question is None:
            return None
        try:
            nearest = await index.nearest(way, packed(vector))
            if nearest is None or nearest.similarity < question.policy.threshold:
                return None
            kept = await store.fetch(way, nearest.digest)
        except (RedisFailure, ValueError):
            return None
        if kept is None:
            return None
        self.counts.similarity(way.scenario, nearest.similarity)
        return Head(status=200, content_type=JSON, body=kept.body, age_s=kept.age_s, similarity=nearest.similarity)

    def remember(self, way: Way, vector: list[float]) -> None:
        """A question whose answer is being kept: nobody waits for it."""
        if self._similar is None:
            return
        try:
            sent = self._similar.add(way, packed(vector))
        except ValueError:
            return
        for future in sent:
            future.add_done_callback(_read)

    def lead(self, way: Way, flight: Flight, found: Found | None, leader_id: bytes) -> Shared:
        """Make the call here, and say what comes of it to whoever waits."""
        saying = None
        if found is not None and leader_id and self._store is not None:
            saying = Saying(self._store, way, leader_id)
        return Shared(way, flight, saying, None if found is None else found.marks)

    def follow(self, way: Way, flight: Flight, leader: bytes, plan: Plan) -> bool:
        """Have another process's call read for the callers here; False where too many are read already."""
        store = self._store
        if store is None or self._followed >= self.options.max_followed:
            return False
        self._followed += 1
        following = Following(store, way, flight, leader)
        bounds = {
            "pause_max_s": self.options.poll_s,
            "idle_s": max((each.timeouts.idle_s for each in plan.attempts), default=1.0),
            "total_s": sum(each.timeouts.total_s for each in plan.attempts),
        }

        async def run() -> None:
            try:
                await following.run(**bounds)
            finally:
                self._followed -= 1
                self.forget(way, flight)

        task = self.start(run())

        def stop() -> None:
            task.cancel()

        flight.on_empty = stop
        return True

    @property
    def is_idle(self) -> bool:
        """Whether no call that is shared is made here or followed."""
        return not self._tasks

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of its own, held until it ends."""
        task = asyncio.get_running_loop().create_task(work, name="a shared call")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a shared call failed", exc_info=error)

    def entry_bytes_max(self, way: Way) -> int:
        """The largest body that is kept for a call."""
        return min(way.policy.max_entry_bytes, self.options.max_entry_bytes)

    def keep(self, shared: Shared, packed: bytes) -> None:
        """Keep an answer (``entry.pack``), where there is a Redis; nobody waits for it."""
        store, marks, way = self._store, shared.marks, shared.way
        self.local.forget(way)
        if store is None or marks is None:
            return

        def answered(future: asyncio.Future[Any]) -> None:
            if future.cancelled() or future.exception() is not None:
                self.counts.request(way.scenario, "not_kept")

        store.keep(way, marks, packed).add_done_callback(answered)

    async def close(self) -> None:
        """End every call that is still in flight."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
