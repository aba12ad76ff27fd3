"""Admission: every limit of a call at once, in one round trip, and a defined answer where that fails.

A call that nothing limits is let in without waiting. Any other takes from all its limits or from none, by one script;
where the script is not answered within the lane's deadline, each limit's ``on_redis_loss`` decides.

Invariants:
- An admission that this call will not use, because it was cancelled or its answer is missing, is undone; the call goes
  on under another lease id, if at all.
- Whatever Redis does, a call ends in a lease or in a refusal of the contract, within the lane's deadline.
- Every call that was let in is told of when it ends, to the ledger too, once.
- A refusal stands for a moment: what asks for no less meanwhile is refused by it without asking again, so that a caller
  who does not wait costs Redis nothing. Never for concurrency, since a place may be free at any time.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.clock import monotonic, wall
from gateway.errors import RedisFailure, RedisRefused, RedisUnavailable
from gateway.limits.binding import Bindings, Bound, Gauges, Standing
from gateway.limits.estimates import INPUT_UPPER_MAX, InputConstants, dearest, measure_input, worst_output
from gateway.limits.lease import AdmittedLease, CountedLease, End, Lease, headers_of
from gateway.limits.local import LocalLimits, Need, Shortage
from gateway.limits.settlements import LaneLike, QueueBounds
from gateway.limits.shared import Shared
from gateway.limits.text import DEGRADED, refusal, unavailable
from gateway.limits.wire import AdmitCall, AdmitReply, ScriptOptions, SettleCall, worst_of
from gateway.model import ChatRequest, Frozen, LimitUnit, Plan, Price, Principal, Scenario, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import GatewayError
    from gateway.limits.scripts import LimitScripts

_log = logging.getLogger("gateway.limits")

_FREE = Price(input_nano_usd=0, cached_input_nano_usd=0, output_nano_usd=0)
_BYTES_PER_TOKEN = 4
_FAULTS_MAX = 20
_TOKENS_PER_PRICE = 1_000_000


class Observer(Gauges, Protocol):
    """What the limits count in; see ``gateway.telemetry.Metrics``."""

    def limit_rejected(self, tenant: str, limit: str, *, shadow: bool = False) -> None:
        """A limit refused a call, or in ``shadow`` mode would have."""

    def degraded(self, dependency: str, policy: str) -> None:
        """A call was decided without a dependency."""

    def leases_lost(self, count: int = 1) -> None:
        """The ends of leases were given up."""


class LimitOptions(Frozen, frozen=True):
    """How limits behave; see the settings of the same names. ``workers`` is how many processes this replica has."""

    refusal_memory_s: float = 0.05  # how long a refusal stands at most; 0: not at all
    inputs: InputConstants = InputConstants()
    scripts: ScriptOptions = ScriptOptions()
    queue: QueueBounds = QueueBounds()
    workers: int = 1


class Limiter:
    """Admits the calls of one process. ``lane`` None: there is no Redis, and each limit's ``on_redis_loss`` holds."""

    def __init__(
        self, lane: LaneLike | None, scripts: LimitScripts | None, options: LimitOptions, observer: Observer
    ) -> None:
        self._lane = lane
        self._options = options
        self._observer = observer
        self._bindings = Bindings(observer)
        self.bind: Callable[[Principal, Scenario], Bound | None] = self._bindings.find
        """The limits of a call; None where nothing limits it."""
        self.shared = Shared(lane, scripts, options, observer)
        self._local = LocalLimits(self.shared.seen.seen, self.shared.slots.count)
        self._admissions = self.shared.admissions
        self._prefix = secrets.token_hex(8)
        self._count = 0
        self._told: set[str] = set()

    def unlimited(self, principal: Principal, scenario: Scenario) -> Lease:
        """The lease of a call that nothing limits: only the ledger, where there is one, hears of it."""
        if self._lane is None:
            return Lease()
        kind = self._bindings.free(principal.tenant.name)
        return CountedLease(kind, scenario.name, principal.key.name, self._ended_free)

    async def admit(self, bound: Bound, plan: Plan, request: ChatRequest) -> AdmittedLease:
        """Take from every limit of a call. The plan has at least one attempt.

        Raises RateLimited, BudgetExceeded, LimitsUnavailable.
        """
        lane, admissions = self._lane, self._admissions
        available = lane is not None and lane.available
        if bound.standing is not None and available:
            self._refuse_again(bound, bound.standing, plan, request)
        call = self._call_of(bound, plan, request)
        shared = self.shared
        if admissions is None or not available or (bound.goes_on_alone and bound.tenant in shared.behind):
            return self._without_redis(bound, call)
        if shared.seen.lost:
            shared.restore(bound.tenant)
        try:
            reply = await admissions.ask(bound, call)
        except RedisUnavailable:
            return self._without_redis(bound, call)
        except RedisFailure as failure:
            if isinstance(failure, RedisRefused):
                self._tell_once(failure.text)
            shared.void(call)
            return self._without_redis(bound, self._renamed(call))
        except BaseException:  # the caller left while it waited: nobody will use what may have been taken
            shared.void(call)
            raise
        return self._decided(bound, call, reply)

    async def admit_count(
        self, principal: Principal, scenario: Scenario, plan: Plan, request: ChatRequest
    ) -> tuple[Lease, int]:
        """Let a call in that only asks how large its input is: limits of requests bind it, no others.

        With the tokens that its input is expected to have: by the ratio that was learned of the plan's first backend,
        without Redis by the bytes alone. Raises as ``admit``.
        """
        text_bytes, input_upper = measure_input(request, self._options.inputs)
        expected = min(-(-text_bytes // _BYTES_PER_TOKEN), input_upper)
        bound = self._bindings.find(principal, scenario, "requests")
        if bound is None:
            if self._lane is None or not self._lane.available:
                return self.unlimited(principal, scenario), expected
            bound = Bound(principal, scenario, (), self._observer)
        lease = await self.admit(bound, plan, request)
        return lease, expected if lease.reserved is None else lease.reserved.input_tokens

    def _call_of(self, bound: Bound, plan: Plan, request: ChatRequest) -> AdmitCall:
        attempts, answers = plan.attempts, request.answers
        first = attempts[0]
        alone = len(attempts) == 1
        text_bytes, input_upper = measure_input(request, self._options.inputs)
        if answers > 1:
            text_bytes, input_upper = text_bytes * answers, min(input_upper * answers, INPUT_UPPER_MAX)
        self._count += 1
        return AdmitCall(
            lease_id=f"{self._prefix}{self._count:010x}",
            kind=bound.kind,
            scenario=bound.scenario,
            backend=first.name,
            text_bytes=text_bytes,
            input_upper=input_upper,
            output_cap=request.max_output_tokens,
            worst_output=first.max_output_tokens if alone else worst_output(attempts),
            price=(first.price if alone else dearest(attempts)) or _FREE,
            choices=request.choices * answers,
            answers=answers,
        )

    def _tell_once(self, fault: str) -> None:
        """Log a fault of admissions that no outage explains: each once, since every call may meet it."""
        if fault not in self._told and len(self._told) < _FAULTS_MAX:
            self._told.add(fault)
            _log.error("calls are not admitted by Redis: %s", fault)

    def _lease_id(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count:010x}"

    def _renamed(self, call: AdmitCall) -> AdmitCall:
        return msgspec.structs.replace(call, lease_id=self._lease_id())

    # With Redis

    def _decided(self, bound: Bound, call: AdmitCall, reply: AdmitReply) -> AdmittedLease:
        if reply.shadowed_places:
            self._count_shadowed(bound, reply)
        if reply.refused_place:
            raise self._refused(bound, call, reply)
        lease = AdmittedLease(bound, call, self._ended)
        lease.reply = reply
        lease.admitted_ms = reply.shared.now_ms
        if reply.output_bound >= 0:
            lease.output_limit = reply.output_bound
        if bound.slots:
            self.shared.slots.hold(bound.tenant, call.lease_id, bound.slots)
        return lease

    def _count_shadowed(self, bound: Bound, reply: AdmitReply) -> None:
        for place in reply.shadowed_places:
            self._observer.limit_rejected(bound.tenant, bound.limits[place - 1].limit.name, shadow=True)

    def _refused(self, bound: Bound, call: AdmitCall, reply: AdmitReply) -> GatewayError:
        refused = reply.refused
        if refused is None:  # the id was taken: nothing that this process does, so nothing to rely on
            _log.error("an admission was refused because its lease had been known: %s", call.lease_id)
            return unavailable(bound.limits[0].limit)
        limit, wait_s = refused.limit, reply.retry_after_ms / 1000
        self._observer.limit_rejected(bound.tenant, limit.name)
        headers = headers_of(bound, reply)
        memory_s = self._options.refusal_memory_s
        if memory_s > 0 and limit.unit != "concurrency":
            now = monotonic()
            bound.standing = Standing(call, reply, headers, now + wait_s, min(now + wait_s, now + memory_s))
        return refusal(limit, wait_s, headers)

    def _refuse_again(self, bound: Bound, standing: Standing, plan: Plan, request: ChatRequest) -> None:
        """Refuse by what was refused a moment ago, where this call asks for no less. Raises as ``admit``."""
        now = monotonic()
        refused = standing.reply.refused
        if now >= standing.until or refused is None:
            bound.standing = None
            return
        if refused.limit.unit != "requests" and not standing.covers(self._call_of(bound, plan, request)):
            return
        self._observer.limit_rejected(bound.tenant, refused.limit.name)
        if standing.reply.shadowed_places:
            self._count_shadowed(bound, standing.reply)
        raise refusal(refused.limit, standing.retry_at - now, standing.headers)

    # Without

    def _without_redis(self, bound: Bound, call: AdmitCall) -> AdmittedLease:
        """What each limit's ``on_redis_loss`` makes of the call. Raises as ``admit``."""
        observer = self._observer
        policies = set()
        for each in bound.limits:
            limit = each.limit
            if limit.on_redis_loss == "closed" and limit.mode == "enforce":
                observer.degraded("redis", "closed")
                raise unavailable(limit)
            policies.add(limit.on_redis_loss)
        observer.degraded("redis", "local" if "local" in policies else "open")
        local = [each for each in bound.limits if each.limit.on_redis_loss == "local"]
        need = need_of(call)
        now_s = wall()
        taken = self._local.take(bound.tenant, local, need, self.shared.replicas.count, now_s)
        if isinstance(taken, Shortage):
            limit = local[taken.place].limit
            observer.limit_rejected(bound.tenant, limit.name)
            raise refusal(limit, taken.retry_after_s, DEGRADED)
        lease = AdmittedLease(bound, call, self._ended)
        lease.hold = taken
        lease.admitted_ms = int(now_s * 1000)
        if bound.bounds_output:
            lease.output_limit = worst_of(call)
        lease.taken = Usage(
            input_tokens=need.expected["inputTokens"], output_tokens=need.expected["outputTokens"], estimated=True
        )
        if bound.slots:
            self.shared.slots.hold(bound.tenant, call.lease_id, bound.slots)
        return lease

    # The end of a call

    def _ended_free(self, lease: CountedLease, end: End) -> None:
        """A call without limits is over: it is counted, and there is nothing to give back."""
        self.shared.settle(
            SettleCall(
                lease_id=self._lease_id(),
                admitted_ms=0,
                kind=lease.kind,
                usage=end.usage,
                cost_nano=end.cost_nano_usd,
                key=lease.key,
                scenario=lease.scenario,
                backend=end.backend,
                status=end.status,
                ended_at=wall(),
                cached=end.cached,
                variant=end.variant,
            )
        )

    def _ended(self, lease: AdmittedLease, end: End) -> None:
        call, reply, bound = lease.call, lease.reply, lease.bound
        if lease.hold is not None:
            lease.hold.settle(None if end.keep else _used(end))
        if bound.slots:
            self.shared.slots.release(bound.tenant, call.lease_id, bound.slots)
        bound.standing = None  # what it gives back may be what was missing
        if self._lane is None:
            return
        now_s = wall()
        text_bytes, choices = call.text_bytes, call.choices
        if call.answers != end.answers and not end.keep:  # what is kept was reserved for all that there might be
            text_bytes = text_bytes // call.answers * end.answers
            choices = choices // call.answers * end.answers
        if not end.learns:
            text_bytes = 0
        self.shared.settle(
            SettleCall(
                lease_id=call.lease_id,
                admitted_ms=lease.admitted_ms,
                kind=call.kind,
                usage=end.usage,
                cost_nano=end.cost_nano_usd,
                key=lease.key,
                scenario=call.scenario,
                backend=end.backend,
                status=end.status,
                ended_at=now_s,
                text_bytes=text_bytes,
                choices=choices,
                keep=end.keep and reply is not None,
                cached=end.cached,
                variant=end.variant,
            )
        )


def need_of(call: AdmitCall) -> Need:
    """What a call takes where nothing has been learned: four bytes a token, and of output its cap or a first guess."""
    price = call.price or _FREE
    choices = call.choices
    cap = worst_of(call)
    worst_out = cap * choices
    guess = cap if call.output_cap is not None else min(cap, ScriptOptions().first_output_tokens)
    expected_in = min(-(-call.text_bytes // _BYTES_PER_TOKEN), call.input_upper)
    worst_cost = call.input_upper * price.dearest_input_nano_usd + worst_out * price.output_nano_usd
    return Need(
        expected={
            "requests": 1,
            "tokens": expected_in + guess * choices,
            "inputTokens": expected_in,
            "outputTokens": guess * choices,
        },
        worst={
            "requests": 1,
            "tokens": call.input_upper + worst_out,
            "inputTokens": call.input_upper,
            "outputTokens": worst_out,
            "cost": -(-worst_cost // _TOKENS_PER_PRICE),
        },
    )


def _used(end: End) -> dict[LimitUnit, int]:
    usage = end.usage
    if usage is None:
        return {}
    return {
        "tokens": usage.input_tokens + usage.output_tokens,
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cost": end.cost_nano_usd,
    }
