"""A real Prometheus: its programs wherever they are, a server on a free port, and what its HTTP API says.

The programs are those of the Debian package ``prometheus``, on the PATH or below ``.tools/prometheus``, where
``tools/prometheus.sh`` unpacks them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import pytest
import yaml

from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".tools" / "prometheus" / "usr" / "bin"
_START_TIMEOUT_S = 30.0
_TRIES = 4


def program(name: str) -> str:
    """Where a program of Prometheus is; skips the test, saying how to get it, where there is none."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), str(UNPACKED)]))
    if found is None:
        pytest.skip(f"{name} is not installed: `tools/prometheus.sh` fetches Debian's, or put one on the PATH")
    return found


class Sample(NamedTuple):
    """One series of an answer, at one moment."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """A server that scrapes ``targets`` (labels by address) every second by ``rules``; a context manager."""

    def __init__(self, targets: Mapping[str, Mapping[str, str]], rules: Path, scrape_s: float = 1.0) -> None:
        self._server = program("prometheus")
        self._targets = targets
        self._rules = rules
        self._interval = f"{round(scrape_s * 1000)}ms"
        self.port = 0

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        folder = Path(self._folder.name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._config()))
        with (folder / "log").open("wb") as log:
            for _ in range(_TRIES):
                self._spawn(folder, log.fileno())
                if eventually(self._ready_or_ended, _START_TIMEOUT_S, what="Prometheus") == "ready":
                    break
            else:
                raise AssertionError(f"Prometheus ended: {(folder / 'log').read_text()[-2000:]}")
        self._client = httpx.Client(base_url=self.url, timeout=20.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._process.kill()  # nothing of it is kept
        self._process.wait(10)
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def query(self, expr: str) -> list[Sample]:
        """The series that a query has now. Raises AssertionError where Prometheus refuses it."""
        answer = self._client.post("/api/v1/query", data={"query": expr}).json()
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        return [Sample(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as it was last evaluated."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Every target as it was last scraped."""
        found: list[dict[str, Any]] = self._client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return found

    def _config(self) -> dict[str, Any]:
        scrapes: Sequence[dict[str, Any]] = [
            {
                "job_name": "gateway",
                "static_configs": [
                    {"targets": [address], "labels": dict(labels)} for address, labels in self._targets.items()
                ],
            }
        ]
        return {
            "global": {
                "scrape_interval": self._interval,
                "scrape_timeout": self._interval,
                "evaluation_interval": "1s",
            },
            "rule_files": [str(self._rules)],
            "scrape_configs": scrapes,
        }

    def _spawn(self, folder: Path, log: int) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [
                self._server,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _ready_or_ended(self) -> str:
        if self._process.poll() is not None:
            return "ended"
        try:
            ready = httpx.get(f"{self.url}/-/ready", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return ""
        return "ready" if ready else ""


def wait_past(moment: float) -> None:
    """Wait until the monotonic clock shows ``moment``: what Prometheus computes needs a span of time, not an event."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
