"""The whole journey of a request, from what the edge read to what the edge will send.

Each step is one call, in the order of the design: authenticate, (read), resolve, render, plan, admit, call, meter.

Invariants:
- What a stream holds, that is the lease, the place at the backend and the upstream connection, lives on one Cleanup. It
  belongs to this function until a Reply is returned and to the Reply from then on; closing it is safe at any moment
  and more than once. A whole answer holds nothing any more when its Reply is made.
- The lease is settled exactly once: by ``_settle`` when an answer was had, else with nothing.
- A caller is known before its body is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from gateway.auth import authenticate
from gateway.cleanup import Cleanup
from gateway.clock import wall
from gateway.limits import Lease, admit
from gateway.meter import MeteredStream, charge, estimate_usage
from gateway.model import ChatRequest, Credentials, Principal, Scenario, Snapshot
from gateway.registry import resolve, usable_names
from gateway.routing import make_plan
from gateway.scenarios import render
from gateway.telemetry import RequestRecord
from gateway.upstream.call import Answer, Caller


class SnapshotSource(Protocol):
    """Where the registry's present state is read, once per request."""

    @property
    def snapshot(self) -> Snapshot:
        """The objects that serve now."""


class Incoming(Protocol):
    """The body of a request, which may still be on its way."""

    def body_now(self) -> bytes | None:
        """The body where all of it is here, else None. Raises GatewayError."""

    async def body(self) -> bytes:
        """The body, waited for. Raises GatewayError."""


class Reply:
    """What to send: a whole ``body``, or a ``stream`` to be read to its end. ``close`` it when done."""

    __slots__ = ("_cleanup", "backend", "body", "content_type", "scenario", "status", "stream")

    def __init__(self, answer: Answer, scenario: Scenario, stream: MeteredStream | None, cleanup: Cleanup) -> None:
        self.status = answer.status
        self.content_type = answer.content_type
        self.body = answer.body
        self.stream = stream
        self.scenario = scenario.name
        self.backend = answer.backend.name
        self._cleanup = cleanup

    def close(self) -> None:
        """Settle the lease and let go of the backend."""
        self._cleanup.close()


class Pipeline:
    """The straight line; holds nothing of any request."""

    def __init__(self, registry: SnapshotSource, caller: Caller, max_attempts: int) -> None:
        self._registry = registry
        self._caller = caller
        self._max_attempts = max_attempts

    def identify(self, credentials: Credentials, record: RequestRecord) -> Principal:
        """Who calls. Raises AuthenticationFailed."""
        principal = authenticate(self._registry.snapshot, credentials, wall())
        record.tenant = principal.tenant.name
        record.key = principal.key.name
        return principal

    def models(self, credentials: Credentials, record: RequestRecord) -> dict[str, Scenario]:
        """Every name and alias that this caller may use, sorted. Raises AuthenticationFailed."""
        return usable_names(self.identify(credentials, record))

    async def chat(
        self,
        credentials: Credentials,
        incoming: Incoming,
        read: Callable[[bytes], ChatRequest],
        record: RequestRecord,
    ) -> Reply:
        """Answer one chat completion. Raises GatewayError, also as ``read`` does, which makes a request of a body."""
        principal = self.identify(credentials, record)
        body = incoming.body_now()  # most are here with their head, and then there is nothing to wait for
        request = read(await incoming.body() if body is None else body)
        record.stream = request.stream
        scenario = resolve(principal, request.model)
        record.scenario = record.request_model = scenario.name
        request = render(scenario, request)
        plan = make_plan(scenario, random.random(), self._max_attempts)  # noqa: S311  # a share of traffic, no secret
        cleanup = Cleanup()
        lease = admit()
        try:
            answer = await self._caller.call(plan, request, record, cleanup)
            if answer.stream is None or answer.source is None:
                _settle(lease, request, answer, record)  # it is all there: nothing is left to wait for
                return Reply(answer, scenario, None, cleanup)
            cleanup.push(_settle, lease, request, answer, record)
            stream = MeteredStream(answer.source, answer.stream, answer.first, record)
            cleanup.push(stream.stop_waiting)
            return Reply(answer, scenario, stream, cleanup)
        except BaseException:  # also when cancelled: what was taken is given back here, else by the Reply
            cleanup.close()
            lease.settle(None)
            raise


def _settle(lease: Lease, request: ChatRequest, answer: Answer, record: RequestRecord) -> None:
    """Charge what was used: as reported, else as estimated from what was answered; a refused request used nothing."""
    if answer.stream is not None:
        usage = answer.stream.usage or estimate_usage(request, answer.stream.output_bytes, answer.stream.events)
    elif answer.facts is not None:
        usage = answer.facts.usage or estimate_usage(request, answer.facts.output_bytes)
    else:
        lease.settle(None)
        return
    if lease.settle(usage):
        record.usage = usage
        record.cost_nano_usd = charge(usage, answer.backend.price)
