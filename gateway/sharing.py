"""Calls of scenarios with a cache: answered by what was kept, by another's call in flight, or by one that others share.

A call that is made here runs in a task of its own and belongs to none of those who wait for it: the one that began it
may leave like any other. Invariants:
- A call is given up when nobody waits for it any more, here or in another process, and then at once.
- Who began it is charged for it, whoever reads the answer; all others are charged the request and no tokens.
- Nobody gets a byte of another tenant's answer, nor a byte twice or out of order. Whoever has been sent nothing when a
  shared call is lost tries again; whoever has been sent something gets an error as the last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from gateway.answering import Answering
from gateway.cache import Cache, Flight, Follower, Head, Kept, Lost, Refusal, Shared, Way, pack, writing_of
from gateway.cleanup import Cleanup
from gateway.clock import monotonic, wall
from gateway.dialects.contract import EventStream
from gateway.dialects.openai.replay import EVENT_STREAM, JSON, NotPlain, check_plain, events_of, whole_of
from gateway.dialects.openai.stream import ChatStream
from gateway.errors import TIMEOUT_OUTCOMES, AttemptFailed, GatewayError, UpstreamFailed, UpstreamTimeout
from gateway.meter import MeteredStream
from gateway.model import Plan
from gateway.reply import GONE, Asked, Reply, give_up, settle, settle_unused, verdict_header
from gateway.routing import BY_CONDITION
from gateway.telemetry import Metrics
from gateway.upstream.call import Answer
from gateway.upstream.embeddings import Embedder

ROUNDS_MAX: Final = 4
"""How often a call waits for another's that is lost before it is made alone."""

_LEAST_WAIT_S: Final = 1.0
_IN_THREAD_FROM: Final = 65_536  # bytes: what takes longer to read and to pack must not keep other requests waiting


