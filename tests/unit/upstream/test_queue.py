"""Waiting for a backend: who goes when, and that no place is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from gateway.errors import AttemptFailed
from gateway.model import Backend, Queue
from gateway.telemetry import Metrics
from gateway.telemetry.families import QUEUE_WAIT
from gateway.upstream import UpstreamLimits
from gateway.upstream.backends import Backends, BackendState
from gateway.upstream.queue import BackendQueue, Ticket

PROBE_S = 0.05


def not_ready() -> AttemptFailed:
    """No endpoint."""
    failure = AttemptFailed("connect_error", "nobody listens")
    failure.not_ready = True
    return failure


class Arena:
    """One backend with its queue, and requests that wait there."""

    def __init__(self, bound: int | None = 1, max_waiting: int = 10, wait_s: float = 60.0) -> None:
        self.metrics = Metrics(version="test")
        queue = Queue(max_waiting=max_waiting, wait_s=wait_s)
        backend = Backend(name="a", provider="echo", origin=None, max_concurrent_requests=bound, queue=queue)
        self.state: BackendState = Backends(self.metrics, UpstreamLimits(queue_probe_s=PROBE_S)).state_of(backend)
        assert self.state.queue is not None
        self.queue: BackendQueue = self.state.queue
        self.order: list[str] = []
        self.moved = asyncio.Event()
        self.tickets: dict[str, Ticket] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def waiting(self) -> int:
        """As the gauge has it."""
        return self.metrics.backend_queued("a").value

    async def arrive(self, name: str) -> None:
        """A request of the tenant that its name begins with, given the time to go or to line up."""
        self.tickets[name] = self.queue.ticket(name[0])
        await self.again(name)

    async def end(self, name: str, failure: BaseException | None = None) -> None:
        """The attempt of a request is over, as ``call`` says it."""
        if failure is None:
            self.queue.answered()
        else:
            self.queue.failed(failure)
        self.state.leave()
        self.queue.tried(self.tickets[name])
        await settle()

    async def again(self, name: str) -> None:
        """A request whose attempt found nobody lines up again."""
        ticket = self.tickets[name]

        async def enter() -> None:
            await self.queue.enter(ticket)
            self.order.append(name)
            self.moved.set()

        self.tasks[name] = asyncio.ensure_future(enter())
        await settle()

    async def goes(self, count: int) -> None:
        """Wait until so many have gone."""
        async with asyncio.timeout(10):
            while len(self.order) < count:
                self.moved.clear()
                await self.moved.wait()


async def settle() -> None:
    """Let what is due happen."""
    for _ in range(5):
        await asyncio.sleep(0)


def plays(game: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """A test that runs in a loop of its own."""

    def test() -> None:
        asyncio.run(game())

    test.__doc__ = game.__doc__
    return test


@plays
async def test_who_finds_room_never_waits() -> None:
    """And is not counted as one that did."""
    arena = Arena(bound=2)
    await arena.arrive("a1")
    await arena.arrive("b1")
    assert (arena.order, arena.waiting, arena.state.in_flight) == (["a1", "b1"], 0, 2)
    for ticket in arena.tickets.values():
        arena.queue.close(ticket)
    assert sum(arena.metrics.backend_queue_wait("a").counts) == 0


@plays
async def test_places_go_from_tenant_to_tenant() -> None:
    """Each that becomes free goes to the next tenant's first; a newcomer overtakes nobody."""
    arena = Arena()
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        await arena.arrive(name)
    assert (arena.order, arena.waiting) == (["a1"], 5)
    for name in ("a1", "a2", "b1", "c1", "a3"):
        await arena.end(name)
    assert arena.order == ["a1", "a2", "b1", "c1", "a3", "b2"]
    assert (arena.waiting, arena.state.in_flight) == (0, 1)


@plays
async def test_the_queue_is_bounded() -> None:
    """One more than the bound fails at once; it has taken nothing."""
    arena = Arena(max_waiting=1)
    await arena.arrive("a1")
    await arena.arrive("a2")
    with pytest.raises(AttemptFailed, match="1 requests wait already") as caught:
        await arena.queue.enter(arena.queue.ticket("b"))
    assert (caught.value.outcome, arena.waiting) == ("busy", 1)
    await arena.end("a1")
    await arena.end("a2")
    assert arena.state.in_flight == 0


@plays
async def test_a_wait_ends_in_time() -> None:
    """The others' goes on."""
    arena = Arena(wait_s=0.05)
    await arena.arrive("a1")
    await arena.arrive("a2")
    with pytest.raises(AttemptFailed, match=r"waited 0\.05 s in vain"):
        await arena.tasks["a2"]
    assert (arena.waiting, arena.state.in_flight) == (0, 1)


@plays
async def test_who_leaves_has_left() -> None:
    """While it waits, or in the moment in which it was given a place, which then goes to the next."""
    arena = Arena()
    await arena.arrive("a1")
    for name in ("a2", "a3", "b1"):
        await arena.arrive(name)
    arena.tasks["a2"].cancel()
    await settle()
    assert arena.waiting == 2
    arena.state.leave()  # gives the place to a3, whose task has not run yet
    arena.tasks["a3"].cancel()
    await settle()
    assert (arena.order, arena.waiting, arena.state.in_flight) == (["a1", "b1"], 0, 1)


