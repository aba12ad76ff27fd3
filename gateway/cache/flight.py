"""One call in flight that several callers of one tenant wait for, as one process sees it.

Whoever makes the call, here or in another process, says what comes (``begin``, ``push``, ``finish``, ...); every caller
has a Follower, which reads as a backend's answer does. Invariants:
- A follower gets what was said, each byte once and in order, or an end that says that something is missing.
- What is said after the end changes nothing.
- Memory: what was said is kept for callers that come later up to ``size_max``; from then on nobody joins, and only what
  the slowest follower has yet to take is kept. ``room`` is what whoever makes the call waits for then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.errors import AttemptFailed, GatewayError, NoBackend, Overloaded, UpstreamFailed, UpstreamTimeout
from gateway.model import Frozen

_KINDS: Final = {each.__name__: each for each in (NoBackend, Overloaded, UpstreamFailed, UpstreamTimeout)}


class Head(Frozen, frozen=True):
    """How an answer begins. ``body`` is a whole one; None: a stream, whose events follow."""

    status: int
    content_type: bytes
    body: bytes | None = None
    age_s: float | None = None  # of an answer that was kept; None: it is a new one
    similarity: float | None = None  # of the question that a kept answer was given to; None: the same question
    verdict: str = ""  # whether a whole one is as the scenario promises, where that promises anything


class Refusal(Frozen, frozen=True):
    """Why no backend answered, as every caller of it is told."""

    kind: str
    message: str
    code: str
    detail: str | None
    retry_after_s: float | None

    @classmethod
    def of(cls, error: GatewayError) -> Refusal | None:
        """What may be told to all callers; None for what concerns one call only."""
        if type(error).__name__ not in _KINDS:
            return None
        return cls(
            kind=type(error).__name__,
            message=error.message,
            code=error.code,
            detail=error.detail,
            retry_after_s=error.retry_after_s,
        )

    def error(self) -> GatewayError:
        """A fresh exception: each caller's has headers of its own."""
        kind = _KINDS.get(self.kind, UpstreamFailed)
        return kind(self.message, code=self.code, detail=self.detail, retry_after_s=self.retry_after_s)


class Lost(Exception):
    """Whoever made the call is gone, and nothing of an answer has been said."""


