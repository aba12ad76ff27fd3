"""The call: try the plan's backends in order until one really answers.

Invariants:
- A further attempt is made only while nothing of an answer has been taken: a stream counts as begun with its first
  event, a whole reply with the first byte of its body. Until then nothing has been sent to the caller.
- Every place taken at a backend and every source opened is given back exactly once, on failure here, else by the
  Cleanup that the reply owns.
"""

from __future__ import annotations

import asyncio

import msgspec

from gateway.cleanup import Cleanup
from gateway.clock import monotonic
from gateway.dialects.ask import beyond_chat
from gateway.dialects.contract import EventStream, RetryAfter, Translation
from gateway.dialects.openai.errors import error_body
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.dialects.openai.request import encode_chat_request
from gateway.dialects.openai.stream import ChatStream
from gateway.dialects.providers import FAILURES, RETRY_AFTER, translate_of
from gateway.errors import AttemptFailed, InvalidRequest, Outcome
from gateway.model import Backend, ChatRequest, Dialect, Plan
from gateway.telemetry import Metrics, RequestRecord
from gateway.upstream.backends import CHAT_PATH, Backends, BackendState
from gateway.upstream.client import UpstreamClient
from gateway.upstream.echo import echo
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.outcomes import exhausted, failure_of_answer, header, retry_after_s
from gateway.upstream.signing import SignerOf, no_signer
from gateway.upstream.source import Source
from gateway.upstream.translated import TranslatedSource

_PASSED_THROUGH = frozenset({400, 413, 415, 422})
_ASK_TO_WAIT = frozenset({429, 503})
_JSON = b"application/json"
_CRLF = b"\r\n"


class Answer(msgspec.Struct, kw_only=True):
    """What a backend answered: a whole body, or a stream of which ``first`` has been read already.

    It is told in ``dialect``. ``before`` is an answer that was thrown away for this one: what it used is charged, too.
    """

    backend: Backend
    status: int
    content_type: bytes
    body: bytes | None = None
    facts: ReplyFacts | None = None
    first: bytes = b""
    stream: EventStream | None = None
    source: Source | None = None
    before: Answer | None = None
    verdict: str = ""  # whether it conforms to the scenario's schema, where that has one
    dialect: Dialect = "chat"


