"""The call of anything but a chat completion: one attempt at one backend of OpenAI's dialect.

Invariants: a further attempt is made only while nothing of an answer has been taken. The parts of a large call are one
attempt: where one of them fails, it fails, and what the others used is not charged, since nobody gets it. Each of them
has a place at the backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from functools import reduce
from operator import add

import msgspec

from gateway.cleanup import Cleanup
from gateway.clock import monotonic
from gateway.dialects.azure import endpoint_path
from gateway.dialects.contract import EventStream
from gateway.dialects.openai.batches import batched, join, split
from gateway.dialects.openai.operations import SHAPES, encode_operation, read_answer
from gateway.dialects.openai.passing import Passing, PassingEvents
from gateway.dialects.openai.reply import ReplyFacts
from gateway.dialects.openai.request import request_head
from gateway.errors import AttemptFailed
from gateway.model import Backend, ChatRequest
from gateway.telemetry import RequestRecord
from gateway.upstream.attempts import Attempts, head_with, with_lines
from gateway.upstream.backends import BackendState
from gateway.upstream.call import Answer
from gateway.upstream.echo_embeddings import echo_embeddings
from gateway.upstream.outcomes import header
from gateway.upstream.source import Source
from gateway.upstream.upload import Sending, Upload

_JSON = b"application/json"
_EVENTS = b"text/event-stream"
_ANY = b"*/*"
_IN_THREAD_FROM = 262_144  # bytes: what takes longer to join must not keep other requests waiting


class OperationCaller(Attempts[ChatRequest, Answer]):
    """Makes calls of operations."""

    async def _attempt(
        self, state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord, cleanup: Cleanup
    ) -> Answer:
        """See Attempts."""
        try:
            answer = await self._answer(state, backend, request, record)
        except BaseException as failure:  # also when cancelled: its place must be free
            if state.queue is not None:
                state.queue.failed(failure)
            state.leave()
            raise
        if answer.source is None:
            state.leave()
        else:
            cleanup.push(state.leave)
            cleanup.push(answer.source.close)
        return answer

    async def _answer(
        self, state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord
    ) -> Answer:
        if backend.origin is None:
            return _whole(backend, request, echo_embeddings(backend, request))
        if backend.batch is not None and batched(request.operation):
            parts = split(request, backend.batch.inputs, self._limits.max_batch_items)
            if parts is not None:
                return await _Parts(self, state, backend, request, record).answer(parts)
        return await self.ask(state, backend, request, request.fields, record)

    async def ask(
        self,
        state: BackendState,
        backend: Backend,
        request: ChatRequest,
        fields: Mapping[str, msgspec.Raw | bytes],
        record: RequestRecord,
    ) -> Answer:
        """One request to the backend, in a place that was taken. Raises AttemptFailed."""
        path = path_of(backend, request)
        body = encode_operation(request, backend, fields)
        head = head_with(request_head(backend, path, accept=_ANY), record, b"content-length: %d" % len(body))
        started_at = monotonic()
        try:
            source = await self._exchange_signed(state, backend, (head, body), path)
        finally:
            record.upstream_wait_s += monotonic() - started_at
        return await self._taken(source, state, backend, request, record)

    async def _taken(
        self, source: Source, state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord
    ) -> Answer:
        """The answer that comes from ``source``, which is closed where nothing more is to come."""
        try:
            if state.queue is not None and source.status != 503:
                state.queue.answered()
            answer = await self._read(source, backend, request, record)
        except BaseException:  # also when cancelled: the backend must stop
            source.close()
            raise
        if answer.source is None:
            source.close()
        return answer

    async def _read(self, source: Source, backend: Backend, request: ChatRequest, record: RequestRecord) -> Answer:
        if source.status != 200:
            body, content_type, _ = await self._read_refused(source, record)
            return Answer(backend=backend, status=source.status, content_type=content_type, body=body)
        content_type = header(source, b"content-type") or _JSON
        kind = content_type.lower()
        if kind.startswith(_EVENTS):
            return await self._begun(source, backend, content_type, PassingEvents(self._limits.max_body_bytes), record)
        proves_itself = bool(SHAPES[request.operation].gives)
        if not proves_itself and not kind.startswith((_JSON, b"text/")):
            return await self._begun(source, backend, content_type, Passing(), record)
        body = await self._read_body(source, record, self._limits.max_body_bytes)
        if proves_itself or kind.startswith(_JSON):
            return _whole(backend, request, body, content_type)
        return Answer(backend=backend, status=200, content_type=content_type, body=body)

    async def _begun(
        self, source: Source, backend: Backend, content_type: bytes, stream: EventStream, record: RequestRecord
    ) -> Answer:
        """An answer that passes as it comes, once it has begun."""
        started_at = monotonic()
        try:
            data = await source.read()
        finally:
            record.upstream_wait_s += monotonic() - started_at
        if not data:
            raise AttemptFailed("protocol_error", "an answer without a body")
        source.begun()
        first = stream.feed(data)
        record.stream = True
        return Answer(backend=backend, status=200, content_type=content_type, first=first, stream=stream, source=source)


class UploadCaller(OperationCaller):
    """Makes the call of one ``upload``."""

    upload: Upload

    def of(self, upload: Upload) -> UploadCaller:
        """One for this upload."""
        one = copy(self)
        one.upload = upload
        return one

    async def _answer(
        self, state: BackendState, backend: Backend, request: ChatRequest, record: RequestRecord
    ) -> Answer:
        upload = self.upload
        try:
            sending = upload.sending(backend, request.model)
            path = path_of(backend, request)
            content_type = b'multipart/form-data; boundary="' + upload.boundary + b'"'
            start = request_head(backend, path, content_type=content_type, accept=_ANY)
            framing = (
                b"transfer-encoding: chunked" if sending.length is None else b"content-length: %d" % sending.length
            )
            source = await self._streamed(state, backend, head_with(start, record, framing), sending, record)
            return await self._taken(source, state, backend, request, record)
        except AttemptFailed as failure:
            failure.is_final = failure.is_final or not upload.can_be_sent
            raise

    async def _streamed(
        self, state: BackendState, backend: Backend, head: bytes, sending: Sending, record: RequestRecord
    ) -> Source:
        """The answer to the upload, whose time is partly the caller's."""
        assert backend.origin is not None, "an echo takes no uploads"
        signer = state.signer_of(backend)
        if signer is not None:
            head = with_lines(head, await signer.lines(backend.path, b""))
        if state.queue is not None:
            state.queue.sent()
        waited_s, started_at = record.client_wait_s, monotonic()
        try:
            return await self._client.stream(
                backend.origin, head, sending.pieces, backend.timeouts, chunked=sending.length is None
            )
        finally:
            of_caller_s = record.client_wait_s - waited_s
            record.upstream_wait_s += max(monotonic() - started_at - of_caller_s, 0.0)


