"""One connection to a Redis server: commands out in order, answers back in order.

Invariants:
- The n-th answer belongs to the n-th command that was written. A command whose sender gave up, or that waited too long,
  keeps its place until its answer came; where an order cannot be kept any more the connection is dropped.
- A command counts as unanswered only after everything that had arrived by then was read, so that a busy process does
  not take its own slowness for the server's. One timer serves all commands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import hiredis

from gateway.clock import monotonic
from gateway.errors import RedisUnanswered
from gateway.redis.command import Command, ErrorReply, pack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.redis.config import Address, Credentials

WRITE_BUFFER_BYTES: Final = 2**20
"""What the transport may hold before further commands wait, still certain not to be executed."""

_NOTHING: Final = object()
_HOPS: Final = 2
# A timer may run before the sockets of its turn are read. Two turns later everything was read that had arrived when
# it ran: with asyncio callbacks of one turn run before the reads of the next, with uvloop timers before reads.
_ROUNDS_MAX: Final = 16
# As long as something arrives more may have; a bound, since a server that answers others for ever is late as well.


class Owner(Protocol):
    """Who uses a connection and is told of what befalls it."""

    def connection_lost(self) -> None:
        """It is gone, and what waited for an answer has failed."""

    def writable(self) -> None:
        """It takes commands again."""

    def answered(self, seconds: float) -> None:
        """Commands were answered in time, the oldest of them after so many seconds."""

    def expired(self, count: int) -> None:
        """So many commands were not."""

    def refused(self, command: Command, error: ErrorReply) -> None:
        """A command was answered with an error."""


class Connection(asyncio.Protocol):
    """One connection; made by the loop's ``create_connection``, then used by one Owner."""

    def __init__(self, owner: Owner, address: Address, deadline_s: float) -> None:
        self._owner = owner
        self.address = address
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=ErrorReply, replyError=ErrorReply, notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_checking = False
        self._loaded: set[str] = set()
        self.pending: deque[Command] = deque()
        self.opened_at = monotonic()
        self.lost = False
        self.is_writable = True
        self.reads = 0
        self.read_at = self.opened_at
        self.reason = "the server closed the connection"
        self.credentials: Credentials | None = None
        """What the server took last."""

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for answers."""
        self.lost = True
        if exc is not None:
            self.reason = f"the connection broke: {exc}"
        if self._timer is not None:
            self._timer.cancel()
        while self.pending:
            self.pending.popleft().fail(RedisUnanswered(self.reason))
        self._owner.connection_lost()

    def eof_received(self) -> None:
        """The server sends nothing more: the transport closes."""
        self.is_writable = False

    def pause_writing(self) -> None:
        """The transport is full."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """The transport takes more."""
        self.is_writable = True
        self._owner.writable()

    def data_received(self, data: bytes) -> None:
        """Hand each answer to the command it belongs to."""
        self.reads += 1
        self.read_at = now = monotonic()
        pending = self.pending
        oldest: Command | None = None
        try:
            self._reader.feed(data)
            gets = self._reader.gets
            while (reply := gets()) is not _NOTHING:
                if not pending:
                    self.abort("the server answered what nobody asked")
                    break
                command = pending.popleft()
                if type(reply) is ErrorReply:
                    self._owner.refused(command, reply)
                else:
                    command.take(reply)
                if oldest is None and not command.expired:
                    oldest = command
        except ErrorReply as error:
            self.abort(f"the server broke the protocol: {error}")
        if oldest is not None:
            self._owner.answered(now - oldest.due + (oldest.within_s or self._deadline_s))

    # What the owner calls

    def write(self, commands: Iterable[Command]) -> None:
        """Send commands in one write, but for those whose sender gave up already."""
        assert self._transport is not None
        due = monotonic() + self._deadline_s
        pending, loaded = self.pending, self._loaded
        pieces: list[bytes] = []
        for command in commands:
            if command.future.done():
                continue
            script = command.script
            if script is not None and script.sha not in loaded:
                loaded.add(script.sha)
                load = Command(self._loop.create_future(), pack("SCRIPT", "LOAD", script.source))
                load.due = due
                pending.append(load)
                pieces.append(load.packed)
            command.due = command.due or due  # one that is sent again keeps its first
            pending.append(command)
            pieces.append(command.sealed())
        if pieces:
            self._transport.write(b"".join(pieces))
            if self._timer is None and not self._is_checking:
                self._timer = self._loop.call_later(self._deadline_s, self._on_timer)

    def ask(self, *parts: bytes | str | int, within_s: float | None = None) -> asyncio.Future[Any]:
        """Send one command at once; ``within_s`` seconds for its answer, else the deadline."""
        command = Command(self._loop.create_future(), pack(*parts))
        if within_s is not None:
            command.within_s = within_s
            command.due = monotonic() + within_s
        if self.lost:
            command.fail(RedisUnanswered(self.reason))
        else:
            self.write((command,))
        return command.future

    def forget_scripts(self) -> None:
        """The server does not know the scripts any more."""
        self._loaded.clear()

    def abort(self, reason: str) -> None:
        """Drop the connection; what waits for answers fails."""
        if not self.lost and self._transport is not None:
            self.reason = reason
            self.is_writable = False
            self._transport.abort()

    def _on_timer(self) -> None:
        self._timer = None
        due = min((command.due for command in self.pending if not command.expired), default=None)
        if due is None:
            return
        now = monotonic()
        if due > now:  # what is written meanwhile may be due sooner, though no sooner than the deadline from now
            self._timer = self._loop.call_later(min(due - now, self._deadline_s), self._on_timer)
        else:
            self._is_checking = True
            self._check_late(now, self.reads, _HOPS, _ROUNDS_MAX)

    def _check_late(self, since: float, reads: int, hops: int, rounds: int) -> None:
        """Expire what was due at ``since``, once everything is read that had arrived by then."""
        if self.lost:
            return
        if hops:
            self._loop.call_soon(self._check_late, since, reads, hops - 1, rounds)
        elif reads != self.reads and rounds:
            self._check_late(since, self.reads, _HOPS, rounds - 1)
        else:
            self._expire(since)
            self._is_checking = False
            self._on_timer()

    def _expire(self, since: float) -> None:
        late = [command for command in self.pending if command.due <= since and not command.expired]
        for command in late:
            command.expired = True
            command.fail(RedisUnanswered(f"no answer from {self.address} in time"))
        if late:
            self._owner.expired(len(late))
