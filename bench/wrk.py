"""Plain requests: by wrk where it is installed, else by our own client."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench import process
from bench.client import Load, Window, drive

_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.body = file:read("*a")
file:close()
wrk.headers["authorization"] = "Bearer {key}"
wrk.headers["content-type"] = "application/json"
{count}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\nRESULT {{\\"requests\\": %d, \\"errors\\": %d, \\"us\\": %d}}\\n", summary.requests,
    e.connect + e.read + e.write + {wrong} + e.timeout, summary.duration))
end
"""
# wrk itself counts only what is 400 and above, as failures; looking at each answer costs its core, which nobody counts.
_COUNT = """
setup = function(thread) only = thread end
wrong = 0
response = function(status) if status ~= {status} then wrong = wrong + 1 end end
"""


def available() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def measure(load: Load, body: bytes, key: str, seconds: float, core: int, cpu_ns: Callable[[], int]) -> Window:
    """Send plain requests for ``seconds``; raises Malfunction when any answer has another status than the load's."""
    if not available():
        with process.pinned({core}):
            window, failures = uvloop.run(drive(load, seconds / 5, seconds, cpu_ns))
        if failures:
            raise process.Malfunction(f"requests failed: {failures}")
        return window
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as folder:
        _run(load, body, key, max(1, round(seconds / 5)), core, Path(folder))  # warms caches and pools
        before = cpu_ns()
        result = _run(load, body, key, max(1, round(seconds)), core, Path(folder))
        used = cpu_ns() - before
    if result["errors"] or not result["requests"]:
        raise process.Malfunction(f"wrk counted {result['errors']} errors in {result['requests']} requests")
    return Window(result["requests"], 0, used, result["us"] / 1e6)


def script(body: Path, key: str, status: int = 200) -> str:
    """The Lua that tells wrk what to send and what counts as an error: every status but this one."""
    if status == 200:
        return _SCRIPT.format(body=body, key=key, count="", wrong="e.status")
    return _SCRIPT.format(body=body, key=key, count=_COUNT.format(status=status), wrong='only:get("wrong")')


def _run(load: Load, body: bytes, key: str, seconds: int, core: int, folder: Path) -> dict[str, int]:
    (folder / "body").write_bytes(body)
    (folder / "script.lua").write_text(script(folder / "body", key, load.status))
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "-s", str(folder / "script.lua")]
    with process.pinned({core}):
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{load.port}"],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=False,
        )
    _, found, result = done.stdout.partition("RESULT ")
    if done.returncode or not found:
        raise process.Malfunction(f"wrk failed with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    counts: dict[str, int] = json.loads(result.splitlines()[0])
    return counts
