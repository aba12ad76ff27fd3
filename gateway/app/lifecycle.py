"""One worker's life: both ports open, serve, drain, close.

A drain counts from its signal. ``/readyz`` fails at once; until the propagation delay is over the data port still
accepts and answers with ``connection: close``; then it accepts no more and lets every open response finish. A
connection whose client could not be told, since it is idle or its response had begun, may bring one more request for a
moment before it is closed: a client that is sending one just then would see a failure. At the end of the drain time, or
when told to end at once, what is left is cut. The management port closes last.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from gateway.app.container import Container, connection_limits
from gateway.app.management import LIMITS, build_management
from gateway.app.server import POLL_S, PortServer
from gateway.clock import monotonic
from gateway.settings import Settings

_log = logging.getLogger("gateway.app")

BEAT_S: Final = 1.0
SWEEP_S: Final = 0.1
"""How often connections are looked at while draining."""
NEVER: Final = float("inf")


class Lifecycle:
    """Runs the two ports of one worker. ``drain`` and ``end`` may be called at any time, from the event loop."""

    def __init__(self, settings: Settings, beat: Callable[[], bool]) -> None:
        self._settings = settings
        self._beat = beat  # called every second; false when the process that started us is gone
        self._changed = asyncio.Event()
        self._accept_until = NEVER
        self._finish_until = NEVER
        self._drain_since = NEVER
        self._quiet_s = self._sweep_due = 0.0
        self._container: Container | None = None
        self._data: PortServer | None = None

    def drain(self, *, delay: bool) -> None:
        """Begin to drain; with ``delay`` new connections are accepted for a while. Again without: no longer."""
        now = monotonic()
        first = self._finish_until == NEVER
        if first:
            self._drain_since, self._finish_until = now, now + self._settings.drain_s
            _log.info("draining: new connections %s", "for a little longer" if delay else "refused from now on")
        delay_s = self._settings.drain_propagation_delay_s if delay else 0.0
        self._quiet_s = self._settings.drain_idle_s if delay else 0.0
        self._accept_until = min(self._accept_until, now + delay_s)
        self._announce()

    def end(self) -> None:
        """End at once: open responses are cut."""
        if self._finish_until != 0.0:
            _log.warning("ending at once")
        self._accept_until = self._finish_until = 0.0
        self._announce()

    def _announce(self) -> None:
        if self._container is not None:
            self._container.drain()
        if self._data is not None:
            self._data.clients.draining = True
        self._changed.set()

    async def run(self, container: Container, data_listener: socket.socket, management: socket.socket) -> None:
        """Serve until drained. The sockets are bound; they are closed in here."""
        self._container = container
        await container.start()
        management_port = PortServer(build_management(container.metrics, container.readiness, container.admin), LIMITS)
        await management_port.open(management)
        if self._settings.workers > 1:  # others serve: this one takes no connection before it can answer
            await self._until(lambda: container.readiness.informed or self._finish_until != NEVER)
        limits = connection_limits(self._settings)
        self._data = PortServer(container.app, limits, container.metrics.connection_refused)
        await self._data.open(data_listener)
        container.readiness.listening = True
        if self._finish_until != NEVER:
            self._announce()
        await self._drained(self._data)
        await self._data.close()
        await container.close()
        await management_port.close(grace_s=1.0)

    async def _drained(self, data: PortServer) -> None:
        """Return when nothing is left to finish, or its time is over."""
        await self._until(lambda: monotonic() >= self._accept_until)
        data.stop_accepting()
        data.close_between_requests(self._drain_since, self._quiet_s)
        await self._until(lambda: self._is_finished(data))
        if not data.idle:
            _log.warning("cutting %d connections", len(data.clients.connections))

    def _is_finished(self, data: PortServer) -> bool:
        """Nothing is left to finish, or its time is over; looks after the connections meanwhile."""
        now = monotonic()
        if now >= self._sweep_due:
            self._sweep_due = now + SWEEP_S
            data.sweep()
        return (data.idle and self._is_alone()) or now >= self._finish_until

    def _is_alone(self) -> bool:
        """Whether no other process waits for a call that is made here."""
        return self._container is None or self._container.idle

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait for ``reached``, keeping the heart beating."""
        beat_due = 0.0
        while not reached():
            now = monotonic()
            if now >= beat_due:
                beat_due = now + BEAT_S
                if not self._beat() and self._finish_until == NEVER:
                    _log.error("the main process is gone")
                    self.drain(delay=False)
            await self._pause()

    async def _pause(self) -> None:
        """Sleep for a beat while serving; look often before it and in a drain: neither should take long."""
        self._changed.clear()
        serves = self._data is not None and self._finish_until == NEVER
        wait_s = BEAT_S if serves else POLL_S
        try:
            await asyncio.wait_for(self._changed.wait(), wait_s)
        except TimeoutError:
            return
