"""The load that an autoscaler reads is that of the gauges, in one process or several."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gateway.telemetry import Metrics, prepare_metrics_folder
from gateway.telemetry.load import BackendLoad, Load, total


def busy(metrics: Metrics) -> None:
    """Three requests: one at the backend, two that wait."""
    for _ in range(3):
        metrics.request_started()
    metrics.backend_inflight("qwen").value += 1
    metrics.backend_queued("qwen").value += 2
    metrics.backend_inflight("idle").value += 0


BUSY = Load(3, {"qwen": BackendLoad(1, 2)})


def test_a_process_says_what_its_gauges_say() -> None:
    """A backend without work is left out: what is published stays small."""
    metrics = Metrics(version="test")
    assert metrics.load() == Load(0, {})
    busy(metrics)
    assert metrics.load() == metrics.replica_load() == BUSY
    assert metrics.load().queued == 2


def test_a_replica_is_the_sum_of_its_workers(tmp_path: Path) -> None:
    """Whichever of them is asked, with its own numbers of now."""
    folder = tmp_path / "metrics"
    prepare_metrics_folder(folder)
    one = Metrics(version="test", multiprocess_dir=folder)
    busy(one)
    assert one.load() == one.replica_load() == BUSY
    one.close()


def test_loads_add_up_and_travel() -> None:
    """By backend; the bytes in between change nothing."""
    other = Load(1, {"qwen": BackendLoad(1, 0), "gpt": BackendLoad(0, 4)})
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(other), type=Load)
    assert total([BUSY, sent]) == Load(4, {"qwen": BackendLoad(2, 2), "gpt": BackendLoad(0, 4)})
    assert total([]) == Load(0, {})