class _Parts:
    """A large call that is made as several, as many at once as the backend says and has room for."""

    def __init__(
        self,
        caller: OperationCaller,
        state: BackendState,
        backend: Backend,
        request: ChatRequest,
        record: RequestRecord,
    ) -> None:
        self._caller = caller
        self._state = state
        self._backend = backend
        self._request = request
        self._record = record

    async def answer(self, parts: list[Mapping[str, msgspec.Raw | bytes]]) -> Answer:
        """The answers of all, joined; the first that is none. Raises AttemptFailed."""
        batch = self._backend.batch
        assert batch is not None, "nothing else is split"
        answers: list[Answer | None] = [None] * len(parts)
        left = iter(enumerate(parts))
        refused: list[Answer] = []

        async def work() -> None:
            for place, fields in left:
                if refused:
                    return
                answer = await self._caller.ask(self._state, self._backend, self._request, fields, self._record)
                if answer.facts is None:
                    refused.append(answer)
                answers[place] = answer

        record, waited_s, started_at = self._record, self._record.upstream_wait_s, monotonic()
        try:
            await self._all(work, min(batch.concurrent, len(parts)) - 1)
        finally:  # they wait at the same time
            record.upstream_wait_s = waited_s + monotonic() - started_at
        if refused:
            return refused[0]
        return await self._joined([answer for answer in answers if answer is not None], batch.inputs)

    async def _all(self, work: Callable[[], Awaitable[None]], others: int) -> None:
        """Have the work done in the place that was taken, and by as many ``others`` as there is room for."""

        async def beside() -> None:
            try:
                self._state.enter()
            except AttemptFailed:  # no room: those who have a place do it all
                return
            try:
                await work()
            finally:
                self._state.leave()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(others):
                    group.create_task(beside())
                await work()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _joined(self, answers: list[Answer], size: int) -> Answer:
        bodies = [answer.body or b"" for answer in answers]
        total = sum(map(len, bodies))
        if total < _IN_THREAD_FROM:
            body = join(self._request, bodies, size)
        else:
            body = await asyncio.to_thread(join, self._request, bodies, size)
        usages = [answer.facts.usage for answer in answers if answer.facts is not None]
        reported = [usage for usage in usages if usage is not None]
        usage = reduce(add, reported) if len(reported) == len(answers) else None  # else all of it is estimated
        return Answer(backend=self._backend, status=200, content_type=_JSON, body=body, facts=ReplyFacts(usage))


def path_of(backend: Backend, request: ChatRequest) -> str:
    """What follows the backend's own path."""
    path = SHAPES[request.operation].path
    return endpoint_path(backend, request.model, path) if backend.provider == "azure" else path


def _whole(backend: Backend, request: ChatRequest, body: bytes, content_type: bytes = _JSON) -> Answer:
    """The answer that a whole body is. Raises AttemptFailed where it is none."""
    facts = ReplyFacts(read_answer(request.operation, body))
    return Answer(backend=backend, status=200, content_type=content_type, body=body, facts=facts)
