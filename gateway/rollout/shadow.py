"""Copies of requests for a shadow: made beside the request, read to their end, seen by nobody.

Invariants:
- A caller never waits for its copy and never learns of it: what goes wrong with a copy ends here.
- Copies have bounds of their own, in number and bytes; one beyond them is dropped and counted.
- None outlives the drain: from its beginning none is started, and those that run are cancelled.
- A copy is nobody's use: no lease, no ledger, no cache, and a trace of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from gateway.clock import monotonic
from gateway.errors import GatewayError, InternalError
from gateway.model import ChatRequest, Frozen, Principal, Shadow
from gateway.telemetry import RequestRecord, new_trace

if TYPE_CHECKING:
    from gateway.telemetry import AccessLog, RolloutCounts

_log = logging.getLogger("gateway.rollout")

_CANCELLED: Final = 499
_OK: Final = 200


class ShadowOptions(Frozen, frozen=True):
    """Bounds of the copies of one process: how many run, how many wait, and the bytes of all their requests."""

    concurrent_max: int = 16
    waiting_max: int = 64
    bytes_max: int = 33_554_432


class ShadowJob(Frozen, frozen=True):
    """A request to be copied: as it was asked, before the scenario's prompt and parameters."""

    shadow: Shadow
    principal: Principal
    request: ChatRequest
    headers: Mapping[str, str]
    request_id: str
    generation: int


class ShadowSkipped(Exception):
    """Raised by a call that shall not be made; its text is a word for the metric."""


class ShadowCall(Protocol):
    """Sends a copy and reads its answer to the end."""

    async def __call__(self, job: ShadowJob, record: RequestRecord) -> None:
        """Fill the record. Raises GatewayError, ShadowSkipped."""


class Shadows:
    """The copies of one process."""

    def __init__(self, call: ShadowCall, options: ShadowOptions, counts: RolloutCounts, access_log: AccessLog) -> None:
        self._call = call
        self._options = options
        self._counts = counts
        self._access_log = access_log
        self._waiting: deque[ShadowJob] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._draining = False

    def offer(self, job: ShadowJob) -> None:
        """Copy a request, if it is drawn and there is room. Never raises, never waits."""
        if random.random() * 100 >= job.shadow.percent:  # noqa: S311  # a share of traffic, no secret
            return
        reason = self._why_not(job)
        if reason:
            self._counts.shadow_dropped(job.shadow.scenario.name, reason)
            return
        self._bytes += job.request.body_bytes
        if len(self._running) >= self._options.concurrent_max:
            self._waiting.append(job)
            return
        task = asyncio.get_running_loop().create_task(self._work(job), name="shadow call")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def drain(self) -> None:
        """Start no more and cancel what runs; what waits is dropped."""
        self._draining = True
        for job in self._waiting:
            self._bytes -= job.request.body_bytes
            self._counts.shadow_dropped(job.shadow.scenario.name, "draining")
        self._waiting.clear()
        for task in self._running:
            task.cancel()

    async def close(self) -> None:
        """Drain, and wait until nothing runs."""
        self.drain()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _why_not(self, job: ShadowJob) -> str:
        options = self._options
        if self._draining:
            return "draining"
        if len(self._running) >= options.concurrent_max and len(self._waiting) >= options.waiting_max:
            return "queue_full"
        return "queue_bytes" if self._bytes + job.request.body_bytes > options.bytes_max else ""

    async def _work(self, job: ShadowJob) -> None:
        """Make this call, and then those that wait."""
        await self._make(job)
        while self._waiting:
            await self._make(self._waiting.popleft())

    async def _make(self, job: ShadowJob) -> None:
        scenario = job.shadow.scenario
        record = RequestRecord(
            event="shadow",
            request_id=job.request_id,
            trace=new_trace(),
            tenant=job.principal.tenant.name,
            key=job.principal.key.name,
            scenario=scenario.name,
            request_model=scenario.name,
            variant=scenario.variant,
            generation=job.generation,
            stream=job.request.stream,
            started_at=monotonic(),
            bytes_in=job.request.body_bytes,
            attempts=[],
        )
        try:
            await self._call(job, record)
            record.status = record.status or _OK
        except ShadowSkipped as skipped:
            self._counts.shadow_dropped(scenario.name, str(skipped))
            return
        except GatewayError as error:
            _note(record, error)
        except asyncio.CancelledError:
            record.status, record.outcome, record.error_code = _CANCELLED, "draining", "shutting_down"
            raise
        except Exception as error:  # noqa: BLE001  # a copy that fails must fail nothing else
            _log.exception("a shadow call failed: %s", job.request_id)
            _note(record, InternalError(type(error).__name__))
        finally:
            self._bytes -= job.request.body_bytes
            if record.status:
                self._finish(record)

    def _finish(self, record: RequestRecord) -> None:
        record.finished_at = monotonic()
        record.outcome = record.outcome or ("ok" if record.status < 400 else "refused")
        self._counts.shadow_finished(record)
        self._access_log.write(record)


def _note(record: RequestRecord, error: GatewayError) -> None:
    record.status, record.error_code, record.outcome = error.status, error.code, error.code
    record.detail = error.detail or ""
