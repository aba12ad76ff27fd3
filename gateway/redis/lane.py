"""The lane: every command of this process to Redis, over one connection per server.

``send`` and ``run`` give a future at once; whatever was sent within one tick of the event loop leaves in one write, in
order. Invariants: no command is ever answered with another's answer; each future ends within the deadline (a cluster
may send a command on, at most three times, and each node has the deadline) with an answer or a RedisFailure that says
whether it may have been executed; a cancelled future disturbs no other. A connection that is being made is waited for
within the same deadline.

No blocking command (BLPOP, XREAD BLOCK) and no command that changes what a connection is (SELECT, SUBSCRIBE, MULTI,
WATCH) may be sent: all share one connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gateway.redis.cluster import ClusterRoute
from gateway.redis.command import Command, GatheredCommand, pack
from gateway.redis.dial import Dialer
from gateway.redis.link import Destination, Link, LinkEvents
from gateway.redis.observer import NoObserver, Notice, Observer
from gateway.redis.script import script_call
from gateway.redis.sentinel import SentinelDestination

if TYPE_CHECKING:
    from gateway.redis.command import Gathering
    from gateway.redis.config import RedisConfig
    from gateway.redis.script import Script, ScriptCall


class RedisLane:
    """Commands to the Redis of one configuration. Made inside a running event loop; ``start`` begins, ``close`` ends.

    Raises OSError where the CA file of the configuration cannot be used.
    """

    def __init__(self, config: RedisConfig, observer: Observer | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Callable[[bool], None]] = []
        self._loss_listeners: list[Callable[[], None]] = []
        self._observer = _Listening(observer or NoObserver(), self._loss_listeners)
        events = LinkEvents(self._observer, self._changed)
        dialer = Dialer(config)
        self._cluster: ClusterRoute | None = None
        self._links: tuple[Link, ...] = ()
        if config.server.kind == "cluster":
            self._cluster = ClusterRoute(config, dialer, events)
        else:
            destination = Destination(config.server.addresses[0])
            if config.server.kind == "sentinel":
                destination = SentinelDestination(config, dialer)
            self._link = Link(config, dialer, destination, events)

    @property
    def available(self) -> bool:
        """Whether commands are tried; of a cluster, whether they are at any of its nodes."""
        return self._link.available if self._cluster is None else self._cluster.available

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(available)`` at each change; for a cluster at each change of one of its nodes."""
        self._listeners.append(callback)

    def on_loss(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time that a server may have lost writes: another process than before, or promoted.

        With one server at a time that is before anything is sent to it; a cluster may take some commands before.
        """
        self._loss_listeners.append(callback)

    async def start(self) -> None:
        """Begin to connect in the background; a server that cannot be reached is no error."""
        if self._cluster is None:
            self._link.start()
        else:
            self._cluster.start()

    async def close(self) -> None:
        """Send what is queued, wait for outstanding answers (the deadline at most) and end every connection."""
        await (self._link.close() if self._cluster is None else self._cluster.close())

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command: its name and arguments, keys made by ``names``.

        The future raises RedisUnavailable, RedisUnanswered or RedisRefused; texts come back as bytes.
        """
        command = Command(self._loop.create_future(), pack(*parts))
        if self._cluster is None:
            self._link.submit(command)
        else:
            self._cluster.submit(command, parts)
        return command.future

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> asyncio.Future[Any]:
        """Run a script with at least one key; like ``send``. The source is sent along where the server lacks it."""
        return self.call(script, script_call(keys, args))

    def call(self, script: Script, call: ScriptCall) -> asyncio.Future[Any]:
        """Run a script whose keys and arguments are packed; like ``run``."""
        future: asyncio.Future[Any] = self._loop.create_future()
        command = Command(future, script.by_digest(call))
        command.script, command.call = script, call
        if self._cluster is None:
            self._link.submit(command)
        else:
            self._cluster.submit(command, (call.key,))
        return future

    def gather(self, script: Script, key: bytes, gathering: Gathering) -> None:
        """Run a script whose keys and arguments are asked for when they are written, ``key`` being one of the keys.

        Its place among the commands of this tick is that of this call.
        """
        command = GatheredCommand(self._loop.create_future(), script, gathering)
        if self._cluster is None:
            self._link.submit(command)
        else:
            self._cluster.submit(command, (key,))

    def _changed(self, _: bool) -> None:
        is_available = self.available
        cluster = self._cluster
        self._observer.unavailable(int(not is_available) if cluster is None else cluster.servers_unavailable)
        for listener in self._listeners:
            listener(is_available)


class _Listening:
    """An observer that passes everything on, and calls back where writes may be lost."""

    def __init__(self, observer: Observer, callbacks: Sequence[Callable[[], None]]) -> None:
        self.answered, self.failed, self.unavailable = observer.answered, observer.failed, observer.unavailable
        self.evicting = observer.evicting
        self._observer = observer
        self._callbacks = callbacks

    def noticed(self, what: Notice) -> None:
        """See Observer."""
        self._observer.noticed(what)
        if what in {"promoted", "restarted"}:
            for callback in self._callbacks:
                callback()
