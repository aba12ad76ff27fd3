"""The numbers of one process: counted on the event loop for next to nothing, shown at a scrape.

A request costs one lookup of the series that requests like it fill, and plain additions. prometheus_client is needed to
show the numbers, not to count them: it is imported at the first ``render()``, or at the first ``flush()`` of one of
several workers.

Labels are safe by construction: tenant, scenario, variant, backend and models are names from the registry, the rest are
words of fixed sets held to a bound all the same; tenants beyond ``max_tenants`` become ``other`` (first come, first
served, per process). See ``families`` for the bound on label sets.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from gateway.clock import wall
from gateway.model import Snapshot, Usage
from gateway.telemetry import families
from gateway.telemetry.load import LOAD, Load, load_of
from gateway.telemetry.parts import count_dropped, count_parts, gen_ai
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.series import Cell, HistogramCell, Histograms, Numbers, Words
from gateway.telemetry.states import States

if TYPE_CHECKING:
    from gateway.telemetry.exposition import View

_MAX_CACHED_SERIES = 10_000
_MAX_ERROR_CODES = 64
_MAX_REASONS = 32
_AWAITED_OUTCOMES = ("ok", "unauthorized", "rate_limited")  # what alerts count must be there before it happens
_GOOD_OUTCOMES = frozenset({"ok", "refused"})
_UNKNOWN_ERROR = "_OTHER"  # the well-known value of error.type in the OpenTelemetry conventions


class RegistryState(msgspec.Struct, frozen=True, kw_only=True):
    """What a scrape says of the registry that is being served."""

    generation: int
    hash: str
    loaded_at: float  # Unix seconds
    objects: tuple[tuple[str, str, int], ...]  # kind, state, how many


class _RequestSeries:
    """What every request with the same labels adds to; the parts that need usage or a first token come with it."""

    __slots__ = ("duration", "requests", "stream", "usage")

    def __init__(self, requests: Cell, duration: HistogramCell | None) -> None:
        self.requests = requests
        self.duration = duration
        self.usage: _UsageSeries | None = None
        self.stream: _StreamSeries | None = None


class _UsageSeries:
    __slots__ = ("cached_tokens", "cost", "input_tokens", "input_usage", "output_tokens", "output_usage")

    def __init__(self, counters: tuple[Cell, Cell, Cell, Cell], usage: tuple[HistogramCell, HistogramCell]) -> None:
        self.input_tokens, self.cached_tokens, self.output_tokens, self.cost = counters
        self.input_usage, self.output_usage = usage


class _StreamSeries:
    __slots__ = ("first_token", "per_token", "scenario_first_token")

    def __init__(self, scenario: HistogramCell, first_token: HistogramCell, per_token: HistogramCell) -> None:
        self.scenario_first_token = scenario
        self.first_token = first_token
        self.per_token = per_token


class Metrics:
    """Every metric of one process. Not for several event loops; ``render`` alone may run in another thread.

    ``version`` is the gateway's. With ``multiprocess_dir`` this process is one of several that share that folder (see
    ``workers``): build the object after the fork, call ``flush()`` about twice a second and ``close()`` at the end;
    ``render()`` then answers for all of them.
    """

    def __init__(self, *, version: str, max_tenants: int = 1000, multiprocess_dir: Path | None = None) -> None:
        self.version = version
        self.multiprocess_dir = multiprocess_dir
        self.registry_state: RegistryState | None = None
        self._view: View | None = None
        self._view_lock = Lock()
        self._tenants = Words(max_tenants)
        self._error_codes = Words(_MAX_ERROR_CODES, _UNKNOWN_ERROR)
        self._reasons = Words(_MAX_REASONS)
        self._outcomes = Words(_MAX_REASONS)
        self._series: dict[tuple[str | int, ...], _RequestSeries] = {}
        self.numbers = {spec: Numbers(spec) for spec in families.ACCUMULATED if spec.kind != "histogram"}
        self.histograms = {spec: Histograms(spec) for spec in families.ACCUMULATED if spec.kind == "histogram"}
        self._inflight = self.numbers[families.INFLIGHT].child()
        self._overhead = self.histograms[families.OVERHEAD].child()
        self._attempts = self.numbers[families.ATTEMPTS]
        self._backend_inflight = self.numbers[families.BACKEND_INFLIGHT]
        self._stream_ends = self.numbers[families.STREAM_ENDS]
        self._log_lines_dropped = self.numbers[families.LOG_LINES_DROPPED].child()
        self._redis_seconds = self.histograms[families.REDIS_SECONDS].child()
        self._fallbacks = self.numbers[families.FALLBACKS]
        self.states = States(self.numbers, max_tenants)
        self._registry_seen = self.numbers[families.REGISTRY_SEEN].child()

    # The request's way

    def request_started(self) -> None:
        """A request's head has been read; ``request_finished`` follows exactly once."""
        self._inflight.value += 1

    def request_finished(self, record: RequestRecord) -> None:
        """Count a finished request: everything but its attempts, which ``attempt`` counted as they ended."""
        self._inflight.value -= 1
        key = (
            record.tenant,
            record.scenario,
            record.backend,
            record.status,
            record.error_code,
            record.variant,
            record.response_model,
            record.provider,
            record.request_model,
            record.operation,
        )
        series = self._series.get(key)
        if series is None:
            series = self._new_series(key, record)
        series.requests.value += 1
        duration_s = record.finished_at - record.started_at
        overhead_s = duration_s - record.upstream_wait_s - record.client_wait_s - record.queue_wait_s
        self._overhead.observe(overhead_s if overhead_s > 0.0 else 0.0)
        if series.duration is not None:
            series.duration.observe(duration_s if duration_s > 0.0 else 0.0)
        if record.usage is not None:
            self._count_usage(series, record, record.usage)
        if record.stream:
            self._count_stream(series, record)
        if record.dropped_fields:
            count_dropped(self.numbers[families.DROPPED_FIELDS], record)
        if len(record.attempts) > 1 and any(outcome not in _GOOD_OUTCOMES for _, outcome, _, _ in record.attempts[:-1]):
            self._fallbacks.child(record.scenario).value += 1

    def attempt(self, backend: str, outcome: str) -> None:
        """An attempt at a backend has ended; ``outcome`` is one of ``errors.Outcome``."""
        self._attempts.child(backend, self._outcomes.within(outcome)).value += 1
        self.states.backends.note(backend, outcome)

    def backend_inflight(self, backend: str) -> Cell:
        """The gauge of attempts at a backend, to be raised as one begins and lowered as it ends."""
        return self._backend_inflight.child(backend)

    def backend_queued(self, backend: str) -> Cell:
        """The gauge of requests that wait for a backend."""
        return self.numbers[families.BACKEND_QUEUED].child(backend)

    def backend_queue_wait(self, backend: str) -> HistogramCell:
        """Where to say how long requests waited for a backend, in seconds."""
        return self.histograms[families.QUEUE_WAIT].child(backend)

    def backend_endpoints(self, backend: str, ready: int) -> None:
        """So many endpoints of a backend's Service are ready."""
        self.numbers[families.BACKEND_ENDPOINTS].child(backend).value = ready

    def charged_late(self, record: RequestRecord) -> None:
        """A call was charged whose request had been counted before: its caller had left, others had not."""
        if record.usage is not None:
            self._count_usage(_RequestSeries(Cell(), None), record, record.usage)

    # Rare events

    def connection_refused(self, code: str) -> None:
        """The server refused a connection, or what was no request yet; ``code`` is a GatewayError's."""
        self.numbers[families.CONNECTION_REFUSALS].child(self._error_codes.within(code)).value += 1

    def registry_loaded(self, snapshot: Snapshot, problems: int = 0) -> None:
        """This snapshot is being served; ``problems`` > 0 counts as a failed load, since something was refused."""
        self.registry_state = RegistryState(
            generation=snapshot.generation,
            hash=snapshot.hash,
            loaded_at=snapshot.loaded_at,
            objects=tuple((kind, state, count) for (kind, state), count in snapshot.object_counts.items()),
        )
        self.numbers[families.WORKERS].child().value = 1
        for backend in snapshot.backends:
            for outcome in _AWAITED_OUTCOMES:
                self._attempts.child(backend, self._outcomes.within(outcome))
        if problems:
            self.registry_reload_failed()
        if self.multiprocess_dir is not None:
            self._shown().publish_registry()

    def registry_reload_failed(self) -> None:
        """A load gave no snapshot at all; the one before keeps serving."""
        self.numbers[families.RELOAD_FAILURES].child().value += 1

    def registry_schema_lacks(self, fields: int) -> None:
        """The definitions in the cluster were compared with this version's: so many fields are missing."""
        self.numbers[families.REGISTRY_SCHEMA].child().value = fields

    def registry_seen(self, at: float | None = None) -> None:
        """The source was read without a fault, or has told that it is as it was: now, or at that Unix second."""
        self._registry_seen.value = int(wall() if at is None else at)

    def log_lines_dropped(self, count: int = 1) -> None:
        """Log lines were given up."""
        self._log_lines_dropped.value += count

    # Scenarios

    def answer_checked(self, scenario: str, result: str) -> None:
        """The answer of a call was held against the scenario's schema; ``result`` is one of a fixed set."""
        self.numbers[families.ANSWER_CHECKS].child(scenario, result).value += 1

    # Limits

    def limit_rejected(self, tenant: str, limit: str, *, shadow: bool = False) -> None:
        """A limit refused a call, or in ``shadow`` mode would have."""
        family = families.SHADOW_REJECTIONS if shadow else families.LIMIT_REJECTIONS
        self.numbers[family].child(self._tenants.within(tenant), limit).value += 1

    def limit_utilization(self, tenant: str, limit: str, kind: str) -> Cell:
        """Where to say how much of a limit is taken, in parts of ``families.LIMIT_UTILIZATION.divisor``."""
        return self.numbers[families.LIMIT_UTILIZATION].child(self._tenants.within(tenant), limit, kind)

    def degraded(self, dependency: str, policy: str) -> None:
        """A call was decided without a dependency."""
        self.numbers[families.DEGRADED].child(dependency, policy).value += 1

    def leases_lost(self, count: int = 1) -> None:
        """The ends of leases were given up."""
        self.numbers[families.LEASES_LOST].child().value += count

    def usage_export_lag(self, events: int) -> None:
        """So many usage events have yet to be exported; said by one process of the fleet, 0 by all others."""
        self.numbers[families.USAGE_EXPORT_LAG].child().value = events

    def usage_lost(self, events: int) -> None:
        """So many more usage events were trimmed before they were exported."""
        self.numbers[families.USAGE_LOST].child().value += events

    # Redis

    def redis_answered(self, seconds: float) -> None:
        """Redis answered what was written so long ago."""
        self._redis_seconds.observe(seconds)

    def redis_failed(self, reason: str, count: int) -> None:
        """So many commands to Redis failed."""
        self.numbers[families.REDIS_FAILURES].child(reason).value += count

    def redis_unavailable(self, servers: int) -> None:
        """So many Redis servers are not used now."""
        self.numbers[families.REDIS_UNAVAILABLE].child().value = servers

    def redis_noticed(self, notice: str) -> None:
        """Redis was seen to be something that endangers limits."""
        self.numbers[families.REDIS_NOTICES].child(notice).value += 1

    # Showing

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """Body and content type of a scrape, in the format that the ``Accept`` header prefers.

        OpenMetrics 1.0 where it is asked for, else the Prometheus text format 0.0.4. Takes some 7 us per series: call
        it in a thread. With several workers the numbers of the others are as old as their last flush.
        """
        return self._shown().render(accept)

    def load(self) -> Load:
        """What is under way in this process now."""
        return load_of(
            (spec.name, labels[0] if labels else "", cell.value)
            for spec in LOAD
            for labels, cell in self.numbers[spec].children.items()
        )

    def replica_load(self) -> Load:
        """What is under way in all workers, those of the others as of their last flush. Reads files: use a thread."""
        return self.load() if self.multiprocess_dir is None else self._shown().load()

    def flush(self) -> None:
        """Publish what has changed to the other workers; nothing to do in single-process mode."""
        if self.multiprocess_dir is not None:
            self._shown().flush()

    def close(self) -> None:
        """Publish for the last time; the object may still be rendered, in single-process mode."""
        if self.multiprocess_dir is not None:
            self._shown().close()

    def _shown(self) -> View:
        with self._view_lock:  # a scrape may come from a thread while the event loop flushes
            if self._view is None:
                # Imported when needed: prometheus_client costs 70 ms and 2.5 MB, and a start should not wait for it.
                from gateway.telemetry.exposition import view

                self._view = view(self)
            return self._view

    # Counting

    def _count_usage(self, series: _RequestSeries, record: RequestRecord, usage: Usage) -> None:
        cells = series.usage
        if cells is None:
            cells = series.usage = self._new_usage(record)
        cells.input_tokens.value += usage.input_tokens
        cells.output_tokens.value += usage.output_tokens
        cells.cost.value += record.cost_nano_usd
        if usage.cached_input_tokens:
            cells.cached_tokens.value += usage.cached_input_tokens
        if usage.cached_input_tokens or usage.cache_written_input_tokens or usage.reasoning_tokens:
            tenant = self._tenants.within(record.tenant)
            count_parts(self.histograms[families.TOKEN_USAGE], self.numbers[families.TOKENS], tenant, record)
        cells.input_usage.observe(usage.input_tokens)
        cells.output_usage.observe(usage.output_tokens)

    def _count_stream(self, series: _RequestSeries, record: RequestRecord) -> None:
        if record.stream_end_reason is not None:
            reason = self._reasons.within(record.stream_end_reason)
            self._stream_ends.child(record.scenario, record.backend, reason).value += 1
        if record.first_token_at is None:
            return
        cells = series.stream
        if cells is None:
            cells = series.stream = self._new_stream(record)
        wait_s = max(record.first_token_at - record.started_at, 0.0)
        cells.scenario_first_token.observe(wait_s)
        if record.error_code or record.status >= 400:
            return
        cells.first_token.observe(wait_s)
        tokens_after = record.usage.output_tokens - 1 if record.usage is not None else 0
        if tokens_after > 0 and record.last_token_at is not None:
            cells.per_token.observe(max(record.last_token_at - record.first_token_at, 0.0) / tokens_after)

    # New label sets

    def _new_series(self, key: tuple[str | int, ...], record: RequestRecord) -> _RequestSeries:
        if len(self._series) >= _MAX_CACHED_SERIES:
            self._series.clear()  # only the way to the children; they keep their counts
        tenant = self._tenants.within(record.tenant)
        requests = self.numbers[families.REQUESTS].child(
            tenant, record.scenario, record.variant, record.backend, str(record.status)
        )
        duration = None
        if record.provider:
            error = self._error_codes.within(record.error_code)
            duration = self.histograms[families.REQUEST_DURATION].child(*gen_ai(record), error)
        series = self._series[key] = _RequestSeries(requests, duration)
        return series

    def _new_usage(self, record: RequestRecord) -> _UsageSeries:
        tenant = self._tenants.within(record.tenant)
        tokens = self.numbers[families.TOKENS]
        usage = self.histograms[families.TOKEN_USAGE]
        counters = (
            tokens.child(tenant, record.scenario, "input"),
            tokens.child(tenant, record.scenario, "cached_input"),
            tokens.child(tenant, record.scenario, "output"),
            self.numbers[families.COST].child(tenant, record.scenario),
        )
        labels = gen_ai(record)
        return _UsageSeries(counters, (usage.child(*labels, "input"), usage.child(*labels, "output")))

    def _new_stream(self, record: RequestRecord) -> _StreamSeries:
        labels = gen_ai(record)
        return _StreamSeries(
            self.histograms[families.SCENARIO_FIRST_TOKEN].child(record.scenario),
            self.histograms[families.TIME_TO_FIRST_TOKEN].child(*labels),
            self.histograms[families.TIME_PER_OUTPUT_TOKEN].child(*labels),
        )