class Sharing:
    """See the module."""

    def __init__(
        self, cache: Cache, answering: Answering, embedder: Embedder, metrics: Metrics, max_event_bytes: int
    ) -> None:
        self._cache = cache
        self._embedder = embedder
        self._answering = answering
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes

    async def reply(self, asked: Asked, cache_control: bytes) -> Reply | None:
        """The answer to a call; None where it is to be made as if there was no cache. Raises GatewayError."""
        record = asked.record
        try:
            way = self._way(asked, cache_control)
            reply = None
            if way is not None and self._cache.has_room:
                reply = self._held(asked, way) or await self._shared(asked, way)
            if reply is None:
                record.cache = "bypass"
            return reply
        except BaseException as error:  # also when cancelled: what was admitted is given back here
            if not asked.is_led:
                give_up(asked, error)
            elif isinstance(error, GatewayError):
                error.headers = asked.lease.headers()
            raise
        finally:
            if record.cache:
                self._cache.counts.request(asked.scenario.name, record.cache)

    def _way(self, asked: Asked, cache_control: bytes) -> Way | None:
        """See Ways.of; what was written just so a moment ago costs no digest."""
        tenant, scenario, request = asked.tenant, asked.scenario, asked.request
        route = _route(asked.plan) if scenario.conditional else ()
        writing = writing_of(tenant, scenario, request, cache_control, route)
        way = self._cache.local.way(writing, scenario.cache)
        return way or self._cache.ways.of(tenant, scenario, request, cache_control, route, writing)

    def _held(self, asked: Asked, way: Way) -> Reply | None:
        """An answer that was found a moment ago."""
        kept = self._cache.local.find(way) if way.reads else None
        if kept is None:
            return None
        try:
            return self._reply(asked, way, None, _kept_head(asked, kept))
        except Lost:  # it cannot be told: as if it was not there
            self._cache.local.forget(way)
            return None

    async def _shared(self, asked: Asked, way: Way) -> Reply | None:
        until = monotonic() + _patience_s(asked)
        for _ in range(ROUNDS_MAX):
            flight = self._cache.flight(way) if way.reads else None
            is_new = flight is None
            if flight is None:
                flight = self._cache.open(way)
            follower = flight.join()
            try:
                asked.record.cache = await self._find(asked, way, flight) if is_new else "coalesced"
                head = await self._begun(asked, follower, until)
                return self._reply(asked, way, follower, head)
            except Lost:
                follower.leave()
            except BaseException:
                follower.leave()
                raise
        return None

    async def _begun(self, asked: Asked, follower: Follower, until: float) -> Head:
        """How the answer begins. Raises Lost, GatewayError."""
        if asked.is_led:
            return await follower.begun(None)  # the call has its own timeouts
        started_at = monotonic()
        try:
            return await follower.begun(max(until - started_at, 0.0))
        except TimeoutError:
            raise UpstreamTimeout(
                "The model backend did not answer in time.", detail="waited for the same call of another request"
            ) from None
        finally:
            asked.record.upstream_wait_s += monotonic() - started_at

    async def _find(self, asked: Asked, way: Way, flight: Flight) -> str:
        """Look for the answer, else have the call made or followed; what came of it, for header and metric."""
        cache = self._cache
        try:
            found, leader_id = await cache.look(way)
        except BaseException:
            flight.lose("the call that was shared was given up")
            cache.forget(way, flight)
            raise
        if found is not None and found.kept is not None:
            flight.begin(_kept_head(asked, found.kept))
            cache.forget(way, flight)
            return "hit"
        if found is not None and found.leader is not None:
            if cache.follow(way, flight, found.leader, asked.plan):
                return "coalesced"
            leader_id = b""  # it is made here all the same, and told to nobody
        shared = cache.lead(way, flight, found, leader_id)
        asked.is_led = True
        task = cache.start(self._make(asked, shared))
        flight.on_empty = lambda: self._abandon(shared, task)
        if not way.reads:
            return "refresh"
        return "miss" if found is not None or cache.store is None else "unavailable"

    def _abandon(self, shared: Shared, task: asyncio.Task[None]) -> None:
        """The last one here has left: give the call up, unless other processes wait for it."""
        shared.flight.on_empty = None
        if shared.is_said:
            return  # clients leave with the last event: the answer is complete, and kept in a moment
        if shared.is_told:
            _ = self._cache.start(self._watch(shared, task))
        else:
            self._cache.forget(shared.way, shared.flight)
            task.cancel()

    async def _watch(self, shared: Shared, task: asyncio.Task[None]) -> None:
        """As long as anybody waits for a call whose own callers have left; then give it up."""
        while await _is_wanted(shared):  # noqa: ASYNC110  # what is asked is in Redis
            await asyncio.sleep(self._cache.options.lease_s / 3)
        self._cache.forget(shared.way, shared.flight)
        task.cancel()

    # What callers get

    def _reply(self, asked: Asked, way: Way, follower: Follower | None, head: Head) -> Reply:
        """``follower`` None: an answer that is all here. Raises Lost for a kept answer that cannot be told."""
        record, cleanup = asked.record, Cleanup()
        stream: MeteredStream | None = None
        if head.age_s is not None:
            record.cache = "hit" if head.similarity is None else "similar"
            head = _told_again(asked, way, head)
        if head.body is None and follower is not None:
            cleanup.push(follower.leave)
            if not asked.is_led:
                cleanup.push(settle_unused, asked)
            chat = ChatStream(drop_usage=not asked.request.include_usage, max_event_bytes=self._max_event_bytes)
            stream = MeteredStream(follower, chat, b"", record)
            cleanup.push(stream.stop_waiting)
        else:
            if follower is not None:
                follower.leave()
            if not asked.is_led:
                settle_unused(asked, head.status)
        reply = Reply(head, asked.scenario.name, record.backend if asked.is_led else "", stream, cleanup)
        if stream is None:
            reply.lines = asked.lease.header_lines()
        else:
            reply.headers = asked.lease.headers()
        if head.verdict:
            reply.headers += verdict_header(head.verdict)
        reply.cache = "miss" if record.cache == "unavailable" else record.cache
        reply.age_s = head.age_s
        return reply

    # The call that is made

    async def _make(self, asked: Asked, shared: Shared) -> None:
        """Make the call and say what comes of it; whoever began it is charged."""
        cleanup = Cleanup()
        try:
            await self._answer(asked, shared, cleanup)
        except GatewayError as error:
            give_up(asked, error)
            refusal = Refusal.of(error)
            if refusal is None:
                shared.lose()
            else:
                shared.refuse(refusal)
        except BaseException as error:  # also when cancelled: nobody waits for it any more
            self._end(asked, cleanup.close)  # which charges a first answer whose successor never came
            self._end(asked, partial(give_up, asked, error))
            shared.lose()
            raise
        finally:
            self._cache.forget(shared.way, shared.flight)
            cleanup.close()

    def _end(self, asked: Asked, end: Callable[[], None]) -> None:
        """End the lease by ``end``; where who began the call has left, its request was counted without the usage."""
        was_settled, record = asked.lease.is_settled, asked.record
        end()
        if not was_settled and record.finished_at and record.usage is not None:
            self._metrics.charged_late(record)

    async def _answer(self, asked: Asked, shared: Shared, cleanup: Cleanup) -> None:
        vector = await self._vector(shared.way)
        if vector is not None and await self._told_similar(asked, shared, vector):
            return
        request = asked.request
        if request.stream:  # each caller's stream leaves the usage out where that caller did not ask for it
            request = msgspec.structs.replace(request, include_usage=True)
        answer = await self._answering.call(asked, request, cleanup)
        head = Head(status=answer.status, content_type=answer.content_type, body=answer.body, verdict=answer.verdict)
        if answer.stream is None or answer.source is None:
            self._end(asked, partial(settle, asked, answer))
            if answer.status == 200:
                await self._keep(asked, shared, answer.body or b"", vector)
            shared.begin(head)
            return
        failure: AttemptFailed | None = None
        status = GONE
        try:
            shared.begin(head)
            watch = self._answering.watch(asked, cleanup, partial(_is_complete, answer.stream, shared))
            await _pass_on(answer, answer.stream, shared, watch)
            status = UpstreamFailed.status if answer.stream.failed else answer.status
        except AttemptFailed as broken:
            ended = answer.stream.done or answer.stream.failed  # all was said; only the connection was not ended well
            failure = None if ended else broken
            is_late = broken.outcome in TIMEOUT_OUTCOMES
            status = answer.status if ended else UpstreamTimeout.status if is_late else UpstreamFailed.status
        finally:
            self._end(asked, partial(settle, asked, answer, status))
        if failure is not None:
            shared.break_off(failure)
            return
        said = shared.flight.said()
        if said is not None and not answer.stream.failed:
            await self._keep(asked, shared, said, vector)
        shared.finish()

    async def _vector(self, way: Way) -> list[float] | None:
        """The vector of a question that may be answered as a similar one; None where there is none in time."""
        question = way.question
        if question is None:
            return None
        try:
            return await self._embedder.embed(question.policy.backend, question.text, question.policy.timeout_s)
        except AttemptFailed:
            self._cache.counts.request(way.scenario, "no_embedding")
            return None

    async def _told_similar(self, asked: Asked, shared: Shared, vector: list[float]) -> bool:
        """Whether a kept answer to a similar question was given."""
        head = await self._cache.similar(shared.way, vector) if shared.way.reads else None
        if head is None:
            return False
        settle_unused(asked)
        if asked.scenario.answer is not None:
            head = msgspec.structs.replace(head, verdict="valid")  # no other is kept
        shared.begin(head)
        return True

    async def _keep(self, asked: Asked, shared: Shared, content: bytes, vector: list[float] | None) -> None:
        """Keep a complete, plain answer, before anybody is told of its end: whoever asks from then on finds it."""
        if len(content) < _IN_THREAD_FROM:
            packed = self._packed(asked, shared.way, content)
        else:
            packed = await asyncio.to_thread(self._packed, asked, shared.way, content)
        if packed is not None:
            self._cache.keep(shared, packed)
            if vector is not None:
                self._cache.remember(shared.way, vector)

    def _packed(self, asked: Asked, way: Way, content: bytes) -> bytes | None:
        """What to keep; None for what is not kept."""
        try:
            body = whole_of(content) if way.stream else content
            if asked.request.operation == "chat":
                check_plain(body)
        except NotPlain:
            return None
        rule = asked.scenario.answer
        if len(body) > self._cache.entry_bytes_max(way) or (rule and not self._answering.conforms(rule, body)):
            return None
        return pack(body, wall())


