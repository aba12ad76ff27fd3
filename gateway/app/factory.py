"""The gateway as one ASGI application, for servers that load it themselves:

    uvicorn --factory gateway.app.factory:create_app --reload

For development. Production runs ``llm-gateway serve``, whose server bounds connections, drains, and tells of clients
that leave at once; here the server's own rules hold. The management port is opened beside it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from gateway.app.container import Container
from gateway.app.launch import Inherited, LogLoss
from gateway.app.management import LIMITS, build_management
from gateway.app.serve import listen, new_writer, start_valkey, warn_of_settings
from gateway.app.server import PortServer
from gateway.app.source import new_registry
from gateway.settings import Settings
from gateway.telemetry import configure_logging

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as ASGIScope

    from gateway.redis.embedded import EmbeddedValkey


def create_app() -> ASGIApp:
    """Read settings and registry and return the application. Raises SettingsInvalid, RegistryInvalid."""
    settings = Settings.load()
    log_loss = LogLoss()
    writer = new_writer(settings, log_loss)
    configure_logging(settings.log_level, settings.environment, writer)
    registry = new_registry(settings)
    registry.load()
    warn_of_settings(settings)
    return Development(Inherited(settings=settings, registry=registry, writer=writer, log_loss=log_loss))


class Development:
    """Serves the data port; opens everything else for as long as the server's lifespan."""

    def __init__(self, inherited: Inherited) -> None:
        self._inherited = inherited
        self._container: Container | None = None
        self._management: PortServer | None = None
        self._valkey: EmbeddedValkey | None = None

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            assert self._container is not None, "the server must run the lifespan first"
            await self._container.app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message: dict[str, Any] = dict(await receive())
            if message["type"] == "lifespan.startup":
                await self._start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        settings = self._inherited.settings
        listener = listen("management_listen", settings.management_address)
        if settings.redis_url == "embedded":
            self._valkey = start_valkey()  # in this thread: the kernel ends it with the thread that started it
        redis_url = settings.redis_url if self._valkey is None else self._valkey.url
        self._inherited = dataclasses.replace(self._inherited, redis_url=redis_url)
        self._container = Container(self._inherited)
        await self._container.start()
        container = self._container
        management = build_management(container.metrics, container.readiness, container.admin)
        self._management = PortServer(management, LIMITS)
        await self._management.open(listener)
        self._container.readiness.listening = True

    async def _stop(self) -> None:
        if self._management is not None:
            await self._management.close()
        if self._container is not None:
            await self._container.close()
        if self._valkey is not None:
            await asyncio.to_thread(self._valkey.stop)
