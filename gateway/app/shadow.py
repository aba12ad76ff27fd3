"""How a shadow's copy of a request is sent: the straight line of a request without its limits, cache and caller."""

from __future__ import annotations

import random

from msgspec.structs import replace

from gateway.cleanup import Cleanup
from gateway.meter import MeteredStream, charge
from gateway.model import Plan
from gateway.rollout import ShadowJob, ShadowSkipped
from gateway.routing import Asking, make_plan
from gateway.scenarios import render
from gateway.telemetry import RequestRecord
from gateway.upstream.call import Answer, Caller


class ShadowLine:
    """Sends copies. A backend that bounds its calls gets one only while less than half of its places are taken.

    No copy waits in a backend's queue.
    """

    def __init__(self, caller: Caller, max_attempts: int) -> None:
        self._caller = caller
        self._max_attempts = max_attempts

    async def __call__(self, job: ShadowJob, record: RequestRecord) -> None:
        """Send a copy and read its answer to the end. Raises GatewayError, ShadowSkipped."""
        scenario = job.shadow.scenario
        request = render(scenario, job.request)
        asking = Asking(principal=job.principal, request=request, headers=job.headers) if scenario.conditional else None
        draw = random.random()  # noqa: S311  # a share of traffic, no secret
        plan = self._with_room(make_plan(scenario, draw, self._max_attempts, asking=asking))
        cleanup = Cleanup()
        try:
            answer = await self._caller.call(plan, request, record, cleanup)
            await _read(answer, record)
        finally:
            cleanup.close()

    def _with_room(self, plan: Plan) -> Plan:
        attempts = tuple(backend for backend in plan.attempts if self._caller.has_room_beside(backend))
        if plan.attempts and not attempts:
            raise ShadowSkipped("backend_busy")
        return replace(plan, attempts=attempts, may_wait=False)


async def _read(answer: Answer, record: RequestRecord) -> None:
    record.status = answer.status
    usage = None if answer.facts is None else answer.facts.usage
    if answer.stream is not None and answer.source is not None:
        stream = MeteredStream(answer.source, answer.stream, answer.first, record)
        while (piece := stream.take()) != b"":
            if piece is None:
                await stream.arrival()
        usage = answer.stream.usage
    if usage is not None:
        record.usage, record.cost_nano_usd = usage, charge(usage, answer.backend.price)
