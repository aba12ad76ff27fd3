"""A newcomer's first minutes: the demo starts, what it prints works when pasted, and the README's client runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import eventually, free_port

ROOT = Path(__file__).resolve().parents[2]


class Demo:
    """``llm-gateway demo`` on free ports with a copy of the example registry."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        shutil.copytree(ROOT / "registry", folder / "registry", ignore=shutil.ignore_patterns("local"))
        self.folder = folder
        self.output = folder / "output"
        self.port, self.management_port = free_port(), free_port()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "demo", *arguments],
                cwd=folder,
                env={
                    **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                    "PYTHONPATH": str(ROOT),
                    "LLM_GATEWAY_LISTEN": f"127.0.0.1:{self.port}",
                    "LLM_GATEWAY_MANAGEMENT_LISTEN": f"127.0.0.1:{self.management_port}",
                    "LLM_GATEWAY_ADMIN_TOKEN": "a-token-of-the-demo",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """What it wrote so far."""
        return self.output.read_text(errors="replace")

    def call(self) -> str:
        """The line to paste, once it is there."""
        eventually(lambda: self.process.poll() is not None or "\ncurl " in self.text(), 30, what="a call is printed")
        assert self.process.poll() is None, self.text()
        return next(line for line in self.text().splitlines() if line.startswith("curl "))

    def stop(self, number: signal.Signals) -> int:
        """Signal the whole group, as a terminal does; the exit code."""
        os.killpg(self.process.pid, number)
        return self.process.wait(30)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A demo that is ended with the test."""
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait(10)


def pasted(line: str) -> str:
    """What a shell prints for a line."""
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=True).stdout


def test_printed_line_works_and_interrupt_ends_it(demo: Demo) -> None:
    """The line is pasted into a shell and answered; Ctrl-C ends the gateway with 0 and without a traceback."""
    answer = pasted(demo.call())
    assert json.loads(answer)["choices"][0]["message"]["content"] == "Hello, gateway!"
    head = pasted(demo.call() + " -D - -o /dev/null").lower()
    for name in ("limit", "remaining", "reset"):
        assert f"x-ratelimit-{name}-requests: " in head
        assert f"x-ratelimit-{name}-tokens: " in head
    assert "x-llm-gateway-degraded" not in head
    assert '"level":"error"' not in demo.text()
    assert demo.stop(signal.SIGINT) == 0
    assert "Traceback" not in demo.text()


def test_client_of_the_readme_runs(demo: Demo) -> None:
    """The Python of the README, with the key that was printed, against the gateway that was started."""
    key = re.findall(r"Bearer (lgw_\w+)", demo.call())[0]
    (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    program = program.replace("127.0.0.1:8080", f"127.0.0.1:{demo.port}")
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"LLM_GATEWAY_KEY": key, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    first, second, third = result.stdout.splitlines()
    assert (first, second.strip()) == ("Hello, gateway!", "One word after the other")
    assert re.fullmatch(r"\d+ tokens", third)
    assert demo.stop(signal.SIGTERM) == 0


def test_demo_without_a_registry_says_so(tmp_path: Path) -> None:
    """Started in the wrong folder it names the setting, and leaves nothing behind."""
    result = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "LLM_GATEWAY_REGISTRY: expected an existing folder, got 'registry'" in result.stderr
    assert list(tmp_path.iterdir()) == []