class Caller:
    """Makes calls on behalf of requests."""

    def __init__(
        self, client: UpstreamClient, limits: UpstreamLimits, metrics: Metrics, signer_of: SignerOf = no_signer
    ) -> None:
        self._client = client
        self._limits = limits
        self._metrics = metrics
        self._backends = Backends(metrics, limits, signer_of)

    def has_room_beside(self, backend: Backend) -> bool:
        """Whether a call that nobody waits for may take a place: while less than half of the backend's are taken."""
        return self._backends.state_of(backend).is_half_empty

    async def call(self, plan: Plan, request: ChatRequest, record: RequestRecord, cleanup: Cleanup) -> Answer:
        """The first real answer of the plan. What a stream holds is left on ``cleanup``.

        Raises GatewayError when the plan is exhausted (NoBackend, Overloaded, UpstreamTimeout, UpstreamFailed), or when
        none of its backends can do what is asked (InvalidRequest).
        """
        failures: list[AttemptFailed] = []
        impossible: InvalidRequest | None = None
        for backend in plan.attempts:
            record.backend = backend.name
            record.provider = backend.provider
            record.response_model = backend.model or ""
            started_at = monotonic()
            outcome: Outcome = "cancelled"
            detail = ""
            try:
                # The state may go on to a later version of the backend meanwhile; the call stays with its own.
                state = self._backends.state_of(backend)
                if backend.queue is not None and backend is plan.attempts[-1] and plan.may_wait:
                    answer = await self._patiently(state, backend, request, record, cleanup)
                else:
                    state.enter()
                    answer = await self._attempt(state, backend, request, record, cleanup)
                outcome = "ok" if answer.status == 200 else "refused"
                return answer
            except AttemptFailed as failure:
                outcome, detail = failure.outcome, failure.detail
                failures.append(failure)
                if failure.is_final:
                    break
            except InvalidRequest as refusal:  # not in this backend's dialect; perhaps in the next one's
                outcome, detail = "refused", refusal.message
                impossible = impossible or refusal
            finally:
                record.attempts.append((backend.name, outcome, monotonic() - started_at, detail))
                self._metrics.attempt(backend.name, outcome)
        if impossible is not None and not failures:
            raise impossible
        raise exhausted(plan, failures)

    async def _patiently(
        self, state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord, cleanup: Cleanup
    ) -> Answer:
        """An attempt that waits in the backend's queue, and again as often as the backend is not ready."""
        queue = state.queue
        assert queue is not None, "the state has the queue of any version of its backend"
        ticket = queue.ticket(record.tenant)
        try:
            while True:
                try:
                    await queue.enter(ticket)
                except asyncio.CancelledError:
                    record.left_queue = True
                    raise
                try:
                    return await self._attempt(state, backend, request, record, cleanup)
                except AttemptFailed as failure:
                    if not failure.not_ready:
                        raise
                    ticket.reason = failure.detail
                finally:
                    queue.tried(ticket)
        finally:
            record.queue_wait_s += ticket.waited_s  # an answer that is asked for again may wait again
            queue.close(ticket)

    async def _attempt(
        self, state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord, cleanup: Cleanup
    ) -> Answer:
        """One try, in a place that was taken."""
        queue = state.queue
        source: Source | None = None
        translation: Translation | None = None
        try:
            if backend.origin is None:
                record.dropped_fields = beyond_chat(request)
                source = echo(backend, request)
            else:
                translation, parts = _prepared(state, backend, request, record)
                started_at = monotonic()
                try:
                    sent = None if queue is None else queue.sent
                    source = await (
                        self._exchange_signed(state, backend, parts, translation)
                        if state.signs
                        else self._client.exchange(backend.origin, parts, backend.timeouts, sent)
                    )
                finally:
                    record.upstream_wait_s += monotonic() - started_at
            if queue is not None and source.status != 503:
                queue.answered()
            body = None if request.stream or source.status != 200 else source.whole()
            if body is None:
                answer = await self._read(source, backend, request, record, translation)
            else:  # most whole answers come with their head, and then there is nothing to wait for
                answer = _whole(backend, body, self._limits.max_body_bytes, translation)
        except BaseException as failure:  # also when cancelled: the backend must stop and its place must be free
            if source is not None:
                source.close()
            if queue is not None:
                queue.failed(failure)
            state.leave()
            raise
        if answer.stream is None:
            source.close()
            state.leave()
        else:
            cleanup.push(state.leave)
            cleanup.push(source.close)
        return answer

    async def _exchange_signed(
        self, state: BackendState, backend: Backend, parts: tuple[bytes, bytes], translation: Translation | None
    ) -> Source:
        """The answer to a request with the credential that is made for it, and once more where that was refused."""
        assert backend.origin is not None, "nothing in process is signed"
        sent = None if state.queue is None else state.queue.sent
        signer = state.signer_of(backend)
        if signer is None:
            return await self._client.exchange(backend.origin, parts, backend.timeouts, sent)
        head, body = parts
        path = CHAT_PATH if translation is None else translation.outgoing.path
        lines = await signer.lines(f"{backend.path}{path}", body)
        source = await self._client.exchange(backend.origin, _with(head, lines, body), backend.timeouts, sent)
        if source.status != 401 or not signer.refused(lines):
            return source
        source.close()
        lines = await signer.lines(f"{backend.path}{path}", body)
        return await self._client.exchange(backend.origin, _with(head, lines, body), backend.timeouts, sent)

    async def _read(
        self,
        source: Source,
        backend: Backend,
        request: ChatRequest,
        record: RequestRecord,
        translation: Translation | None,
    ) -> Answer:
        limits = self._limits
        if source.status != 200:
            return await self._read_refusal(source, backend, record, translation)
        if not request.stream:
            body = await self._read_body(source, record, limits.max_body_bytes)
            return _whole(backend, body, limits.max_body_bytes, translation)
        content_type = header(source, b"content-type")
        if content_type.lower().startswith(b"application/json"):
            body = await self._read_body(source, record, limits.max_body_bytes)
            _whole(backend, body, limits.max_body_bytes, translation)
            raise AttemptFailed("protocol_error", "a stream was asked for and a whole reply came")
        if translation is None:
            stream: EventStream = ChatStream(
                drop_usage=not request.include_usage, max_event_bytes=limits.max_event_bytes
            )
        else:
            stream = translation.events(limits.max_event_bytes)
            translator = translation.translator(limits.max_event_bytes)
            if translator is not None:
                source = TranslatedSource(source, translator)
                content_type = b"text/event-stream"
        first = await self._read_first_event(source, stream, record)
        return Answer(
            backend=backend,
            status=200,
            content_type=content_type or b"text/event-stream",
            first=first,
            stream=stream,
            source=source,
            dialect="chat" if translation is None else translation.dialect,
        )

    async def _read_first_event(self, source: Source, stream: EventStream, record: RequestRecord) -> bytes:
        """Everything up to and with the first event that holds data; comments before it are held back with it."""
        held: list[bytes] = []
        size = 0
        while not stream.started:
            started_at = monotonic()
            try:
                data = await source.read()
            finally:
                record.upstream_wait_s += monotonic() - started_at
            if not data:
                raise AttemptFailed("protocol_error", "the stream ended before its first event")
            held.append(stream.feed(data))
            size += len(data)
            if size > self._limits.max_event_bytes and not stream.started:
                raise AttemptFailed("protocol_error", "too much before the first event")
        source.begun()
        if stream.failed:
            raise AttemptFailed("error_in_body", "a stream whose first event is an error")
        return b"".join(held)

    async def _read_refusal(
        self, source: Source, backend: Backend, record: RequestRecord, translation: Translation | None
    ) -> Answer:
        """A status that is the caller's to see passes with its body; every other one fails the attempt."""
        status = source.status
        failure = _failure(source, backend)
        if failure is not None:
            retry_after = RETRY_AFTER.get(backend.provider)
            if retry_after is not None and failure.retry_after_s is None and status in _ASK_TO_WAIT:
                failure.retry_after_s = await self._told_wait_s(source, record, retry_after)
            raise failure
        try:
            body = await self._read_body(source, record, self._limits.max_error_body_bytes)
            content_type = header(source, b"content-type") or b"application/json"
            if translation is not None:
                body, content_type = translation.refusal(status, body), b"application/json"
        except _TooLarge:
            refusal = InvalidRequest(
                "The model backend refused the request; its explanation is too large to pass on.",
                code="upstream_refused",
            )
            body, content_type, translation = error_body(refusal), b"application/json", None
        return Answer(
            backend=backend,
            status=status,
            content_type=content_type,
            body=body,
            dialect="chat" if translation is None else translation.dialect,
        )

    async def _told_wait_s(self, source: Source, record: RequestRecord, read: RetryAfter) -> float | None:
        """How long the body of a refusal asks to wait, as far as it can be had."""
        try:
            return read(await self._read_body(source, record, self._limits.max_error_body_bytes))
        except AttemptFailed:
            return None

    async def _read_body(self, source: Source, record: RequestRecord, limit: int) -> bytes:
        started_at = monotonic()
        chunks: list[bytes] = []
        size = 0
        try:
            while data := await source.read():
                source.begun()
                size += len(data)
                if size > limit:
                    raise _TooLarge(limit)
                chunks.append(data)
        except AttemptFailed as failure:
            failure.is_final = failure.is_final or bool(chunks)
            raise
        finally:
            record.upstream_wait_s += monotonic() - started_at
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _failure(source: Source, backend: Backend) -> AttemptFailed | None:
    """Which failure of the attempt an answer is; None where it is the caller's to see."""
    read = FAILURES.get(backend.provider)
    failure = None if read is None else read(source.status, source.headers)
    if failure is not None:
        failure.retry_after_s = retry_after_s(source)
        return failure
    return None if source.status in _PASSED_THROUGH else failure_of_answer(source)