class Flight:
    """See the module. ``on_empty`` is called whenever the last follower leaves before the end."""

    __slots__ = (
        "_base",
        "_bytes",
        "_followers",
        "_pieces",
        "_room",
        "failure",
        "head",
        "is_done",
        "is_lost",
        "joinable",
        "on_empty",
        "on_size",
        "refusal",
        "size",
        "size_max",
    )

    def __init__(self, size_max: int, on_size: Callable[[int], None]) -> None:
        self.size_max = size_max
        self._pieces: list[bytes] = []
        self._base = 0  # how many pieces were dropped
        self._bytes = 0  # of those that are kept
        self._followers: set[Follower] = set()
        self._room: asyncio.Future[None] | None = None
        self.size = 0
        self.head: Head | None = None
        self.refusal: Refusal | None = None
        self.failure: AttemptFailed | None = None
        self.is_lost = False
        self.is_done = False
        self.joinable = True
        self.on_empty: Callable[[], None] | None = None
        self.on_size = on_size

    # What whoever makes the call says

    def begin(self, head: Head) -> None:
        """The answer begins; a whole one is all there."""
        if self.is_done or self.head is not None:
            return
        self.head = head
        if head.body is not None:
            self._add(len(head.body))
            self.is_done = True
        self._wake()

    def push(self, data: bytes) -> None:
        """The next bytes of a stream."""
        if self.is_done or not data:
            return
        self._pieces.append(data)
        self._bytes += len(data)
        self._add(len(data))
        if self.size > self.size_max:
            self.joinable = False
            self._trim()
        self._wake()

    def finish(self) -> None:
        """The stream has come to its end."""
        self._end()

    def refuse(self, refusal: Refusal) -> None:
        """No backend answered."""
        if not self.is_done:
            self.refusal = refusal
            self._end()

    def break_off(self, failure: AttemptFailed) -> None:
        """The stream came to an end that is none; where it has not begun, whoever waits looks for another call."""
        if not self.is_done:
            self.failure = failure
            self.is_lost = self.head is None or self.places == 0
            self._end()

    def lose(self, detail: str) -> None:
        """Whoever made the call is gone."""
        self.break_off(AttemptFailed("reset", detail))

    async def room(self) -> None:
        """Wait while more is kept for slow followers than may be; no longer than there are any."""
        while not self.joinable and self._bytes > self.size_max and self._followers:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def said(self) -> bytes | None:
        """All that was said of a stream; None where some of it is not kept any more."""
        return b"".join(self._pieces) if self._base == 0 else None

    def _end(self) -> None:
        if not self.is_done:
            self.is_done = True
            self._wake()

    def _add(self, size: int) -> None:
        self.size += size
        self.on_size(size)

    def _wake(self) -> None:
        for follower in tuple(self._followers):
            follower.wake(self.is_done)

    # What callers do

    @property
    def is_followed(self) -> bool:
        """Whether anybody waits for it here."""
        return bool(self._followers)

    def join(self) -> Follower:
        """One more caller; ``leave`` it when done."""
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """A caller is gone. May be called again."""
        if follower not in self._followers:
            return
        self._followers.discard(follower)
        if not self.joinable:
            self._trim()
        if not self._followers:
            if self.is_done:
                self.retire()
            elif self.on_empty is not None:
                self.on_empty()

    def close(self) -> None:
        """Nobody joins any more; where nobody is left, nothing is kept."""
        self.joinable = False
        self.lose("the call that was shared was given up")
        if not self._followers:
            self.retire()

    def retire(self) -> None:
        """Nobody will read any more of it: let go of what is kept."""
        self.joinable = False
        self.on_size(-self.size)
        self.size = self._bytes = 0
        self._base += len(self._pieces)
        self._pieces = []
        self._free()

    def piece(self, place: int) -> bytes | None:
        """What was said from ``place`` on; None where nothing more was."""
        start = place - self._base
        pieces = self._pieces
        if start >= len(pieces):
            return None
        return pieces[start] if start == len(pieces) - 1 else b"".join(pieces[start:])

    @property
    def places(self) -> int:
        """How many pieces were said."""
        return self._base + len(self._pieces)

    def taken(self) -> None:
        """A follower took what was there."""
        if not self.joinable:
            self._trim()

    def _trim(self) -> None:
        """Drop what every follower has taken, once nobody can join any more."""
        needed = min((each.place for each in self._followers), default=self.places) - self._base
        if needed > 0:
            self._bytes -= sum(map(len, self._pieces[:needed]))
            del self._pieces[:needed]
            self._base += needed
        self._free()

    def _free(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)


class Follower:
    """One caller of a flight. Reads like a backend's answer (``gateway.meter.stream.Pieces``)."""

    __slots__ = ("_flight", "_listener", "_waiter", "delimited", "place")

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._listener: Callable[[bool], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.delimited = True
        self.place = 0

    async def begun(self, timeout_s: float | None) -> Head:
        """How the answer begins. Raises Lost, GatewayError as the backends refused, TimeoutError."""
        flight = self._flight
        if not self._is_decided:
            async with asyncio.timeout(timeout_s):
                while not self._is_decided:
                    await self.arrival()
        if flight.refusal is not None:
            raise flight.refusal.error()
        if flight.head is None or flight.is_lost:
            raise Lost
        return flight.head

    @property
    def _is_decided(self) -> bool:
        """A stream has begun with its first bytes: until then another call can take its place."""
        flight = self._flight
        return flight.is_done or (flight.head is not None and flight.places > 0)

    def take(self) -> bytes | None:
        """What has been said since; ``b""`` at the end, None where nothing has. Raises AttemptFailed."""
        flight = self._flight
        data = flight.piece(self.place)
        if data is not None:
            self.place = flight.places
            flight.taken()
            return data
        if not flight.is_done:
            return None
        if flight.failure is not None:
            raise AttemptFailed(flight.failure.outcome, flight.failure.detail)
        return b""

    async def arrival(self) -> None:
        """To be awaited once after ``take`` gave None."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def listen(self, listener: Callable[[bool], None] | None) -> bool:
        """Have ``listener`` called instead of waiting for ``arrival``; None ends it."""
        self._listener = listener
        return True

    def wake(self, last: bool) -> None:
        """Something was said."""
        waiter, listener = self._waiter, self._listener
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if listener is not None:
            listener(last)

    def leave(self) -> None:
        """The caller needs no more of it."""
        self._listener = None
        self._flight.leave(self)
