"""The numbers of several workers as one scrape, in the file format of prometheus_client's multiprocess mode.

Each worker writes its counters, histograms and in-flight gauges to memory-mapped files of its own in a folder that all
share, and what it knows of the registry to a small JSON file there; whoever is scraped merges them all. The folder is
given, never found in the environment: prometheus_client's own metrics, which want PROMETHEUS_MULTIPROC_DIR before the
first import, are not used. ``folder`` says what the process that starts the workers has to do.

Invariant: a value written never gets smaller because a worker ended or a pid came back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.utils import floatToGoString

from gateway.clock import monotonic
from gateway.telemetry.exposition import build_family, encode, registry_families
from gateway.telemetry.folder import registry_file, registry_files
from gateway.telemetry.load import LOAD, Load, load_of
from gateway.telemetry.metrics import RegistryState
from gateway.telemetry.series import Cell, HistogramCell, Labels

if TYPE_CHECKING:
    from gateway.telemetry.families import Spec
    from gateway.telemetry.metrics import Metrics

AnyCell = TypeVar("AnyCell")

_PROCESS_PERIOD_S = 15.0  # how often a worker looks at its own CPU, memory and files, which takes longer than the rest
_FILES = {
    "counter": "counter",
    "histogram": "histogram",
    "gauge": "gauge_livesum",
    "gauge_max": "gauge_livemax",
    "gauge_min": "gauge_livemin",
}


class WorkersView:
    """The numbers of all workers; publishes those of this one."""

    def __init__(self, metrics: Metrics, folder: Path) -> None:
        self._metrics = metrics
        self._folder = folder
        self._pid = os.getpid()
        self._files: dict[str, MmapedDict] = {}
        self._numbers: dict[str, list[_NumberMirror]] = {}
        self._histograms: dict[str, list[_HistogramMirror]] = {}
        self._process = ProcessCollector(registry=None)
        self._process_bases: dict[str, float] = {}
        self._process_due_at = 0.0
        self._lock = Lock()  # a scrape in a thread flushes too
        self._closed = False
        self._registry = CollectorRegistry()
        self._registry.register(self)
        PlatformCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every family, merged over all files in the folder."""
        yield from MultiProcessCollector(None, str(self._folder)).collect()
        yield from registry_families(self._registry_states())
        yield build_family(self._metrics.version)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Body and content type of a scrape, with this worker's numbers of now."""
        self.flush()
        return encode(self._registry, accept)

    def load(self) -> Load:
        """What is under way in all workers."""
        self.flush()
        gauges = {spec.name for spec in LOAD}
        return load_of(
            (sample.name, sample.labels.get("backend", ""), round(sample.value))
            for metric in MultiProcessCollector(None, str(self._folder)).collect()
            if metric.name in gauges
            for sample in metric.samples
        )

    def flush(self) -> None:
        """Write what has changed. Raises OSError where the folder cannot be written."""
        with self._lock:
            if not self._closed:
                self._write_all()

    def publish_registry(self) -> None:
        """Write what this worker knows of the registry, in one step. Raises OSError."""
        path = registry_file(self._folder, self._pid)
        fresh = path.with_suffix(".json.new")
        fresh.write_bytes(msgspec.json.encode(self._metrics.registry_state))
        fresh.replace(path)

    def close(self) -> None:
        """Write what has changed and close the files; later flushes do nothing. Raises OSError."""
        with self._lock:
            if self._closed:
                return
            self._write_all()
            self._closed = True
            for file in self._files.values():
                file.close()

    def _write_all(self) -> None:
        for numbers in self._metrics.numbers.values():
            file = self._file(_kind_of_file(numbers.spec))
            mirrors = self._numbers.setdefault(numbers.spec.name, [])
            for labels, cell in _news(numbers.children, len(mirrors)):
                mirrors.append(_NumberMirror(file, numbers.spec, labels, cell))
            for number in mirrors:
                if number.cell.value != number.last:
                    number.write()
        for histograms in self._metrics.histograms.values():
            file = self._file("histogram")
            histogram_mirrors = self._histograms.setdefault(histograms.spec.name, [])
            for labels, observed in _news(histograms.children, len(histogram_mirrors)):
                histogram_mirrors.append(_HistogramMirror(file, histograms.spec, labels, observed))
            for histogram in histogram_mirrors:
                if histogram.cell.counts != histogram.last:
                    histogram.write()
        if monotonic() >= self._process_due_at:
            self._process_due_at = monotonic() + _PROCESS_PERIOD_S
            self._write_process()

    def _write_process(self) -> None:
        """CPU time adds up over all workers that ever were, memory and files over those that live."""
        for metric in self._process.collect():
            for sample in metric.samples:
                if sample.name not in _PROCESS_SUMS:
                    continue
                file = self._file(metric.type)
                key = mmap_key(metric.name, sample.name, [], [], metric.documentation)
                before = file.read_value(key)[0] if metric.type == "counter" else 0.0
                base = self._process_bases.setdefault(key, before)
                file.write_value(key, base + sample.value, 0.0)

    def _file(self, kind: str) -> MmapedDict:
        name = f"{_FILES[kind]}_{self._pid}.db"
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _open(self._folder / name)
        return file

    def _registry_states(self) -> Iterator[RegistryState]:
        for path in registry_files(self._folder):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=RegistryState)
            except FileNotFoundError:
                continue  # its worker has just been forgotten


