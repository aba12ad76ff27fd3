"""Waiting for a backend that is full or not ready, instead of failing.

A backend is not ready while no endpoint of it takes a request: no connection can be made, its name does not resolve, no
endpoint is known, or a proxy in front of it answers 503. Then one of those who wait tries at a time, at a bounded rate;
when it gets through, the others follow, in an order that is fair between tenants, as far as there is room.

Invariants: nobody who comes later overtakes those who wait; at most ``max`` wait, each at most its time; who leaves has
left at once, and a place that was given to it goes to the next.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from gateway.clock import monotonic
from gateway.errors import AttemptFailed
from gateway.upstream.fairness import FairQueue

if TYPE_CHECKING:
    from gateway.model import Backend
    from gateway.telemetry import Metrics


RETRY_AFTER_S: Final = 5.0
"""When to come back to a queue that was full or too slow: later than to a place that may be free in a moment."""


class Places(Protocol):
    """The places at a backend."""

    @property
    def has_room(self) -> bool:
        """Whether one is free."""

    def enter(self) -> None:
        """Take one."""

    def leave(self) -> None:
        """Give one back, which must call ``release`` of the queue."""


class Ticket:
    """One request's stay in the queue, from its first wait on; it may wait several times."""

    __slots__ = ("deadline", "future", "number", "reason", "tenant", "waited_s", "was_trying")

    def __init__(self, tenant: str, number: int) -> None:
        self.tenant = tenant
        self.number = number
        self.deadline: float | None = None  # clock.monotonic, once it has begun to wait
        self.future: asyncio.Future[None] | None = None  # while it waits
        self.reason = "at its bound of calls in flight"  # why it waits, for operators
        self.waited_s = 0.0  # in all
        self.was_trying = False


class BackendQueue:
    """Those who wait at one backend, in one process. Belongs to one event loop."""

    def __init__(self, backend: Backend, places: Places, metrics: Metrics, probe_s: float) -> None:
        self._places = places
        self._probe_s = probe_s
        self._line: FairQueue[Ticket] = FairQueue()
        self._gauge = metrics.backend_queued(backend.name)
        self._waits = metrics.backend_queue_wait(backend.name)
        self._numbers = 0
        self._max = 0
        self._wait_s = 0.0
        self._is_ready = True
        self._trying: Ticket | None = None
        self._try_at = 0.0
        self._try_timer: asyncio.TimerHandle | None = None
        self._silence_timer: asyncio.TimerHandle | None = None

    def adopt(self, max_waiting: int, wait_s: float) -> None:
        """Go on with these bounds; who waits already keeps its own."""
        self._max = max_waiting
        self._wait_s = wait_s

    # -- a request's way -----------------------------------------------------------------------------------------

    def ticket(self, tenant: str) -> Ticket:
        """For one request of ``tenant``."""
        self._numbers += 1
        return Ticket(tenant, self._numbers)

    async def enter(self, ticket: Ticket) -> None:
        """Take a place, waiting for it if need be. Raises AttemptFailed (busy)."""
        if self._is_ready and not self._line and self._places.has_room:
            self._places.enter()
            return
        since = monotonic()
        self._line_up(ticket, since)
        assert ticket.future is not None
        assert ticket.deadline is not None
        timer = asyncio.get_running_loop().call_later(ticket.deadline - since, self._expire, ticket)
        self._gauge.value += 1
        try:
            self.release()
            await ticket.future
        except asyncio.CancelledError:
            self._left(ticket)
            raise
        finally:
            timer.cancel()
            self._gauge.value -= 1
            ticket.waited_s += monotonic() - since

    def close(self, ticket: Ticket) -> None:
        """The request waits no more, however that ended."""
        if ticket.deadline is not None:
            self._waits.observe(ticket.waited_s)

    def _line_up(self, ticket: Ticket, now: float) -> None:
        """Raises AttemptFailed where its time is over or there is no room in the queue."""
        if ticket.deadline is not None and now >= ticket.deadline:
            raise self._in_vain(ticket)
        if len(self._line) + (self._trying is not None) >= self._max:  # who tries keeps its room
            raise _busy(f"{self._max} requests wait already: {ticket.reason}")
        if ticket.deadline is None:
            ticket.deadline = now + self._wait_s
        ticket.future = asyncio.get_running_loop().create_future()
        put = self._line.put_back if ticket.was_trying else self._line.put
        ticket.was_trying = False
        put(ticket.tenant, ticket.number, ticket)

    def _left(self, ticket: Ticket) -> None:
        future = ticket.future
        assert future is not None
        self._line.remove(ticket.tenant, ticket.number)
        if future.cancelled() or future.exception() is not None:
            return
        if self._trying is ticket:  # it was told that it may go, and never went
            self._trying = None
        self._places.leave()

    def _expire(self, ticket: Ticket) -> None:
        future = ticket.future
        if self._line.remove(ticket.tenant, ticket.number) and future is not None and not future.done():
            future.set_exception(self._in_vain(ticket))

    def _in_vain(self, ticket: Ticket) -> AttemptFailed:
        return _busy(f"waited {self._wait_s:g} s in vain: {ticket.reason}")

    # -- what is known of the backend ----------------------------------------------------------------------------

    def sent(self) -> None:
        """A request went out over a connection. Where no proxy turns it away soon, the backend has taken it."""
        if not self._is_ready and self._silence_timer is None:
            loop = asyncio.get_running_loop()
            self._silence_timer = loop.call_later(self._probe_s, self.answered)

    def answered(self) -> None:
        """The backend has an endpoint that takes requests; whoever waits follows."""
        if not self._is_ready:
            self._forget_silence()
            self._is_ready = True
            self._trying = None
            self.release()

    def failed(self, error: BaseException) -> None:
        """An attempt failed; said before its place is given back. What was broken off says nothing of the backend."""
        if not isinstance(error, AttemptFailed) or error.outcome == "busy":
            return
        if error.not_ready:
            self._forget_silence()
            self._is_ready = False
            self._try_at = max(self._try_at, monotonic() + self._probe_s)
        else:
            self.answered()

    def tried(self, ticket: Ticket) -> None:
        """The attempt that ``enter`` let through has ended, in whatever way."""
        if self._trying is ticket:
            ticket.was_trying = True
            self._trying = None
            self._forget_silence()
            self.release()

    def _forget_silence(self) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None

    # -- who is next ---------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Give the places that are free to those who are next: to all while the backend is ready, else to one."""
        if not self._is_ready:
            self._release_one()
            return
        while self._line and self._places.has_room:
            self._go()

    def _release_one(self) -> None:
        if self._trying is not None or not self._line or not self._places.has_room:
            return
        wait_s = self._try_at - monotonic()
        if wait_s <= 0.0:
            self._trying = self._go()
            if self._trying is not None:
                self._try_at = monotonic() + self._probe_s
        elif self._try_timer is None:
            self._try_timer = asyncio.get_running_loop().call_later(wait_s, self._try_due)

    def _try_due(self) -> None:
        self._try_timer = None
        self.release()

    def _go(self) -> Ticket | None:
        """Give a place to the next one; None where nobody waits any more."""
        while (ticket := self._line.take()) is not None:
            assert ticket.future is not None
            if not ticket.future.done():  # else its client has left, and its task has not run since
                self._places.enter()
                ticket.future.set_result(None)
                return ticket
        return None


def _busy(detail: str) -> AttemptFailed:
    return AttemptFailed("busy", detail, retry_after_s=RETRY_AFTER_S)