@plays
async def test_one_tries_and_the_others_follow() -> None:
    """While nobody answers one request at a time goes, and it keeps its turn; then as many as there is room for."""
    arena = Arena(bound=3)
    await arena.arrive("a1")
    await arena.end("a1", not_ready())
    await arena.again("a1")
    for name in ("a2", "b1", "c1"):
        await arena.arrive(name)
    for count in (2, 3, 4):
        await arena.goes(count)
        await settle()
        assert (arena.state.in_flight, len(arena.order)) == (1, count)
        await arena.end("a1", not_ready())
        await arena.again("a1")
    await arena.goes(5)
    assert arena.order == ["a1"] * 5
    await arena.end("a1")
    assert arena.order[5:] == ["a2", "b1", "c1"] or arena.order[5:] == ["b1", "c1", "a2"]
    assert (arena.waiting, arena.state.in_flight) == (0, 3)


@plays
async def test_tries_are_paced() -> None:
    """However many wait and however fast each fails."""
    arena = Arena(bound=None)
    loop = asyncio.get_running_loop()
    since = loop.time()
    await arena.arrive("a1")
    for count in range(1, 5):
        await arena.goes(count)
        await arena.end("a1", not_ready())
        await arena.again("a1")
    await arena.goes(5)
    assert loop.time() - since >= 4 * PROBE_S * 0.9


@plays
async def test_a_backend_that_takes_its_time_is_ready() -> None:
    """The one that tries got through and no proxy turned it away: the others need not wait for its answer."""
    arena = Arena(bound=None)
    await arena.arrive("a1")
    await arena.end("a1", not_ready())
    await arena.again("a1")
    await arena.arrive("b1")
    await arena.goes(2)
    arena.queue.sent()
    await arena.goes(3)
    assert arena.order == ["a1", "a1", "b1"]


@plays
async def test_who_tries_may_leave() -> None:
    """Then the next one tries; what had not been found out is not known."""
    arena = Arena(bound=None)
    await arena.arrive("a1")
    await arena.end("a1", not_ready())
    await arena.again("a1")
    for name in ("b1", "c1"):
        await arena.arrive(name)
    await arena.goes(2)
    arena.queue.sent()
    await arena.end("a1", asyncio.CancelledError())
    await arena.goes(3)
    await settle()
    assert (arena.order, arena.waiting, arena.state.in_flight) == (["a1", "a1", "b1"], 1, 1)


@plays
async def test_any_other_failure_says_that_somebody_is_there() -> None:
    """A backend that answers with an error is ready: who waits finds out for itself."""
    arena = Arena(bound=None)
    await arena.arrive("a1")
    await arena.end("a1", not_ready())
    await arena.again("a1")
    await arena.arrive("b1")
    await arena.goes(2)
    await arena.end("a1", AttemptFailed("server_error", "status 500", status=500))
    assert arena.order == ["a1", "a1", "b1"]


@plays
async def test_the_time_counts_from_the_first_wait() -> None:
    """However often one tries in between; the reason of the last try is told."""
    arena = Arena(wait_s=3 * PROBE_S)
    await arena.arrive("a1")
    for _ in range(20):
        if arena.tasks["a1"].done() and arena.tasks["a1"].exception() is not None:
            break
        await arena.end("a1", not_ready())
        arena.tickets["a1"].reason = "nobody listens"
        await arena.again("a1")
        await asyncio.wait([arena.tasks["a1"]])
    error = arena.tasks["a1"].exception()
    assert isinstance(error, AttemptFailed)
    assert (error.outcome, "nobody listens" in error.detail) == ("busy", True)
    arena.queue.close(arena.tickets["a1"])
    waits = arena.metrics.histograms[QUEUE_WAIT].child("a")
    assert (sum(waits.counts), waits.sum > PROBE_S) == (1, True), "one wait, however often it was broken"
    assert (arena.waiting, arena.state.in_flight) == (0, 0)


def test_workers_share_the_bound_and_a_reload_changes_it() -> None:
    """Each may keep at least one; a backend that loses its queue lets those who wait go on."""

    async def game() -> None:
        backends = Backends(Metrics(version="test"), UpstreamLimits(workers=4))
        backend = Backend(name="a", provider="echo", origin=None, max_concurrent_requests=4, queue=Queue(max_waiting=8))
        state = backends.state_of(backend)
        assert state.queue is not None
        state.enter()
        first, second = [asyncio.ensure_future(state.queue.enter(state.queue.ticket("a"))) for _ in range(2)]
        await settle()
        with pytest.raises(AttemptFailed, match="2 requests wait already"):
            await state.queue.enter(state.queue.ticket("b"))
        backends.state_of(Backend(name="a", provider="echo", origin=None, max_concurrent_requests=8))
        await settle()
        assert (first.done(), second.done(), state.in_flight) == (True, False, 2)
        state.leave()
        await second
        assert state.in_flight == 2

    asyncio.run(game())
