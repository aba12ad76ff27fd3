"""Starting processes on a core and reading what they use: CPU time in ns, memory in bytes, both of a whole tree."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_OWN = re.compile(r"^Pss_Anon:\s+(\d+) kB", re.MULTILINE)
_CPU_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED of a process, see clock_getcpuclockid(3)
STOP_TIMEOUT_S = 20.0


class Malfunction(Exception):
    """The bench itself could not do its work; its results would mean nothing."""


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Run this thread, and what it starts meanwhile, on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    command: Sequence[str],
    cores: set[int],
    *,
    output: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program on some cores, stdout and stderr to ``output``, stdin a pipe that ends with us."""
    with pinned(cores):
        return subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that ``start`` made, and its children with it."""
    children = tree(process.pid)[1:]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in (process.stdin, process.stdout):
        if each is not None:
            each.close()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_ns(pid: int) -> int:
    """User and system time of a tree so far, in ns, from the kernel's CPU clock of each process."""
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns((~each << 3) | _CPU_CLOCK_OF_PROCESS)
    return total


def pss_bytes(pid: int) -> int:
    """Proportional set size of a tree: what it would give back, shared pages counted by share."""
    return _rollup(pid, _PSS)


def own_bytes(pid: int) -> int:
    """The part of it that is not of files: what a leak shows in, whoever else maps the same files (proc(5), smaps)."""
    return _rollup(pid, _OWN)


def _rollup(pid: int, wanted: re.Pattern[str]) -> int:
    total = 0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            match = wanted.search(Path(f"/proc/{each}/smaps_rollup").read_text())
            total += int(match[1]) * 1024 if match else 0
    return total