def _prepared(
    state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord
) -> tuple[Translation | None, tuple[bytes, bytes]]:
    """The way back of an answer that has to be translated, and head and body to send. Raises InvalidRequest."""
    translate = translate_of(request, backend)
    translation: Translation | None = None
    if translate is None:
        record.dropped_fields = beyond_chat(request)
        body = encode_chat_request(request, backend)
        start = state.head_of(backend)
    else:
        translation = translate(request, backend)
        outgoing = translation.outgoing
        record.dropped_fields = outgoing.dropped
        if translation.dialect == "chat":
            record.dropped_fields += beyond_chat(request)
        body = outgoing.body
        start = state.head_of(backend, outgoing.path) + outgoing.lines
    trace = record.trace
    state_line = b"tracestate: %b\r\n" % trace.tracestate if trace.tracestate else b""
    head = b"%btraceparent: %b\r\n%bcontent-length: %d\r\n\r\n" % (
        start,
        trace.upstream_header(),
        state_line,
        len(body),
    )
    return translation, (head, body)


def _with(head: bytes, lines: bytes, body: bytes) -> tuple[bytes, bytes]:
    """A request with further header lines, each with CRLF."""
    return head.removesuffix(_CRLF) + lines + _CRLF, body


def _whole(backend: Backend, body: bytes, limit: int, translation: Translation | None) -> Answer:
    """The answer that a whole body is. Raises AttemptFailed where it is none, or larger than ``limit`` bytes."""
    if len(body) > limit:
        raise _TooLarge(limit)
    if translation is None:
        return Answer(backend=backend, status=200, content_type=_JSON, body=body, facts=read_reply(body))
    told, facts = translation.whole(body)
    return Answer(backend=backend, status=200, content_type=_JSON, body=told, facts=facts, dialect=translation.dialect)


class _TooLarge(AttemptFailed):
    """A body beyond its bound."""

    def __init__(self, limit: int) -> None:
        super().__init__("protocol_error", f"a body of more than {limit} bytes")
        self.is_final = True  # much of it has arrived
