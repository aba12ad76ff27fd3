"""The bounds of the upstream client, as one value; each is a documented setting."""

from __future__ import annotations

from pathlib import Path

from gateway.model import Frozen


class UpstreamLimits(Frozen, frozen=True):
    """Bounds on connections, heads and bodies; sizes in bytes, times in seconds."""

    max_connections: int = 20_000  # per origin
    max_idle_connections: int = 256  # per origin
    idle_s: float = 30.0
    connection_max_age_s: float = 300.0
    dns_ttl_s: float = 5.0
    max_header_bytes: int = 65_536
    max_header_count: int = 128
    max_body_bytes: int = 67_108_864
    max_error_body_bytes: int = 1_048_576
    max_event_bytes: int = 1_048_576
    read_buffer_bytes: int = 65_536
    ca_file: Path | None = None
    max_batch_items: int = 10_000  # of a call that becomes several
    queue_probe_s: float = 0.5  # between two tries at a backend that is not ready
    workers: int = 1  # processes of this replica that share its bounds on backends
