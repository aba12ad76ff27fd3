"""The call of a chat completion: one attempt at one backend, in its own dialect or by translation.

Invariant: of an answer nothing is taken before it really began, a stream with its first event, a whole reply with the
first byte of its body: until then ``attempts`` may go on to another backend.
"""

from __future__ import annotations

import msgspec

from gateway.cleanup import Cleanup
from gateway.clock import monotonic
from gateway.dialects.ask import beyond_chat
from gateway.dialects.contract import EventStream, RetryAfter, Translation
from gateway.dialects.openai.reply import ReplyFacts, read_reply
from gateway.dialects.openai.request import encode_chat_request
from gateway.dialects.openai.stream import ChatStream
from gateway.dialects.providers import FAILURES, RETRY_AFTER, translate_of
from gateway.errors import AttemptFailed
from gateway.model import Backend, ChatRequest, Dialect
from gateway.telemetry import Metrics, RequestRecord
from gateway.upstream.attempts import PASSED_THROUGH, Attempts, BodyTooLarge, head_with
from gateway.upstream.backends import CHAT_PATH, Backends, BackendState
from gateway.upstream.client import UpstreamClient
from gateway.upstream.echo import echo
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.outcomes import failure_of_answer, header, retry_after_s
from gateway.upstream.signing import SignerOf, no_signer
from gateway.upstream.source import Source
from gateway.upstream.translated import TranslatedSource

_ASK_TO_WAIT = frozenset({429, 503})
_JSON = b"application/json"


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


class Caller(Attempts[ChatRequest, Answer]):
    """Makes calls for chat completions."""

    def __init__(
        self, client: UpstreamClient, limits: UpstreamLimits, metrics: Metrics, signer_of: SignerOf = no_signer
    ) -> None:
        super().__init__(client, limits, metrics, Backends(metrics, limits, signer_of))

    def has_room_beside(self, backend: Backend) -> bool:
        """Whether a call that nobody waits for may take a place: while less than half of the backend's are taken."""
        return self.backends.state_of(backend).is_half_empty

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
                        self._exchange_signed(
                            state, backend, parts, CHAT_PATH if translation is None else translation.outgoing.path
                        )
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
        body, content_type, is_theirs = await self._read_refused(source, record)
        if translation is None or not is_theirs:
            return Answer(backend=backend, status=status, content_type=content_type, body=body)
        told = translation.refusal(status, body)
        return Answer(backend=backend, status=status, content_type=_JSON, body=told, dialect=translation.dialect)

    async def _told_wait_s(self, source: Source, record: RequestRecord, read: RetryAfter) -> float | None:
        """How long the body of a refusal asks to wait, as far as it can be had."""
        try:
            return read(await self._read_body(source, record, self._limits.max_error_body_bytes))
        except AttemptFailed:
            return None


def _failure(source: Source, backend: Backend) -> AttemptFailed | None:
    """Which failure of the attempt an answer is; None where it is the caller's to see."""
    read = FAILURES.get(backend.provider)
    failure = None if read is None else read(source.status, source.headers)
    if failure is not None:
        failure.retry_after_s = retry_after_s(source)
        return failure
    return None if source.status in PASSED_THROUGH else failure_of_answer(source)


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
    head = head_with(start, record, b"content-length: %d" % len(body))
    return translation, (head, body)


def _whole(backend: Backend, body: bytes, limit: int, translation: Translation | None) -> Answer:
    """The answer that a whole body is. Raises AttemptFailed where it is none, or larger than ``limit`` bytes."""
    if len(body) > limit:
        raise BodyTooLarge(limit)
    if translation is None:
        return Answer(backend=backend, status=200, content_type=_JSON, body=body, facts=read_reply(body))
    told, facts = translation.whole(body)
    return Answer(backend=backend, status=200, content_type=_JSON, body=told, facts=facts, dialect=translation.dialect)
