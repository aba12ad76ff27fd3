"""Showing the numbers: the only module that needs prometheus_client in single-process mode.

A ``View`` is one way to show them: of this process alone (here) or of all workers (``workers``). The formats are those
of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/) and OpenMetrics 1.0.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.utils import floatToGoString

from gateway.clock import wall

if TYPE_CHECKING:
    from gateway.telemetry.load import Load
    from gateway.telemetry.metrics import Metrics, RegistryState
    from gateway.telemetry.series import Histograms, Numbers


class View(Protocol):
    """One way to show the numbers."""

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Body and content type of a scrape."""

    def load(self) -> Load:
        """What is under way."""

    def flush(self) -> None:
        """Publish what has changed to other processes."""

    def publish_registry(self) -> None:
        """Publish the state of the registry to other processes."""

    def close(self) -> None:
        """Publish for the last time."""


def view(metrics: Metrics) -> View:
    """The view that fits: of this process, or of all that share a folder."""
    if metrics.multiprocess_dir is None:
        return ProcessView(metrics)
    from gateway.telemetry.workers import WorkersView

    return WorkersView(metrics, metrics.multiprocess_dir)


class ProcessView:
    """The numbers of this process alone; nothing is ever published."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every family as prometheus_client wants it; safe to call while the numbers change."""
        for numbers in self._metrics.numbers.values():
            yield _number_family(numbers)
        for histograms in self._metrics.histograms.values():
            yield _histogram_family(histograms)
        state = self._metrics.registry_state
        yield from registry_families([state] if state is not None else [])
        yield build_family(self._metrics.version)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Body and content type of a scrape."""
        return encode(self._registry, accept)

    def load(self) -> Load:
        """What is under way in this process."""
        return self._metrics.load()

    def flush(self) -> None:
        """Nothing to do."""

    def publish_registry(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def encode(registry: CollectorRegistry, accept: str | None) -> tuple[bytes, str]:
    """A scrape's body and content type, in the format that ``accept`` prefers."""
    if prefers_openmetrics(accept):
        return generate_openmetrics(registry), CONTENT_TYPE_OPENMETRICS
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def prefers_openmetrics(accept: str | None) -> bool:
    """Whether an ``Accept`` header (RFC 9110, section 12.5.1) likes OpenMetrics 1.0 better than the text format.

    Ours rather than prometheus_client's, which fails on a version that is no number and sends the client's back.
    """
    openmetrics = text = 0.0
    for entry in (accept or "").split(",")[:32]:
        kind, _, rest = entry.partition(";")
        parameters = dict(_parameter(part) for part in rest.split(";"))
        weight = _weight(parameters.get("q", "1"))
        match kind.strip().lower():
            case "application/openmetrics-text" if parameters.get("version", "1.0.0") == "1.0.0":
                openmetrics = max(openmetrics, weight)
            case "text/plain" | "text/*" | "*/*":
                text = max(text, weight)
            case _:
                pass
    return openmetrics > 0.0 and openmetrics >= text


def registry_families(states: Iterable[RegistryState]) -> Iterator[Metric]:
    """What is said of the registry, of several processes the furthest generation and the oldest load."""
    known = list(states)
    generation = GaugeMetricFamily("llm_gateway_registry_generation", "How many times the registry has changed.")
    objects = GaugeMetricFamily(
        "llm_gateway_registry_objects",
        "Objects by kind and state: live, stale (an older version serves), refused.",
        labels=("kind", "state"),
    )
    info = InfoMetricFamily("llm_gateway_registry", "The content that is being served.", labels=("hash",))
    age = GaugeMetricFamily("llm_gateway_registry_age_seconds", "Seconds since the registry in use was loaded.")
    if known:
        generation.add_metric((), max(state.generation for state in known))
        age.add_metric((), max(wall() - min(state.loaded_at for state in known), 0.0))
    for digest in sorted({state.hash for state in known}):
        info.add_metric((digest,), {})
    counts: dict[tuple[str, str], int] = {}
    for state in known:
        for kind, condition, count in state.objects:
            counts[kind, condition] = max(count, counts.get((kind, condition), 0))
    for labels, count in sorted(counts.items()):
        objects.add_metric(labels, count)
    yield from (generation, objects, info, age)


def build_family(version: str) -> Metric:
    """``llm_gateway_build_info``: always 1."""
    labels = {"version": version, "python_version": platform.python_version()}
    return InfoMetricFamily("llm_gateway_build", "What is running.", value=labels)


def _number_family(numbers: Numbers) -> Metric:
    spec = numbers.spec
    family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    metric = family(spec.family, spec.help, labels=spec.labels)
    for labels, cell in list(numbers.children.items()):  # copied in one step: the event loop may add children
        metric.add_metric(labels, cell.value / spec.divisor)
    return metric


def _histogram_family(histograms: Histograms) -> Metric:
    spec = histograms.spec
    metric = HistogramMetricFamily(spec.family, spec.help, labels=spec.labels)
    bounds = [floatToGoString(bound) for bound in (*spec.bounds, float("inf"))]
    for labels, cell in list(histograms.children.items()):
        total = cell.sum
        buckets = []
        below = 0
        for bound, count in zip(bounds, list(cell.counts), strict=True):
            below += count
            buckets.append((bound, float(below)))
        metric.add_metric(labels, buckets, total)
    return metric


def _parameter(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