async def _is_wanted(shared: Shared) -> bool:
    return not shared.flight.is_done and (shared.is_said or await shared.is_followed())


async def _pass_on(answer: Answer, chat: EventStream, shared: Shared, watch: Callable[[bytes], None] | None) -> None:
    """Say a stream as it comes, in whole events. Raises AttemptFailed."""
    source = answer.source
    assert source is not None

    def push(events: bytes) -> None:
        if watch is not None:
            watch(events)
        shared.push(events)
        shared.is_said = chat.done and not chat.failed

    push(answer.first)
    while data := await source.read():
        push(chat.feed(data))
        if not shared.flight.joinable:
            await shared.flight.room()
    if not source.delimited and not chat.done:
        raise AttemptFailed("reset", "connection closed before the end of the stream")
    push(chat.end())


def _is_complete(chat: EventStream, shared: Shared) -> bool:
    """Whether all of a stream was said, wherever those who read it are."""
    flight = shared.flight
    return shared.is_said or (flight.is_done and flight.failure is None and not chat.failed)


def _kept_head(asked: Asked, kept: Kept) -> Head:
    """A kept answer as it begins; one that is not as the scenario promises is never kept."""
    verdict = "valid" if asked.scenario.answer is not None else ""
    return Head(status=200, content_type=JSON, body=kept.body, age_s=kept.age_s, verdict=verdict)


def _told_again(asked: Asked, way: Way, head: Head) -> Head:
    """A kept answer in the form that was asked for. Raises Lost where it has none."""
    if not way.stream:
        return head
    try:
        events = events_of(head.body or b"", include_usage=asked.request.include_usage)
    except NotPlain:
        raise Lost from None
    record = asked.record
    record.first_token_at = record.last_token_at = monotonic()
    record.stream_end_reason = "complete"
    return msgspec.structs.replace(head, content_type=EVENT_STREAM, body=events)


def _route(plan: Plan) -> list[str]:
    """Which backends conditions leave to a call: the names of those left out, or of the one that is planned."""
    left_out = sorted(name for name, reason in plan.dropped if reason == BY_CONDITION)
    return ["without", *left_out] if left_out else ["by", *(each.name for each in plan.attempts)]


def _patience_s(asked: Asked) -> float:
    """How long the call could take by itself: in a backend's queue, and a stream until its first bytes, else all of it;
    twice where an answer may be asked for again.
    """
    plan = asked.plan
    waits = [
        each.timeouts.connect_s + min(each.timeouts.first_byte_s, each.timeouts.total_s)
        if asked.request.stream
        else each.timeouts.total_s
        for each in plan.attempts
    ]
    queue = plan.attempts[-1].queue if plan.attempts and plan.may_wait else None
    if queue is not None:
        waits.append(queue.wait_s)
    return sum(waits) * asked.request.answers or _LEAST_WAIT_S
