"""One server that commands go to: a connection that is kept, a queue of one event-loop tick, a breaker.

Invariants:
- All commands of one tick leave in one write, in the order in which they were sent.
- A command that fails with RedisUnavailable was never written, or was turned away untouched.
- Where a server may have lost writes that is told before anything is sent to it, and what waited to be sent is not.
- While the breaker is open no command waits: each fails at once, and nothing but one probe at a time is sent.
What goes where is the lane's business; this knows of one server only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.clock import monotonic
from gateway.errors import RedisFailure, RedisUnanswered, RedisUnavailable
from gateway.redis.breaker import Breaker
from gateway.redis.dial import Rejected
from gateway.redis.facts import Watch

if TYPE_CHECKING:
    from gateway.redis.command import Command, ErrorReply
    from gateway.redis.config import Address, Credentials, RedisConfig
    from gateway.redis.connection import Connection
    from gateway.redis.dial import Dialer
    from gateway.redis.facts import Facts
    from gateway.redis.observer import Observer

FIRST_RECONNECT_S: Final = 0.01
"""At most so long until the first attempt after a loss; random, since every replica loses its connection at once."""
SHORT_LIFE_S: Final = 1.0
"""A connection that is lost sooner counts as one that could not be made."""

CHECK_CONNECTIONS: Final = 2
"""A check of the server may last as long as so many connections: a broken one must not wait long for its repair."""

_CHANGE_CONNECTION: Final = frozenset({"READONLY", "NOAUTH"})
"""What is answered by a server that is no primary any more, or that does not know us any more."""

_log = logging.getLogger("gateway.redis")


class Destination:
    """Where a link goes. ``find`` is asked before each connection; ``moves`` says whether its answer may change."""

    moves = False

    def __init__(self, address: Address, *, needs_primary: bool = True) -> None:
        self._address = address
        self.needs_primary = needs_primary

    async def find(self) -> Address:
        """The server to connect to. Raises OSError or RedisFailure."""
        return self._address

    def __str__(self) -> str:
        return str(self._address)


class LinkEvents:
    """What a link tells the lane; each is called on the event loop."""

    def __init__(self, observer: Observer, on_change: Callable[[bool], None]) -> None:
        self.observer = observer
        self.on_change = on_change
        self.redirect: Callable[[Command, ErrorReply], bool] | None = None


class Link:
    """Commands to one server. ``start`` begins to connect in the background, ``close`` ends it."""

    def __init__(self, config: RedisConfig, dialer: Dialer, destination: Destination, events: LinkEvents) -> None:
        self._config = config
        self._dialer = dialer
        self._destination = destination
        self._suffix = f" ({config.purpose})" if config.purpose else ""
        self._events = events
        self._observer = events.observer
        self._watch = Watch(events.observer)
        self._breaker = Breaker(config.failures_max, config.deadline_s, self._breaker_changed)
        self.available = True  # whether commands are tried
        self._loop = asyncio.get_running_loop()
        self._queue: list[Command] = []
        self._is_flush_due = False
        self._queue_timer: asyncio.TimerHandle | None = None
        self._connection: Connection | None = None
        self._taken: Credentials | None = None  # by the server, last
        self._presented: Credentials | None = None  # to the server, last
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to connect."""
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name=f"redis {self._destination}")

    async def close(self) -> None:
        """Send what is queued, wait for outstanding answers (the deadline at most), then end the connection."""
        if self._is_flush_due:
            self._flush()
        self._closed = True
        connection = self._connection
        if connection is not None and not connection.lost:
            waiting = [command.future for command in connection.pending if not command.future.done()]
            if waiting:
                await asyncio.wait(waiting, timeout=self._config.deadline_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if connection is not None:
            connection.abort("the lane was closed")
        self._fail_queue("the lane was closed")
        self._watch.end()

    def submit(self, command: Command) -> None:
        """Send a command in the write of this tick; its future tells what became of it."""
        connection = self._connection
        outstanding = 0 if connection is None else len(connection.pending)
        if self._breaker.open or self._closed:
            self._turn_away(command, f"Redis is not available: {self._breaker.reason}")
        elif len(self._queue) + outstanding >= self._config.pending_max:
            self._turn_away(command, f"{self._config.pending_max} commands wait already")
        else:
            self._queue.append(command)
            if not self._is_flush_due:
                self._is_flush_due = True
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        connection = self._connection
        if connection is not None and connection.is_writable and not connection.lost:
            queue, self._queue = self._queue, []
            connection.write(queue)
            return
        due = monotonic() + self._config.deadline_s
        for command in self._queue:
            command.sealed()  # what is gathered is of one tick, also where it has to wait
            command.due = command.due or due
        if self._queue_timer is None and self._queue:
            self._queue_timer = self._loop.call_later(self._config.deadline_s, self._expire_queue)

    def _expire_queue(self) -> None:
        """Give up what waited for a connection for too long."""
        self._queue_timer = None
        now = monotonic()
        late = [command for command in self._queue if 0 < command.due <= now]
        self._queue = [command for command in self._queue if not 0 < command.due <= now and not command.future.done()]
        for command in late:
            self._turn_away(command, "no connection to Redis in time")
        if self._queue:
            self._queue_timer = self._loop.call_later(self._config.deadline_s / 4, self._expire_queue)
        if late:
            self._breaker.failed(now)

    def _turn_away(self, command: Command, reason: str) -> None:
        self._observer.failed("unavailable", 1)
        command.fail(RedisUnavailable(reason))

    def _fail_queue(self, reason: str) -> None:
        queue, self._queue = self._queue, []
        for command in queue:
            self._turn_away(command, reason)

    # What a connection tells

    def connection_lost(self) -> None:
        """See Owner."""
        self._awake.set()

    def writable(self) -> None:
        """See Owner."""
        self._flush()

    def answered(self, seconds: float) -> None:
        """See Owner."""
        self._breaker.answered()
        self._observer.answered(seconds)

    def expired(self, count: int) -> None:
        """See Owner."""
        self._observer.failed("unanswered", count)
        self._breaker.failed(monotonic())

    def refused(self, command: Command, error: ErrorReply) -> None:
        """See Owner."""
        code, connection = error.code, self._connection
        if code == "NOSCRIPT" and command.script is not None and not command.future.done():
            if connection is not None:
                connection.forget_scripts()
            command.carry_source()
            self.submit(command)
            return
        redirect = self._events.redirect
        if redirect is not None and redirect(command, error):
            return
        command.fail(error.failure())
        if code == "OOM":
            self._watch.turned_away_full(self._called())
        elif code in _CHANGE_CONNECTION and connection is not None:
            connection.abort(f"the server answered {code}")
        elif code == "LOADING":
            self._breaker.trip("it is loading its data")

    def _breaker_changed(self, reason: str) -> None:
        self.available = not reason
        self._awake.set()
        if reason:
            _log.warning("Redis at %s is not used until a probe is answered: %s", self._called(), reason)
            self._fail_queue(f"Redis is not available: {reason}")
        else:
            _log.info("Redis at %s answers again", self._called())
        self._events.on_change(not reason)

    def _called(self, address: Address | None = None) -> str:
        """The server and what it is used for here, as log lines name it."""
        return f"{address or self._destination}{self._suffix}"

    # The task that keeps a connection

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.sleep(await self._live())
            except Exception as error:  # noqa: BLE001  # whatever fails here, limits need the link to go on
                _log.exception("the link to Redis at %s failed; making it again", self._called())
                self._breaker.trip(f"{type(error).__name__}")
                await asyncio.sleep(self._pause_s())

    async def _live(self) -> float:
        """The life of one connection, if one can be made; the seconds to wait before the next."""
        connection = await self._open()
        if connection is None:
            return self._pause_s()
        try:
            await self._use(connection)
        finally:
            self._connection = None
            connection.abort("the link ended")
        if monotonic() - connection.opened_at < SHORT_LIFE_S:
            self._breaker.trip(f"the connection does not last: {connection.reason}")
            return self._pause_s()
        return random.uniform(0, FIRST_RECONNECT_S)  # noqa: S311  # spreads load, no secret

    async def _open(self) -> Connection | None:
        """A connection whose server answers in time, else None with the breaker open."""
        try:
            destination = self._destination
            address = await destination.find()
            connection, facts = await self._dialer.open(
                address, self, needs_primary=destination.needs_primary, former=self._taken
            )
        except (OSError, ValueError, RedisFailure) as failure:  # ValueError: a host name that is none
            if isinstance(failure, Rejected) and not self._breaker.open:
                self._observer.noticed("credentials")
            self._breaker.trip(str(failure) or "no connection in time")
            return None
        self._taken = self._presented = connection.credentials
        self._see(facts, self._called(address))
        if self._breaker.open and not await self._probe(connection):
            connection.abort("no answer to the probe in time")
            return None
        return connection

    def _see(self, facts: Facts, name: str) -> None:
        """Take note of a server that nothing was sent to yet; what was meant for another is not sent to it."""
        queue, self._queue = self._queue, []
        if self._watch.see(facts, name):
            for command in queue:
                self._turn_away(command, f"Redis at {name} may have lost writes")
        else:
            self._queue = queue + self._queue

    async def _use(self, connection: Connection) -> None:
        """Use a connection until it is lost."""
        self._connection = connection
        self._breaker.close()
        self._flush()
        while not connection.lost:
            if self._breaker.open:
                await self._recover(connection)
                continue
            await self._sleep(self._config.check_s, lambda: connection.lost or self._breaker.open)
            if not connection.lost and not self._breaker.open:
                await self._check(connection)

    async def _recover(self, connection: Connection) -> None:
        """Wait, then probe. A connection on which nothing has arrived for long is dropped: it may be dead."""
        await self._sleep(self._pause_s(), lambda: connection.lost)
        if connection.lost:
            return
        if await self._probe(connection):
            self._breaker.close()
        else:
            await self._drop_silent(connection)

    async def _probe(self, connection: Connection) -> bool:
        try:
            await connection.ask("PING")
        except RedisFailure:
            return False
        return True

    async def _check(self, connection: Connection) -> None:
        """Look at the server, at where it should be, and at the credentials."""
        try:
            async with asyncio.timeout(CHECK_CONNECTIONS * self._config.connect_timeout_s):
                await self._look(connection)
        except RedisUnanswered:
            await self._drop_silent(connection)
        except (OSError, RedisFailure) as failure:
            _log.debug("the check of Redis at %s failed: %s", self._called(connection.address), failure)

    async def _look(self, connection: Connection) -> None:
        await self._renew_credentials(connection)
        self._watch.see(facts := await self._dialer.look(connection), self._called(connection.address))
        if self._destination.needs_primary and facts.role not in {"", "master"}:
            self._observer.noticed("replica")
            await self._drop(connection, "the server became a replica")
        elif self._destination.moves and await self._destination.find() != connection.address:
            await self._drop(connection, "another server is the primary now")

    async def _renew_credentials(self, connection: Connection) -> None:
        """Present credentials that changed in their file; those in use stay in use where the new are not taken."""
        credentials = self._dialer.credentials()
        if credentials is None or credentials == self._presented:
            return
        self._presented = credentials
        try:
            await self._dialer.authenticate_anew(connection, credentials)
            self._taken = credentials
        except RedisFailure as failure:
            self._observer.noticed("credentials")
            text = "Redis at %s does not take the changed credentials: %s"
            _log.warning(text, self._called(connection.address), failure.text)

    async def _drop(self, connection: Connection, reason: str) -> None:
        connection.abort(reason)
        await self._sleep(self._config.connect_timeout_s, lambda: connection.lost)

    async def _drop_silent(self, connection: Connection) -> None:
        if monotonic() - connection.read_at >= self._config.connect_timeout_s:
            await self._drop(connection, "nothing arrives any more")

    def _pause_s(self) -> float:
        return random.uniform(0.5, 1.0) * self._config.probe_s  # noqa: S311  # spreads load, no secret

    async def _sleep(self, seconds: float, is_over: Callable[[], bool]) -> None:
        """Wait so long, or until ``is_over`` holds after one of the events of this link."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_over():
                    self._awake.clear()
                    await self._awake.wait()
