"""The main process: gunicorn's arbiter, with our sockets, our log, and a stop that listens to a second signal.

Signals: SIGTERM drains with the propagation delay; SIGINT (Ctrl-C) without; a second one of either, or SIGQUIT, ends at
once by cutting what is open. Each of these ends with exit code 0, since it was asked for. SIGHUP, SIGUSR1, SIGUSR2,
SIGTTIN and SIGTTOU do nothing but say why: the registry reloads itself, the log goes to standard output, and the number
of workers is a setting.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from gateway.app.launch import Launch
from gateway.app.worker import DRAIN_NOW, GatewayWorker
from gateway.clock import monotonic
from gateway.telemetry import mark_process_dead

_log = logging.getLogger("gateway.app")

HANG_S: Final = 30
"""A worker whose event loop has not turned for so long is killed and replaced."""

MARGIN_S: Final = 5.0
"""How long workers may need beyond the drain time before they are killed."""

END_S: Final = 4.0
"""How long they may need when told to end at once."""

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # memory, so that a heartbeat never waits for a disk


def memory_folder() -> Path | None:
    """A folder in memory, where there is one; None means the usual temporary folder."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


class GatewayApplication(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Tells gunicorn how we want to be run; workers find ``launch`` here."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        super().__init__(prog="llm-gateway")

    def load_config(self) -> None:
        """Everything that differs from gunicorn's defaults."""
        settings = self.launch.inherited.settings
        folder = self.launch.inherited.metrics_folder
        memory = memory_folder()
        options: dict[str, Any] = {
            "workers": settings.workers,
            "worker_class": GatewayWorker,
            "logger_class": GatewayLogger,
            "loglevel": settings.log_level,
            "timeout": HANG_S,
            "graceful_timeout": math.ceil(settings.drain_s),
            "control_socket_disable": True,
            "worker_tmp_dir": None if memory is None else str(memory),
            "proc_name": "llm-gateway",
        }
        if folder is not None:
            options["child_exit"] = lambda _arbiter, worker: mark_process_dead(folder, worker.pid)
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> None:
        """Nothing: a worker builds its own application, inside its event loop."""


class GatewayLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log through Python's logging, where ours goes too."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.error_log.propagate = True

    def setup(self, cfg: Any) -> None:
        """Add no handlers."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS[cfg.loglevel]

    def reopen_files(self) -> None:
        """There are no files."""


class GatewayArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Starts workers, replaces those that die, and stops them."""

    def __init__(self, app: GatewayApplication) -> None:
        super().__init__(app)
        self._launch = app.launch
        self.LISTENERS = [app.launch.data_listener]
        self._stop_with = signal.SIGTERM
        self._valkey_mourned = False

    # Signals

    def handle_int(self) -> None:
        """Ctrl-C: somebody waits, so nothing is gained by the propagation delay."""
        self._stop_with = DRAIN_NOW
        raise StopIteration

    def handle_quit(self) -> None:
        """End at once."""
        self._stop_with = signal.SIGQUIT
        raise StopIteration

    def handle_hup(self) -> None:
        """Nothing to reload."""
        _log.info("SIGHUP does nothing: the registry reloads by itself, settings need a new process")

    def handle_usr1(self) -> None:
        """Nothing to reopen."""
        _log.info("SIGUSR1 does nothing: the log goes to standard output")

    def handle_usr2(self) -> None:
        """No second main process."""
        _log.info("SIGUSR2 does nothing: start a new process and end this one with SIGTERM")

    def handle_ttin(self) -> None:
        """The number of workers is a setting."""
        _log.info("SIGTTIN and SIGTTOU do nothing: the number of workers is the setting LLM_GATEWAY_WORKERS")

    handle_ttou = handle_ttin

    # Workers

    def spawn_worker(self) -> Any:
        """Start one; the child never comes back from here to what belongs to the main process."""
        main_pid = os.getpid()
        code: Any = 1
        try:
            return super().spawn_worker()
        except SystemExit as ending:
            code = ending.code
            raise
        finally:
            if os.getpid() != main_pid:
                self._leave(code if isinstance(code, int) else 1)

    def _leave(self, code: int) -> NoReturn:
        self._launch.inherited.writer.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def murder_workers(self) -> None:
        """Once a second: replace workers that hang; see whether Valkey lives."""
        super().murder_workers()
        valkey = self._launch.valkey
        if valkey is not None and not self._valkey_mourned and not valkey.alive:
            self._valkey_mourned = True
            _log.error("the embedded Valkey has ended")

    def stop(self, graceful: bool = True) -> None:
        """Have the workers drain, or end at once, and wait for them; kill those that take too long."""
        for listener in (self._launch.data_listener, self._launch.management_listener):
            listener.close()
        self.LISTENERS = []
        if not graceful:
            self._stop_with = signal.SIGQUIT
        ending = self._stop_with == signal.SIGQUIT
        deadline = monotonic() + (END_S if ending else self.cfg.graceful_timeout + MARGIN_S)
        while self.WORKERS and monotonic() < deadline:
            self.kill_workers(self._stop_with)  # again and again: a worker just forked may not hear the first
            signals = self.wait_for_signals(timeout=1.0)
            if not ending and {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}.intersection(signals):
                ending, self._stop_with = True, signal.SIGQUIT
                deadline = monotonic() + END_S
            self.reap_workers()
            self.murder_workers()
        self.kill_workers(signal.SIGKILL)
        self.reap_workers()
