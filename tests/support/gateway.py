"""The shipped gateway as a process: started by its command line, seen only through what an operator sees.

    with GatewayProcess(openai_registry(upstream.url, key), key=key) as gateway:
        with gateway.client() as client:
            client.request("/v1/chat/completions", {...}, key=gateway.key)
        gateway.wait_for_log(lambda line: line.get("status") == 200)

It starts with an environment of its own (nothing of the caller's settings, no ``.env``), listens on free ports and is
ended with SIGTERM at exit, which must end it with status 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil
import yaml

from tests.support.client import RawClient, Response
from tests.support.documents import Document
from tests.support.metrics import Scrape
from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
_START_ATTEMPTS = 4
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")

LogLine = dict[str, Any]


class DidNotStart(AssertionError):
    """The process ended before it was ready; the text has its exit code and output."""


class GatewayProcess:
    """One ``llm-gateway serve``; a context manager.

    ``registry`` is YAML text or documents; ``env`` adds settings by their full name; ``secrets`` are files of the
    secrets folder by name. The drain has no delays unless ``env`` says so. Without ``awaits_readiness`` it is there as
    soon as its management port answers.
    """

    def __init__(
        self,
        registry: str | Sequence[Document],
        *,
        key: str = "",
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, bytes] | None = None,
        args: Sequence[str] = (),
        awaits_readiness: bool = True,
    ) -> None:
        self.key = key
        self._awaits_readiness = awaits_readiness
        self.port = self.management_port = 0
        self._registry, self._env, self._args = registry, dict(env or {}), tuple(args)
        self._secrets = dict(secrets or {})
        self._lines: list[LogLine] = []
        self._other: list[str] = []
        self._changed = threading.Condition()
        self._readers: list[threading.Thread] = []

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        home = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-test-"))
        self.folder = Path(home)
        self.registry_folder = self.folder / "registry"
        self.secrets_folder = self.folder / "secrets"
        for each in (self.registry_folder, self.secrets_folder):
            each.mkdir()
        for name, content in self._secrets.items():
            (self.secrets_folder / name).write_bytes(content)
        self.write_registry(self._registry)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self.process.poll() is not None:
                self._join_readers()
            elif kind is None:
                self.stop()
            else:
                self.kill()

    def write_registry(self, registry: str | Sequence[Document], name: str = "objects.yaml") -> None:
        """Write a file of the registry folder, replacing it in one step."""
        text = registry if isinstance(registry, str) else yaml.safe_dump_all(registry, sort_keys=False)
        target = self.registry_folder / name
        fresh = target.with_name(f".{name}.new")
        fresh.write_text(text)
        fresh.replace(target)

    def signal(self, number: signal.Signals) -> float:
        """Send a signal to the main process; the monotonic time of it."""
        self.process.send_signal(number)
        return time.monotonic()

    def wait_exit(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the end of the process; its exit code."""
        code = self.process.wait(timeout_s)
        self._join_readers()
        return code

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, and the exit code must be 0."""
        self.signal(signal.SIGTERM)
        try:
            code = self.wait_exit(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {timeout_s} s after SIGTERM:\n{self.output()}") from None
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.output()}"

    def kill(self) -> None:
        """End the whole tree at once."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self._join_readers()

    def restart(self) -> None:
        """Start it again after it ended, on other ports and with nothing of what it said."""
        assert self.process.poll() is not None, "it still runs"
        self._start()

    # -- addresses and clients -----------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Where tenants call, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def management_url(self) -> str:
        """Where operators look, without a path."""
        return f"http://127.0.0.1:{self.management_port}"

    def client(self, **options: Any) -> RawClient:
        """A raw connection to the data port."""
        return RawClient("127.0.0.1", self.port, **options)

    def management(self, path: str) -> Response:
        """A GET on the management port."""
        with RawClient("127.0.0.1", self.management_port) as client:
            return client.request(path, headers={"connection": "close"})

    def is_ready(self) -> bool:
        """Whether it says that it should get traffic."""
        return self.management("/readyz").status == 200

    # -- what it says --------------------------------------------------------------------------------------------

    def logs(self) -> list[LogLine]:
        """The JSON lines of stdout so far."""
        with self._changed:
            return list(self._lines)

    def output(self) -> str:
        """Everything else that it wrote, to stdout and stderr, and the last 20 log lines: for messages of failures."""
        with self._changed:
            return "\n".join([*self._other[-100:], *map(json.dumps, self._lines[-20:])])

    def stray_output(self) -> list[str]:
        """Lines of stdout or stderr that are no JSON log line."""
        with self._changed:
            return list(self._other)

    def wait_for_log(self, wanted: Callable[[LogLine], bool], timeout_s: float = 5.0) -> LogLine:
        """Wait for a log line that ``wanted`` accepts; the first such."""

        def first() -> LogLine | None:
            return next((line for line in self._lines if wanted(line)), None)

        with self._changed:
            line = self._changed.wait_for(first, timeout_s)
            if line is None:
                got = "\n".join(map(str, self._lines))
                raise AssertionError(f"no such log line within {timeout_s} s; got:\n{got}")
            return line

    def metrics(self) -> Scrape:
        """A scrape, parsed."""
        answer = self.management("/metrics")
        assert answer.status == 200, answer
        return Scrape(answer.body.decode())

    def wait_for_metric(self, name: str, value: float, timeout_s: float = 5.0, **labels: str) -> None:
        """Wait until the samples of ``name`` with these labels sum up to ``value``."""
        eventually(lambda: self._shows(name, value, labels), timeout_s, what=f"{name}{labels} = {value}", every_s=0.03)

    # -- what it holds -------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """The process ids of the whole tree, the main process first."""
        try:
            main = psutil.Process(self.process.pid)
            return [main.pid, *(each.pid for each in main.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def connections_to(self, port: int) -> int:
        """How many sockets of the tree are connected, or connecting, to a port of another process."""
        return sum(1 for each in self._sockets() if each.raddr and each.raddr.port == port)

    def client_connections(self) -> int:
        """How many client connections its data port holds."""
        return sum(1 for each in self._sockets() if each.raddr and each.laddr.port == self.port)

    def open_files(self) -> int:
        """How many file descriptors the tree has open."""
        return sum(psutil.Process(pid).num_fds() for pid in self.pids())

    def assert_nothing_in_flight(self, timeout_s: float = 5.0) -> None:
        """Wait until no request, attempt or slot of a backend is held any more."""
        for name in ("llm_gateway_inflight_requests", "llm_gateway_backend_inflight_requests"):
            self.wait_for_metric(name, 0, timeout_s)

    def _sockets(self) -> list[Any]:
        return [each for pid in self.pids() for each in psutil.Process(pid).net_connections("tcp")]

    def _shows(self, name: str, value: float, labels: Mapping[str, str]) -> bool:
        seen = self.metrics().value(name, **labels)
        assert seen == value, f"{name} is {seen}"
        return True

    # -- starting ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for attempt in range(_START_ATTEMPTS):
            self._spawn()
            try:
                self._wait_ready()
                return
            except DidNotStart as failure:
                taken = "in use" in str(failure).lower()  # somebody was faster at the port
                if not taken or attempt + 1 == _START_ATTEMPTS:
                    raise

    def _spawn(self) -> None:
        self.port, self.management_port = free_port(), free_port()
        self._lines, self._other = [], []
        self.process = subprocess.Popen(
            self._command(),
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        streams = [self.process.stdout, self.process.stderr]
        self._readers = [threading.Thread(target=self._read, args=(each,), daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "gateway.cli", "serve", *self._args]

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LLM_GATEWAY_REGISTRY": str(self.registry_folder),
            "LLM_GATEWAY_SECRETS_DIR": str(self.secrets_folder),
            "LLM_GATEWAY_LISTEN": f"127.0.0.1:{self.port}",
            "LLM_GATEWAY_MANAGEMENT_LISTEN": f"127.0.0.1:{self.management_port}",
            "LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S": "0",
            "LLM_GATEWAY_DRAIN_IDLE_S": "0",
            "LLM_GATEWAY_DRAIN_S": "10",
            **self._env,
        }

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._is_up():
            if (code := self.process.poll()) is not None:
                self._join_readers()
                raise DidNotStart(f"ended with {code} before it was ready:\n{self.output()}")
            if time.monotonic() > deadline:
                self.kill()
                raise DidNotStart(f"not ready within {READY_TIMEOUT_S} s:\n{self.output()}")
            time.sleep(0.01)

    def _is_up(self) -> bool:
        try:
            return self.management("/readyz").status == 200 or not self._awaits_readiness
        except OSError:
            return False
        except Exception as error:
            raise AssertionError(f"/readyz does not speak HTTP: {error!r}\n{self.output()}") from error

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\n")
                with self._changed:
                    self._keep(line)
                    self._changed.notify_all()

    def _keep(self, line: str) -> None:
        try:
            parsed = json.loads(line)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            self._lines.append(parsed)
        else:
            self._other.append(line)

    def _join_readers(self) -> None:
        for reader in self._readers:
            reader.join(10)
