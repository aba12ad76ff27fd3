"""Real Valkey servers that a test starts, pauses, kills and starts again on the same port, as server or Sentinel."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.redis.embedded import server_binary
from tests.support.waiting import eventually, free_port

SERVICE = "limits"
"""What the Sentinel of ``service`` calls it."""

_START_TIMEOUT_S = 10.0
_TRIES = 5
# The kernel ends the server with the process that started it (prctl(2), PR_SET_PDEATHSIG), however that ends.
_LAUNCHER = (
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, 9)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


class Valkey:
    """One server without persistence; ``config`` are further lines of its configuration file."""

    def __init__(self, *config: str, sentinel: bool = False, port: int | None = None) -> None:
        self.port = port or free_port()
        self._has_port = port is not None
        self._sentinel = sentinel
        self._options = ["--sentinel"] if sentinel else []
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Its address for a client."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, or start it again on its port, and wait until it answers."""
        for _ in range(_TRIES):
            self._launch()
            if eventually(self._answers_or_ended, _START_TIMEOUT_S, what=f"a server on port {self.port}") == "answers":
                self._has_port = True
                return
            if not self._has_port:  # somebody took it, or the port of the cluster's bus, 10000 above
                self.port = free_port()
        raise AssertionError(f"the server on port {self.port} ended")

    def _launch(self) -> None:
        lines = [f"bind 127.0.0.1\nport {self.port}\ndaemonize no\nloglevel warning", *self._config]
        if not self._sentinel:
            lines.append('save ""\nappendonly no\nrepl-diskless-sync-delay 0')
        file = Path(self._folder.name) / "valkey.conf"
        file.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(server_binary()), str(file), *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End it at once, paused or not."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_START_TIMEOUT_S)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def command(self, *parts: str) -> str:
        """Ask it something over a connection of its own, without authentication; the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
            pieces = [f"*{len(parts)}\r\n", *(f"${len(part.encode())}\r\n{part}\r\n" for part in parts)]
            connection.sendall("".join(pieces).encode())
            return connection.recv(65536).decode()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers_or_ended(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        try:
            return "answers" if self.command("PING").startswith(("+PONG", "-NOAUTH")) else ""
        except OSError:
            return ""


@contextmanager
def valkeys(count: int, *config: str) -> Iterator[list[Valkey]]:
    """Several servers with the same configuration."""
    servers = [Valkey(*config) for _ in range(count)]
    try:
        for each in servers:
            each.start()
        yield servers
    finally:
        for each in servers:
            each.__exit__(None, None, None)


@contextmanager
def service() -> Iterator[tuple[Valkey, Valkey, Valkey]]:
    """A primary, its replica in step, and a Sentinel that knows both and acts alone."""
    with (
        Valkey() as primary,
        Valkey(f"replicaof 127.0.0.1 {primary.port}") as replica,
        Valkey(
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 3000",
            sentinel=True,
        ) as sentinel,
    ):
        eventually(lambda: "master_link_status:up" in replica.command("INFO", "replication"), 10.0)
        eventually(lambda: "slaves=1" in sentinel.command("INFO", "sentinel"), 20.0)
        yield primary, replica, sentinel
