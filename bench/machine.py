"""The cores of this machine, who else uses them, and the canned model server on one of them."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import process
from bench.candidates import ROOT
from tests.support.waiting import free_port


@dataclass(frozen=True)
class Cores:
    """Which core does what; with two, the load generator and the upstream share one."""

    load: int
    proxy: int
    upstream: int

    @classmethod
    def here(cls) -> Cores:
        """The cores that we may use; raises Malfunction with fewer than two."""
        free = sorted(os.sched_getaffinity(0))
        if len(free) < 2:
            raise process.Malfunction("two cores are needed: one for what is measured, one for what drives it")
        return cls(free[0], free[1], free[2] if len(free) > 2 else free[0])


class Neighbours:
    """How much of the machine others used since this was made: what a run's noise may come from."""

    def __init__(self) -> None:
        self._begun, self._busy_s, self._own_s = time.monotonic(), _busy_s(), _own_s()

    def share(self) -> float:
        """Cores that everybody else kept busy on average; our processes count once they have ended."""
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(0.0, others_s) / (time.monotonic() - self._begun)


def _busy_s() -> float:
    """CPU time of all cores that was neither idle nor waiting for a disk, see proc_stat(5)."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextlib.contextmanager
def upstream(cores: set[int], module: str = "bench.upstream") -> Iterator[int]:
    """A model server on some cores, the canned one unless another is named; its port."""
    port = free_port()
    command = [sys.executable, "-m", module, str(port)]
    running = process.start(command, cores, output=subprocess.PIPE, cwd=ROOT)
    try:
        assert running.stdout is not None
        said = running.stdout.readline()
        if said != b"ready\n":
            raise process.Malfunction(f"the upstream said {said + running.stdout.read()!r}")
        yield port
    finally:
        process.stop(running)
