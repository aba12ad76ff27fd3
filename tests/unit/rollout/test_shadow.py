"""Copies for a shadow: bounded, apart, and gone with the drain."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from gateway.errors import UpstreamFailed
from gateway.model import Usage
from gateway.rollout import ShadowJob, ShadowOptions, Shadows, ShadowSkipped
from gateway.telemetry import AccessLog, Metrics, RequestRecord, RolloutCounts
from tests.unit.rollout.values import principal, request, shadow


class Calls:
    """Makes calls that end when they are told to; remembers their records."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self, job: ShadowJob, record: RequestRecord) -> None:
        """See ShadowCall."""
        self.records.append(record)
        record.backend = "new"
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        record.status, record.usage, record.cost_nano_usd = 200, Usage(input_tokens=3, output_tokens=4), 50


class Lines:
    """A log that keeps the records."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def write(self, record: RequestRecord) -> None:
        """Keep it."""
        self.records.append(record)


class Bench:
    """Shadows with everything around them."""

    def __init__(self, **options: int) -> None:
        self.calls, self.lines, self.metrics = Calls(), Lines(), Metrics(version="0")
        bounds = ShadowOptions(**({"concurrent_max": 2, "waiting_max": 3, "bytes_max": 10_000} | options))
        self.shadows = Shadows(self.calls, bounds, RolloutCounts(self.metrics), cast("AccessLog", self.lines))

    def offer(self, count: int = 1, percent: float = 100.0, **fields: Any) -> None:
        """Copy so many requests."""
        for _ in range(count):
            self.shadows.offer(
                ShadowJob(
                    shadow=shadow(percent),
                    principal=principal(),
                    request=request(**fields),
                    headers={},
                    request_id="req_1",
                    generation=7,
                )
            )

    async def turn(self) -> None:
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)

    def value(self, name: str, *labels: str) -> float:
        """A counter of the scenario ``chat``."""
        numbers = {spec.name: found for spec, found in self.metrics.numbers.items()}[name]
        return numbers.child("chat", *labels).value


def test_copies_beyond_the_bounds_are_dropped_and_counted() -> None:
    """Two run, three wait, the rest is dropped; what waited is sent as others end."""

    async def run() -> None:
        bench = Bench()
        bench.offer(8)
        await bench.turn()
        assert len(bench.calls.records) == 2
        assert bench.value("llm_gateway_shadow_dropped_total", "queue_full") == 3
        bench.calls.gate.set()
        await bench.turn()
        assert len(bench.lines.records) == 5
        assert bench.value("llm_gateway_shadow_calls_total", "new", "200") == 5
        assert bench.value("llm_gateway_shadow_tokens_total", "output") == 20
        assert bench.value("llm_gateway_shadow_cost_usd_total") == 250
        bench.offer(2)
        await bench.turn()
        assert len(bench.lines.records) == 7

    asyncio.run(run())


def test_the_bytes_of_all_copies_are_bounded() -> None:
    """Large requests do not pile up, and what has ended makes room again."""

    async def run() -> None:
        bench = Bench()
        bench.offer(3, body_bytes=4000)
        await bench.turn()
        assert bench.value("llm_gateway_shadow_dropped_total", "queue_bytes") == 1
        bench.calls.gate.set()
        await bench.turn()
        bench.offer(2, body_bytes=4000)
        await bench.turn()
        assert len(bench.lines.records) == 4

    asyncio.run(run())


def test_a_copy_has_a_trace_of_its_own_and_a_line_of_its_own_kind() -> None:
    """The request's id joins the two lines; the caller's trace is not continued."""

    async def run() -> None:
        bench = Bench()
        bench.calls.gate.set()
        bench.offer(2)
        await bench.turn()
        first, second = bench.lines.records
        assert (first.event, first.request_id, first.variant, first.tenant, first.generation) == (
            "shadow",
            "req_1",
            "shadow",
            "acme",
            7,
        )
        assert first.trace.trace_id != second.trace.trace_id
        assert first.outcome == "ok"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [(UpstreamFailed("x", detail="status 500"), 502, "upstream_failed"), (ZeroDivisionError(), 500, "internal_error")],
)
def test_what_goes_wrong_ends_with_the_copy(failure: Exception, status: int, code: str) -> None:
    """It is counted and logged, and the next copy is made."""

    async def run() -> None:
        bench = Bench()
        bench.calls.gate.set()
        bench.calls.failure = failure
        bench.offer()
        await bench.turn()
        (line,) = bench.lines.records
        assert (line.status, line.error_code) == (status, code)
        bench.calls.failure = None
        bench.offer()
        await bench.turn()
        assert bench.lines.records[-1].status == 200

    asyncio.run(run())


def test_a_copy_for_which_there_is_no_room_is_no_call() -> None:
    """It is counted as dropped and has no line."""

    async def run() -> None:
        bench = Bench()
        bench.calls.gate.set()
        bench.calls.failure = ShadowSkipped("backend_busy")
        bench.offer()
        await bench.turn()
        assert bench.lines.records == []
        assert bench.value("llm_gateway_shadow_dropped_total", "backend_busy") == 1

    asyncio.run(run())


def test_a_drain_cancels_what_runs_and_drops_what_waits() -> None:
    """No copy keeps a process from its end, and none is begun after."""

    async def run() -> None:
        bench = Bench()
        bench.offer(4)
        await bench.turn()
        await bench.shadows.close()
        assert [(line.status, line.outcome) for line in bench.lines.records] == [(499, "draining")] * 2
        bench.offer()
        assert bench.value("llm_gateway_shadow_dropped_total", "draining") == 3
        assert len(bench.calls.records) == 2

    asyncio.run(run())


def test_the_percent_is_a_share_of_requests() -> None:
    """None at 0, about a fifth at 20, and not one after the other."""

    async def run() -> None:
        bench = Bench(concurrent_max=10_000, bytes_max=10**9)
        bench.offer(500, percent=0.0)
        bench.offer(2000, percent=20.0)
        await bench.turn()
        assert 300 < len(bench.calls.records) < 500
        await bench.shadows.close()

    asyncio.run(run())


def test_no_place_at_all_sends_nothing() -> None:
    """The setting 0 turns shadows off."""

    async def run() -> None:
        bench = Bench(concurrent_max=0, waiting_max=0)
        bench.offer(3)
        assert bench.value("llm_gateway_shadow_dropped_total", "queue_full") == 3

    asyncio.run(run())
