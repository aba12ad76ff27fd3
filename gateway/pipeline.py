"""The whole journey of a request, from what the edge read to what the edge will send.

Each step is one call, in the order of the design: authenticate, (read), resolve, choose a variant, render, plan, admit,
(copy for a shadow), cache, call, check the answer, meter.

Invariants:
- What a stream holds, that is the lease, the place at the backend and the upstream connection, lives on one Cleanup. It
  belongs to this function until a Reply is returned and to the Reply from then on; closing it is safe at any moment
  and more than once. A whole answer holds nothing any more when its Reply is made.
- The lease is settled exactly once: by ``settle`` when an answer was had, else by ``give_up``.
- A caller is known before its body is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from copy import copy
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from gateway.answering import Answering
from gateway.auth import TokenAuthenticator, authenticate
from gateway.cleanup import Cleanup
from gateway.clock import wall
from gateway.dialects.ask import impossible
from gateway.errors import GatewayError
from gateway.limits import End, Limiter
from gateway.limits.binding import Bound
from gateway.meter import MeteredStream
from gateway.model import ChatRequest, Credentials, Plan, Principal, Scenario, Shadow, Snapshot
from gateway.registry import resolve, usable_names
from gateway.reply import GONE, Asked, Reply, give_up, settle, verdict_header
from gateway.rollout import Rollouts, ShadowJob
from gateway.routing import Asking, check_doable, make_plan
from gateway.scenarios import render
from gateway.sharing import Sharing
from gateway.telemetry import RequestRecord
from gateway.upstream.counting import InputCounter
from gateway.upstream.outcomes import exhausted


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
    def cache_control(self) -> bytes:
        """What the caller says of answers that were kept; empty where it says nothing."""

    @property
    def routing_headers(self) -> Mapping[str, str]:
        """The headers that conditions of targets may look at."""


class OptionalSteps(NamedTuple):
    """The steps that only some scenarios ask for."""

    rollouts: Rollouts
    sharing: Sharing
    counter: InputCounter


class Counted(NamedTuple):
    """The tokens of an input, the scenario they were counted for, and header fields of the answer."""

    tokens: int
    scenario: str
    headers: tuple[tuple[bytes, bytes], ...]


class Pipeline:
    """The straight line; holds nothing of any request."""

    def __init__(
        self,
        registry: SnapshotSource,
        limiter: Limiter,
        answering: Answering,
        max_attempts: int,
        tokens: TokenAuthenticator,
        steps: OptionalSteps,
    ) -> None:
        self._registry = registry
        self._limiter = limiter
        self._answering = answering
        self._max_attempts = max_attempts
        self._tokens = tokens
        self._sharing = steps.sharing
        self._rollouts = steps.rollouts
        self._counter = steps.counter
        self.finished = steps.rollouts.finished  # what is learned of a canary once a request of its scenario is over

    def answered_by(self, answering: Answering, sharing: Sharing | None = None) -> Pipeline:
        """The same line, whose calls ``answering`` makes, and ``sharing`` those that are shared; None: as here."""
        other = copy(self)
        other._answering = answering  # noqa: SLF001  # one of our own
        other._sharing = sharing or self._sharing  # noqa: SLF001
        return other

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
        if scenario.shadow is not None and plan.attempts and asked.operation == "chat":
            copy = replace(asked, output_limit=request.output_limit)
            self._rollouts.shadows.offer(_job(scenario.shadow, principal, copy, incoming, record))
        admitted = Asked(principal.tenant.name, scenario, request, plan, lease, record)
        if scenario.cache is not None and plan.attempts:  # without any no limit was asked, and nobody is answered
            shared = await self._sharing.reply(admitted, incoming.cache_control)
            if shared is not None:
                return shared
        cleanup = Cleanup()
        try:
            answer = await self._answering.call(admitted, admitted.request, cleanup)
            if answer.stream is None or answer.source is None:
                settle(admitted, answer)  # it is all there: nothing is left to wait for
                reply = Reply(answer, scenario.name, answer.backend.name, None, cleanup)
                reply.lines = lease.header_lines()
            else:
                cleanup.push(settle, admitted, answer)
                watch = self._answering.watch(admitted, cleanup)
                stream = MeteredStream(answer.source, answer.stream, answer.first, record, watch)
                cleanup.push(stream.stop_waiting)
                reply = Reply(answer, scenario.name, answer.backend.name, stream, cleanup)
                reply.headers = lease.headers()
            reply.cache, reply.dialect = record.cache, answer.dialect
            if answer.verdict:
                reply.headers += verdict_header(answer.verdict)
            return reply
        except BaseException as error:  # also when cancelled: what was taken is given back here, else by the Reply
            cleanup.close()
            give_up(admitted, error)
            raise

    async def count_input(
        self,
        credentials: Credentials,
        incoming: Incoming,
        read: Callable[[bytes], ChatRequest],
        record: RequestRecord,
    ) -> Counted:
        """How many tokens the input of a call has. It is a request that uses nothing. Raises GatewayError."""
        principal = await self.identify(credentials, record)
        asked = read(await incoming.body())
        scenario, request, _, plan = self._decide(principal, asked, incoming, record)
        record.rollout = ""  # it says nothing of a canary
        if not plan.attempts:
            raise exhausted(plan, [])
        lease, expected = await self._limiter.admit_count(principal, scenario, plan, request)
        status = GONE
        try:
            counted = await self._counter.count(plan.attempts[0], request)
            status = 200
            return Counted(expected if counted is None else counted, scenario.name, lease.headers())
        except GatewayError as error:
            error.headers = lease.headers()
            status = error.status
            raise
        finally:
            lease.settle(End(status=status, variant=scenario.variant))

    def _decide(
        self, principal: Principal, asked: ChatRequest, incoming: Incoming, record: RequestRecord
    ) -> tuple[Scenario, ChatRequest, Bound | None, Plan]:
        """Resolve, choose a variant, render, plan: what needs nobody else's answer. Raises GatewayError."""
        scenario = resolve(principal, asked.model)
        record.scenario = record.request_model = scenario.name
        if scenario.canary is not None:
            scenario = self._rollouts.choose(scenario, principal, asked, record)
        request = render(scenario, asked)
        if scenario.lenient or request.native is not None:
            request = _adapted(scenario, request)
        limits = self._limiter.bind(principal, scenario)
        asking = None
        if scenario.conditional:
            asking = Asking(principal=principal, request=request, headers=incoming.routing_headers)
        priced_only = limits is not None and limits.needs_price
        draw = random.random()  # noqa: S311  # a share of traffic, no secret
        plan = make_plan(
            scenario, draw, self._max_attempts, priced_only=priced_only, asking=asking, operation=request.operation
        )
        if not plan.attempts and request.operation != "chat":
            check_doable(plan, request)
        return scenario, request, limits, plan


def _noted(principal: Principal, snapshot: Snapshot, record: RequestRecord) -> Principal:
    record.generation = snapshot.generation
    record.tenant = principal.tenant.name
    record.key = principal.key.name
    return principal


def _adapted(scenario: Scenario, request: ChatRequest) -> ChatRequest:
    """The request as backends of other dialects may need it.

    Answers that are kept, or judged, are told as chat; and so are requests of a scenario that has rules for fields or
    overrides them: its rules are of the fields of a chat request, and nothing may pass beside them.
    """
    rules = scenario.parameters
    is_ruled = rules.allow is not None or bool(rules.deny) or bool(rules.overrides)
    native = request.native
    if native is not None and (is_ruled or scenario.cache is not None or scenario.answer is not None):
        native = replace(native, dialect="chat")
        if not scenario.lenient and native.beyond:  # no backend will be asked for it: a kept answer must not be given
            raise impossible(native.beyond[0])
    return replace(request, lenient=scenario.lenient, native=native)


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