_PROCESS_SUMS = frozenset(
    {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
    }
)
"""What may be added up over workers."""


class _NumberMirror:
    """One counter or gauge in a file. A counter goes on from what an earlier process of the same pid left."""

    __slots__ = ("_base", "_divisor", "_file", "_key", "cell", "last")

    def __init__(self, file: MmapedDict, spec: Spec, labels: Labels, cell: Cell) -> None:
        self._file = file
        self._key = mmap_key(spec.family, spec.name, list(spec.labels), list(labels), spec.help)
        self._divisor = spec.divisor
        before = file.read_value(self._key)[0]
        self._base = before if spec.kind == "counter" else 0.0
        self.cell = cell
        self.last: int | None = None

    def write(self) -> None:
        """Write the cell's number."""
        self.last = value = self.cell.value
        self._file.write_value(self._key, self._base + value / self._divisor, 0.0)


class _HistogramMirror:
    """One histogram in a file: its sum, and each bucket's own count; the reader adds them up."""

    __slots__ = ("_bases", "_file", "_keys", "_sum_base", "_sum_key", "cell", "last")

    def __init__(self, file: MmapedDict, spec: Spec, labels: Labels, cell: HistogramCell) -> None:
        self._file = file
        names = [*spec.labels, "le"]
        self._sum_key = mmap_key(spec.family, f"{spec.family}_sum", list(spec.labels), list(labels), spec.help)
        self._keys = [
            mmap_key(spec.family, f"{spec.family}_bucket", names, [*labels, floatToGoString(bound)], spec.help)
            for bound in (*spec.bounds, float("inf"))
        ]
        self._sum_base = file.read_value(self._sum_key)[0]
        self._bases = [file.read_value(key)[0] for key in self._keys]
        self.cell = cell
        self.last = [0] * len(self._keys)

    def write(self) -> None:
        """Write the sum and the buckets that have changed."""
        counts = list(self.cell.counts)
        self._file.write_value(self._sum_key, self._sum_base + self.cell.sum, 0.0)
        for index, count in enumerate(counts):
            if count != self.last[index]:
                self._file.write_value(self._keys[index], self._bases[index] + count, 0.0)
        self.last = counts


def _kind_of_file(spec: Spec) -> str:
    return spec.kind if spec.merge == "sum" else f"{spec.kind}_{spec.merge}"


def _news(children: dict[Labels, AnyCell], known: int) -> list[tuple[Labels, AnyCell]]:
    """The children after the first ``known``: none ever goes, so that their order stays."""
    return list(children.items())[known:] if len(children) > known else []


def _open(path: Path) -> MmapedDict:
    """The file of one process and kind; a new one appears under its name only when it can be read."""
    if path.exists():
        return MmapedDict(str(path))
    fresh = path.with_suffix(".db.new")
    file = MmapedDict(str(fresh))
    fresh.replace(path)
    return file
