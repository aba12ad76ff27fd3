"""The folder in which workers share their numbers: who cleans it, and when.

The process that starts the workers calls ``prepare_metrics_folder`` before the first of them starts and
``mark_process_dead`` with the pid of each that has ended (gunicorn: ``on_starting`` and ``child_exit``). The counters
of a worker that has ended stay, what it had under way and served goes. No environment variable is needed. Imports no
prometheus_client, so that the starting process stays small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_OURS = re.compile(r"(?:(?:counter|histogram|gauge_[a-z]+)_\d+\.db|registry_\d+\.json)(?:\.new)?")


def prepare_metrics_folder(folder: Path) -> None:
    """Make the folder, and remove what an earlier run left there. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def mark_process_dead(folder: Path, pid: int) -> None:
    """The worker with this pid has ended: its gauges count no more. Raises OSError."""
    for path in folder.glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)
    registry_file(folder, pid).unlink(missing_ok=True)


def registry_file(folder: Path, pid: int) -> Path:
    """Where a worker says what registry it serves."""
    return folder / f"registry_{pid}.json"


def registry_files(folder: Path) -> Iterator[Path]:
    """What every worker said of its registry."""
    return folder.glob("registry_*.json")
