"""No place at a backend is lost and nobody who waits is forgotten, whatever requests and backend do."""

from __future__ import annotations

import asyncio
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import AttemptFailed
from gateway.model import Backend, Queue
from gateway.telemetry import Metrics
from gateway.upstream import UpstreamLimits
from gateway.upstream.backends import Backends
from gateway.upstream.queue import BackendQueue, Ticket

End = Literal["answered", "not ready", "failed", "left"]
Move = tuple[Literal["arrive"], str] | tuple[Literal["end"], int, End] | tuple[Literal["leave"], int]

MOVES = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from("abc")),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["answered", "not ready", "failed", "left"])),
    st.tuples(st.just("leave"), st.integers(0, 9)),
)
MAX = 6


class Game:
    """One backend and its requests: those that wait, as tasks, and those that have a place."""

    def __init__(self, bound: int | None) -> None:
        backend = Backend(
            name="a", provider="echo", origin=None, max_concurrent_requests=bound, queue=Queue(max_waiting=MAX)
        )
        self.bound = bound
        self.metrics = Metrics(version="test")
        self.state = Backends(self.metrics, UpstreamLimits(queue_probe_s=0.0)).state_of(backend)
        assert self.state.queue is not None
        self.queue: BackendQueue = self.state.queue
        self.waiting: dict[Ticket, asyncio.Task[None]] = {}
        self.inside: list[Ticket] = []

    async def play(self, moves: list[tuple[Move, bool]]) -> None:
        """Every move, some of them at the same moment, and in the end everybody leaves."""
        for move, at_once in moves:
            self.make(move)
            if not at_once:
                await self.settle()
        await self.settle()
        while self.inside or self.waiting:
            self.make(("end", 0, "answered") if self.inside else ("leave", 0))
            await self.settle()
        assert (self.state.in_flight, len(self.queue._line)) == (0, 0)

    async def settle(self) -> None:
        """Tasks run, and timers of no time at all; then all must be as it should."""
        for _ in range(6):
            await asyncio.sleep(0)
        self.check()

    def make(self, move: Move) -> None:
        """One move."""
        if move[0] == "arrive":
            self.line_up(self.queue.ticket(move[1]))
        elif move[0] == "end" and self.inside:
            self.end(self.inside.pop(move[1] % len(self.inside)), move[2])
        elif move[0] == "leave" and self.waiting:
            ticket = list(self.waiting)[move[1] % len(self.waiting)]
            self.waiting[ticket].cancel()

    def line_up(self, ticket: Ticket) -> None:
        """A request wants a place."""
        task = self.waiting[ticket] = asyncio.ensure_future(self.enter(ticket))
        task.add_done_callback(lambda _: self.waiting.pop(ticket))  # also of one that never ran

    async def enter(self, ticket: Ticket) -> None:
        """As ``call`` does."""
        try:
            await self.queue.enter(ticket)
            self.inside.append(ticket)
        except (AttemptFailed, asyncio.CancelledError):
            return

    def end(self, ticket: Ticket, how: End) -> None:
        """The attempt of a request that has a place is over, as ``call`` says it."""
        if how == "answered":
            self.queue.answered()
        elif how == "left":
            self.queue.failed(asyncio.CancelledError())
        else:
            failure = AttemptFailed("connect_error" if how == "not ready" else "reset", how)
            failure.not_ready = how == "not ready"
            self.queue.failed(failure)
        self.state.leave()
        self.queue.tried(ticket)
        if how == "not ready":
            self.line_up(ticket)

    def check(self) -> None:
        """Places are those of the requests inside; nobody waits for nothing; the bounds hold."""
        waits = len(self.waiting)
        assert self.state.in_flight == len(self.inside)
        assert self.bound is None or self.state.in_flight <= self.bound
        assert waits == len(self.queue._line) == self.metrics.backend_queued("a").value <= MAX
        if waits and self.queue._is_ready:
            assert self.state.in_flight == self.bound, "a place is free and somebody waits"
        if waits and not self.queue._is_ready:
            assert self.queue._trying in self.inside or self.state.in_flight == self.bound, "nobody tries"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2, 5, None]), st.lists(st.tuples(MOVES, st.booleans()), min_size=12, max_size=60))
def test_places_and_waiting_requests_always_meet(bound: int | None, moves: list[tuple[Move, bool]]) -> None:
    """Requests come, leave while they wait, are answered, fail, or find nobody, in any order."""

    async def main() -> None:
        await Game(bound).play(moves)

    asyncio.run(main())
