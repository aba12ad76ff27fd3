"""The gunicorn worker: uvicorn's, with our servers, our signals and our way to end.

Signals of a worker: SIGTERM drains with the propagation delay, SIGUSR2 drains without, SIGQUIT ends at once. SIGINT and
SIGHUP are left to the main process, since a terminal sends them to every process of its group.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from gateway.app.launch import Launch
from gateway.telemetry import configure_logging

_log = logging.getLogger("gateway.app")

DRAIN_NOW: Final = signal.SIGUSR2
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH)


class GatewayWorker(UvicornWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process that serves both ports."""

    CONFIG_KWARGS: Final[dict[str, Any]] = {"loop": "uvloop", "lifespan": "off", "ws": "none"}

    def init_signals(self) -> None:
        """Before the event loop runs there is nothing to drain: the signals that end us do so."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        faulthandler.enable()  # the main process sends SIGABRT to a worker that hangs: shows where

    async def _serve(self) -> None:
        from gateway.app.container import Container  # here, so that a main process need not hold all this too
        from gateway.app.lifecycle import Lifecycle

        launch: Launch = self.app.launch
        settings = launch.inherited.settings
        configure_logging(settings.log_level, settings.environment, launch.inherited.writer)
        lifecycle = Lifecycle(settings, self._beat)
        self._obey(signal.SIGTERM, lambda: lifecycle.drain(delay=True))
        self._obey(DRAIN_NOW, lambda: lifecycle.drain(delay=False))
        self._obey(signal.SIGQUIT, lifecycle.end)
        try:
            if self.age > settings.workers:  # replaces one that died, maybe long after the start
                launch.inherited.registry.refresh()
            container = Container(launch.inherited)
        except Exception:  # noqa: BLE001  # whatever is wrong, starting this worker again and again would not mend it
            _log.exception("a worker could not start")
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        gc.freeze()
        await lifecycle.run(container, launch.data_listener, launch.management_listener)
        folder = launch.inherited.metrics_folder
        if folder is not None and os.getppid() != self.ppid:
            shutil.rmtree(folder, ignore_errors=True)  # the main process was killed and cannot

    def _obey(self, number: signal.Signals, order: Callable[[], None]) -> None:
        """Have ``order`` called in the event loop for a signal, which is ignored once the loop has ended."""
        loop = asyncio.get_running_loop()

        def handle(_number: int, _frame: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(order)

        signal.signal(number, handle)

    def _beat(self) -> bool:
        self.notify()
        return bool(os.getppid() == self.ppid)
