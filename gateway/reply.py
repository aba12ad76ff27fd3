"""What a call ends in: the reply that the edge sends, and the end of its lease.

Invariant: a lease is settled exactly once, by ``settle`` when an answer was had, by ``settle_unused`` when it was
somebody else's, else by ``give_up``; whoever comes later changes nothing.
"""

from __future__ import annotations

import asyncio

from gateway.cache import Head
from gateway.cleanup import Cleanup
from gateway.dialects.openai.operations import SHAPES
from gateway.errors import GatewayError
from gateway.limits import End, Lease
from gateway.meter import MeteredStream, charge, estimate_input, estimate_usage, with_input_of
from gateway.model import ChatRequest, Dialect, Plan, Scenario, Usage
from gateway.telemetry import RequestRecord
from gateway.upstream.call import Answer

GONE = 499  # in the ledger: the client left
_FAULT = 500  # in the ledger: the gateway itself failed


class Reply:
    """What to send: a whole ``body``, or a ``stream`` to be read to its end. ``close`` it when done.

    ``cache`` says what the cache did, ``""`` where the scenario has none; ``age_s`` is that of a kept answer.
    """

    __slots__ = (
        "_cleanup",
        "age_s",
        "backend",
        "body",
        "cache",
        "content_type",
        "dialect",
        "headers",
        "lines",
        "scenario",
        "status",
        "stream",
    )

    def __init__(
        self, answer: Answer | Head, scenario: str, backend: str, stream: MeteredStream | None, cleanup: Cleanup
    ) -> None:
        self.status = answer.status
        self.dialect: Dialect = "chat"  # in which body and stream are told
        self.content_type = answer.content_type
        self.body = answer.body
        self.stream = stream
        self.scenario = scenario
        self.backend = backend
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.lines = b""  # further headers of a whole answer, as header lines
        self.cache = ""
        self.age_s: float | None = None
        self._cleanup = cleanup

    def close(self) -> None:
        """Settle the lease and let go of the backend."""
        self._cleanup.close()


class Asked:
    """A call that was admitted. ``is_led``: it is shared and made on this account; its lease is that call's affair."""

    __slots__ = ("is_led", "lease", "plan", "record", "request", "scenario", "tenant")

    def __init__(
        self, tenant: str, scenario: Scenario, request: ChatRequest, plan: Plan, lease: Lease, record: RequestRecord
    ) -> None:
        self.tenant = tenant
        self.scenario = scenario
        self.request = request
        self.plan = plan
        self.lease = lease
        self.record = record
        self.is_led = False


def verdict_header(verdict: str) -> tuple[tuple[bytes, bytes], ...]:
    """The header that says whether an answer is as its scenario promises."""
    return ((b"x-llm-gateway-answer", verdict.encode()),)


def settle(asked: Asked, answer: Answer, status: int | None = None) -> None:
    """Charge what was used: as reported, else as estimated from what was answered; a refused request used nothing.

    ``status`` is the call's for the ledger, where that is not the record's.
    """
    lease, request, record, backend = asked.lease, asked.request, asked.record, answer.backend
    variant = asked.scenario.variant
    learns = request.operation == "chat"
    if answer.stream is not None:
        stream = answer.stream
        usage = stream.usage or _estimated(asked, stream.output_bytes, stream.events, stream.begun_usage)
    else:
        usage = None if answer.facts is None else answer.facts.usage or _estimated(asked, answer.facts.output_bytes)
    if usage is None:
        lease.settle(End(backend=backend.name, status=status or _status(record, answer.status), variant=variant))
        return
    cost = charge(usage, backend.price)
    before, answers = answer.before, 1
    if before is not None and before.facts is not None:
        thrown_away = before.facts.usage or lease.bounded(estimate_usage(request, before.facts.output_bytes))
        usage, cost, answers = usage + thrown_away, cost + charge(thrown_away, before.backend.price), 2
    status = status or _status(record, answer.status)
    end = End(
        usage=usage,
        cost_nano_usd=cost,
        backend=backend.name,
        status=status,
        answers=answers,
        variant=variant,
        learns=learns,
    )
    if lease.settle(end):
        record.usage = usage
        record.cost_nano_usd = cost


def _estimated(asked: Asked, output_bytes: int, events: int = 0, begun: Usage | None = None) -> Usage | None:
    """What an answer without usage used; None of an operation whose tokens cannot be told from what was sent."""
    request = asked.request
    if request.operation == "chat":
        return with_input_of(begun, asked.lease.bounded(estimate_usage(request, output_bytes, events)))
    shape = SHAPES[request.operation]
    return asked.lease.bounded(estimate_input(request.fields[shape.needs])) if shape.counts_input else None


def settle_unused(asked: Asked, answered: int = 200) -> None:
    """The answer, of that status, was kept or came of another's call: the request counts, no tokens."""
    asked.lease.settle(End(status=_status(asked.record, answered), cached=True, variant=asked.scenario.variant))


def _status(record: RequestRecord, answered: int) -> int:
    return GONE if record.stream_end_reason == "client_gone" else record.status or answered


def give_up(asked: Asked, error: BaseException) -> None:
    """End the lease of a call without an answer: nothing was used, unless a backend was left alone with its work.

    That is a plain call whose client left meanwhile: what the backend made of it nobody knows, so its reservation is
    charged.
    """
    lease, record, variant = asked.lease, asked.record, asked.scenario.variant
    if isinstance(error, GatewayError):
        error.headers = lease.headers()
        lease.settle(End(backend=record.backend, status=error.status, variant=variant))
        return
    status = GONE if isinstance(error, asyncio.CancelledError) else _FAULT
    usage = lease.reserved
    was_working = bool(record.attempts) and record.attempts[-1][1] == "cancelled" and not record.left_queue
    if usage is None or record.stream or not was_working or status != GONE:
        lease.settle(End(backend=record.backend, status=status, variant=variant))
        return
    price = next((backend.price for backend in asked.plan.attempts if backend.name == record.backend), None)
    cost = charge(usage, price)
    end = End(usage=usage, cost_nano_usd=cost, backend=record.backend, status=GONE, keep=True, variant=variant)
    if lease.settle(end):
        record.usage = usage
        record.cost_nano_usd = cost
