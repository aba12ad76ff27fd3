"""What the main process prepares before it starts workers, and what they inherit.

Imports little: the main process of a single worker stays small by leaving the rest to the worker.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from gateway.app.source import RegistryWatch
from gateway.settings import Settings
from gateway.telemetry import LineWriter, Metrics

if TYPE_CHECKING:
    from gateway.redis.embedded import EmbeddedValkey


class LogLoss:
    """Told of log lines that were given up; counts them once there is something to count in."""

    def __init__(self) -> None:
        self.metrics: Metrics | None = None

    def __call__(self, lines: int) -> None:
        """Count."""
        if self.metrics is not None:
            self.metrics.log_lines_dropped(lines)


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """What a worker gets from the process that started it."""

    settings: Settings
    registry: RegistryWatch
    writer: LineWriter
    log_loss: LogLoss
    metrics_folder: Path | None = None  # with several workers
    redis_url: str | None = None
    replica: str = field(default_factory=lambda: token_hex(8))
    """What the workers of this replica have in common, and no other replica has."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything that outlives a worker: bound sockets, and what workers inherit."""

    inherited: Inherited
    data_listener: socket.socket
    management_listener: socket.socket
    valkey: EmbeddedValkey | None = None
