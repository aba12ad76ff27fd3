"""One listening port inside a worker: uvicorn's server without its signals, its loop of ticks and its way to stop.

Invariant: ``stop_accepting`` touches nothing that is open; ``close_between_requests`` cuts nothing that is being
answered; only ``cut`` does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from uvicorn.config import Config
from uvicorn.server import Server

from gateway.clock import monotonic
from gateway.edge.connections import ConnectionLimits, Connections
from gateway.edge.protocol import GatewayProtocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_log = logging.getLogger("gateway.app")

POLL_S: Final = 0.02
END_S: Final = 1.0
"""How long applications get to end after their connections were cut, and again after they were cancelled."""


class PortServer(Server):
    """Serves ``app`` on one listening socket. Used from one event loop: ``open``, then the ways to stop, in order.

    ``refused`` is called with the error code of every refusal that ``app`` does not hear of.
    """

    def __init__(self, app: ASGIApp, limits: ConnectionLimits, refused: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(
            Config(
                app,
                http=GatewayProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # the edge decides whom to believe
                server_header=False,
            )
        )
        self.clients = Connections(limits, refused)
        self.server_state = self.clients
        self._ticker: asyncio.Task[None] | None = None

    async def open(self, listener: socket.socket) -> None:
        """Start to accept on ``listener``, which is bound; takes it over."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        self._listener = listener
        await self.on_tick(0)
        await self.startup(sockets=[listener])
        self._ticker = asyncio.get_running_loop().create_task(self._tick_forever())

    async def _tick_forever(self) -> None:
        """Sweep the connections and keep the date of the responses."""
        interval_s = self.clients.limits.sweep_interval_s()
        date_due = 0.0
        while True:
            now = monotonic()
            try:
                self.clients.sweep(now)
                if now >= date_due:
                    date_due = now + 0.5
                    await self.on_tick(0)  # assigns the header fields of every response, the date among them
            except Exception:  # noqa: BLE001  # without the next tick there are no timeouts and no bound on what is open
                _log.exception("a tick failed")
            await asyncio.sleep(interval_s)

    def stop_accepting(self) -> None:
        """New connections are refused from now on."""
        for server in self.servers:
            server.close()
        self._listener.close()

    def close_between_requests(self, since: float = 0.0, quiet_s: float = 0.0) -> None:
        """Close idle connections, and the others after the response that is under way.

        One whose client was not told may be used once more until it was idle for ``quiet_s``, counted from ``since``
        (monotonic seconds) at the earliest; somebody has to call ``sweep`` for it.
        """
        self.clients.end(since, quiet_s)

    def sweep(self) -> None:
        """Act on timeouts, more often than by itself."""
        self.clients.sweep(monotonic())

    @property
    def idle(self) -> bool:
        """No connection is open and no application runs."""
        return not self.clients.connections and not self.clients.tasks

    async def cut(self) -> None:
        """End at once what is being answered, each with a log line that says so, then close what is left."""
        for task in tuple(self.clients.tasks):
            task.cancel()
        if not await self._idle_within(END_S):
            self.clients.cut()
            await self._idle_within(END_S)

    async def _idle_within(self, timeout_s: float) -> bool:
        deadline = monotonic() + timeout_s
        while not self.idle and monotonic() < deadline:  # noqa: ASYNC110  # only while ending
            await asyncio.sleep(POLL_S)
        return self.idle

    async def close(self, grace_s: float = 0.0) -> None:
        """End for good; ``grace_s`` is how long what is being answered may take."""
        self.stop_accepting()
        self.close_between_requests()
        await self._idle_within(grace_s)
        await self.cut()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
