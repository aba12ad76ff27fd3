"""The whole journey of a request, from what the edge read to what the edge will send.

Each step is one call, in the order of the design: authenticate, (read), resolve, choose a variant, render, plan, admit,
(copy for a shadow), call, check the answer, meter.

Invariants:
- What a stream holds, that is the lease, the place at the backend and the upstream connection, lives on one Cleanup. It
  belongs to this function until a Reply is returned and to the Reply from then on; closing it is safe at any moment
  and more than once. A whole answer holds nothing any more when its Reply is made.
- The lease is settled exactly once: by ``_settle`` when an answer was had, else by ``_give_up``.
- A caller is known before its body is read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from gateway.auth import TokenAuthenticator, authenticate
from gateway.cleanup import Cleanup
from gateway.clock import wall
from gateway.errors import GatewayError
from gateway.limits import End, Lease, Limiter
from gateway.limits.binding import Bound
from gateway.meter import MeteredStream, charge, estimate_usage
from gateway.model import AnswerRule, ChatRequest, Credentials, Plan, Principal, Scenario, Shadow, Snapshot
from gateway.registry import resolve, usable_names
from gateway.rollout import Rollouts, ShadowJob
from gateway.routing import Asking, make_plan
from gateway.scenarios import AnswerChecks, StreamWatch, render
from gateway.telemetry import RequestRecord
from gateway.upstream.call import Answer, Caller

_GONE = 499  # in the ledger: the client left
_FAULT = 500  # in the ledger: the gateway itself failed


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

    @property
    def routing_headers(self) -> Mapping[str, str]:
        """The headers that conditions of targets may look at."""


class Reply:
    """What to send: a whole ``body``, or a ``stream`` to be read to its end. ``close`` it when done."""

    __slots__ = ("_cleanup", "backend", "body", "content_type", "headers", "lines", "scenario", "status", "stream")

    def __init__(self, answer: Answer, scenario: Scenario, stream: MeteredStream | None, cleanup: Cleanup) -> None:
        self.status = answer.status
        self.content_type = answer.content_type
        self.body = answer.body
        self.stream = stream
        self.scenario = scenario.name
        self.backend = answer.backend.name
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.lines = b""  # further headers of a whole answer, as header lines
        self._cleanup = cleanup

    def close(self) -> None:
        """Settle the lease and let go of the backend."""
        self._cleanup.close()


class OptionalSteps(NamedTuple):
    """The steps that only some scenarios ask for."""

    answers: AnswerChecks
    rollouts: Rollouts


class Pipeline:
    """The straight line; holds nothing of any request."""

    def __init__(
        self,
        registry: SnapshotSource,
        limiter: Limiter,
        caller: Caller,
        max_attempts: int,
        tokens: TokenAuthenticator,
        steps: OptionalSteps,
    ) -> None:
        self._registry = registry
        self._limiter = limiter
        self._caller = caller
        self._max_attempts = max_attempts
        self._tokens = tokens
        self._answers = steps.answers
        self._rollouts = steps.rollouts
        self.finished = steps.rollouts.finished  # what is learned of a canary once a request of its scenario is over

    async def identify(self, credentials: Credentials, record: RequestRecord) -> Principal:
        """Who calls; waits only for the keys of a token's issuer. Raises AuthenticationFailed."""
        return self._by_key(credentials, record) or await self._by_token(credentials, record)

    def _by_key(self, credentials: Credentials, record: RequestRecord) -> Principal | None:
        """The caller with this API key; None where it is a token that was presented."""
        snapshot = self._registry.snapshot
        if self._tokens.token_in(snapshot, credentials) is not None:
            return None
        return _noted(authenticate(snapshot, credentials, wall()), snapshot, record)

    async def _by_token(self, credentials: Credentials, record: RequestRecord) -> Principal:
        snapshot = self._registry.snapshot
        token = credentials.presented[0]
        return _noted(await self._tokens.authenticate(snapshot, credentials, token, wall()), snapshot, record)

    async def models(self, credentials: Credentials, record: RequestRecord) -> dict[str, Scenario]:
        """Every name and alias that this caller may use, sorted. Raises AuthenticationFailed."""
        return usable_names(await self.identify(credentials, record))

    async def chat(
        self,
        credentials: Credentials,
        incoming: Incoming,
        read: Callable[[bytes], ChatRequest],
        record: RequestRecord,
    ) -> Reply:
        """Answer one chat completion. Raises GatewayError, also as ``read`` does, which makes a request of a body."""
        principal = self._by_key(credentials, record) or await self._by_token(credentials, record)
        body = incoming.body_now()  # most are here with their head, and then there is nothing to wait for
        asked = read(await incoming.body() if body is None else body)
        record.stream = asked.stream
        scenario, request, limits, plan = self._decide(principal, asked, incoming, record)
        if limits is None or not plan.attempts:
            lease = self._limiter.unlimited(principal, scenario)
        else:
            lease = await self._limiter.admit(limits, plan, request)
            request = lease.applied_to(request)
        if scenario.shadow is not None:
            copy = replace(asked, output_limit=request.output_limit)
            self._rollouts.shadows.offer(_job(scenario.shadow, principal, copy, incoming, record))
        cleanup = Cleanup()
        try:
            answer = await self._caller.call(plan, request, record, cleanup)
            if scenario.answer is not None and answer.facts is not None:
                cleanup.push(_charge_known, lease, request, answer, record)
                again = partial(self._caller.call, plan, request, record, cleanup)
                answer = await self._checked(scenario.answer, answer, record, again)
            if answer.stream is None or answer.source is None:
                _settle(lease, request, answer, record)  # it is all there: nothing is left to wait for
                reply = Reply(answer, scenario, None, cleanup)
                reply.lines = lease.header_lines()
            else:
                cleanup.push(_settle, lease, request, answer, record)
                reply = Reply(answer, scenario, self._metered(scenario, answer, record, cleanup), cleanup)
                reply.headers = lease.headers()
            if answer.verdict:
                reply.headers += ((b"x-llm-gateway-answer", answer.verdict.encode()),)
            return reply
        except BaseException as error:  # also when cancelled: what was taken is given back here, else by the Reply
            cleanup.close()
            _give_up(lease, plan, record, error)
            raise

    def _decide(
        self, principal: Principal, asked: ChatRequest, incoming: Incoming, record: RequestRecord
    ) -> tuple[Scenario, ChatRequest, Bound | None, Plan]:
        """Resolve, choose a variant, render, plan: what needs nobody else's answer. Raises GatewayError."""
        scenario = resolve(principal, asked.model)
        record.scenario = record.request_model = scenario.name
        if scenario.canary is not None:
            scenario = self._rollouts.choose(scenario, principal, asked, record)
        request = render(scenario, asked)
        limits = self._limiter.bind(principal, scenario)
        asking = None
        if scenario.conditional:
            asking = Asking(principal=principal, request=request, headers=incoming.routing_headers)
        priced_only = limits is not None and limits.needs_price
        draw = random.random()  # noqa: S311  # a share of traffic, no secret
        plan = make_plan(scenario, draw, self._max_attempts, priced_only=priced_only, asking=asking)
        return scenario, request, limits, plan

    def _metered(self, scenario: Scenario, answer: Answer, record: RequestRecord, cleanup: Cleanup) -> MeteredStream:
        """The stream to be read; what it holds is left on ``cleanup``."""
        assert answer.source is not None
        assert answer.stream is not None
        feed = None
        if scenario.answer is not None:
            watch = self._answers.watch(scenario.name, scenario.answer)
            feed = watch.feed
            cleanup.push(_end_watch, watch, record)
        stream = MeteredStream(answer.source, answer.stream, answer.first, record, feed)
        cleanup.push(stream.stop_waiting)
        return stream

    async def _checked(
        self, rule: AnswerRule, answer: Answer, record: RequestRecord, again: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """The answer with its verdict; a second one where the first does not conform and the scenario wants that."""
        verdict = self._answers.judge(rule, answer.body or b"")
        retried = rule.retry and verdict == "invalid"
        if retried:
            try:
                second = await again()
            except GatewayError as error:  # an answer that does not conform is better than none
                record.detail = error.detail or ""
                second = answer
            if second.facts is not None and second is not answer:
                second.before, answer = answer, second
                verdict = self._answers.judge(rule, answer.body or b"")
            record.backend, record.provider = answer.backend.name, answer.backend.provider
            record.response_model = answer.backend.model or ""
        self._answers.count(record.scenario, verdict, retried=retried)
        answer.verdict = verdict
        return answer


def _end_watch(watch: StreamWatch, record: RequestRecord) -> None:
    watch.close(complete=record.stream_end_reason == "complete")


def _noted(principal: Principal, snapshot: Snapshot, record: RequestRecord) -> Principal:
    record.generation = snapshot.generation
    record.tenant = principal.tenant.name
    record.key = principal.key.name
    return principal


def _job(
    shadow: Shadow, principal: Principal, asked: ChatRequest, incoming: Incoming, record: RequestRecord
) -> ShadowJob:
    return ShadowJob(
        shadow=shadow,
        principal=principal,
        request=asked,
        headers=incoming.routing_headers,
        request_id=record.request_id,
        generation=record.generation,
    )


def _settle(lease: Lease, request: ChatRequest, answer: Answer, record: RequestRecord) -> None:
    """Charge what was used: as reported, else as estimated from what was answered; a refused request used nothing."""
    backend = answer.backend
    if answer.stream is not None:
        stream = answer.stream
        usage = stream.usage or lease.bounded(estimate_usage(request, stream.output_bytes, stream.events))
    elif answer.facts is not None:
        usage = answer.facts.usage or lease.bounded(estimate_usage(request, answer.facts.output_bytes))
    else:
        lease.settle(End(backend=backend.name, status=answer.status))
        return
    cost = charge(usage, backend.price)
    before, answers = answer.before, 1
    if before is not None and before.facts is not None:
        thrown_away = before.facts.usage or lease.bounded(estimate_usage(request, before.facts.output_bytes))
        usage, cost, answers = usage + thrown_away, cost + charge(thrown_away, before.backend.price), 2
    status = _GONE if record.stream_end_reason == "client_gone" else record.status or answer.status
    if lease.settle(End(usage=usage, cost_nano_usd=cost, backend=backend.name, status=status, answers=answers)):
        record.usage = usage
        record.cost_nano_usd = cost


def _charge_known(lease: Lease, request: ChatRequest, answer: Answer, record: RequestRecord) -> None:
    """Charge an answer whose successor never came, where no reservation is charged for both."""
    if lease.reserved is None:
        _settle(lease, request, answer, record)


def _give_up(lease: Lease, plan: Plan, record: RequestRecord, error: BaseException) -> None:
    """End the lease of a call without an answer: nothing was used, unless a backend was left alone with its work.

    That is a plain call whose client left meanwhile: what the backend made of it nobody knows, so its reservation is
    charged.
    """
    if isinstance(error, GatewayError):
        error.headers = lease.headers()
        lease.settle(End(backend=record.backend, status=error.status))
        return
    status = _GONE if isinstance(error, asyncio.CancelledError) else _FAULT
    usage = lease.reserved
    was_working = bool(record.attempts) and record.attempts[-1][1] == "cancelled" and not record.left_queue
    if usage is None or record.stream or not was_working or status != _GONE:
        lease.settle(End(backend=record.backend, status=status))
        return
    price = next((backend.price for backend in plan.attempts if backend.name == record.backend), None)
    cost = charge(usage, price)
    if lease.settle(End(usage=usage, cost_nano_usd=cost, backend=record.backend, status=_GONE, keep=True)):
        record.usage = usage
        record.cost_nano_usd = cost
