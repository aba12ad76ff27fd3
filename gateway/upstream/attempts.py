"""Attempts: the plan's backends tried in order until one really answers, whatever is asked of them.

Invariants:
- A further attempt is made only while nothing of an answer has been taken; until then nothing has been sent to the
  caller.
- Every place taken at a backend and every source opened is given back exactly once: by ``_attempt`` where it
  fails, else by what it left on the Cleanup.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from gateway.cleanup import Cleanup
from gateway.clock import monotonic
from gateway.dialects.openai.errors import error_body
from gateway.errors import AttemptFailed, InvalidRequest, Outcome
from gateway.model import Backend, Plan
from gateway.telemetry import Metrics, RequestRecord
from gateway.upstream.backends import Backends, BackendState
from gateway.upstream.client import UpstreamClient
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.outcomes import exhausted, failure_of_answer, header
from gateway.upstream.source import Source

PASSED_THROUGH = frozenset({400, 413, 415, 422})
"""Refusals that are the caller's to see."""

_JSON = b"application/json"
_CRLF = b"\r\n"


class Answered(Protocol):
    """An answer."""

    status: int


_Q = TypeVar("_Q")
_A = TypeVar("_A", bound=Answered)


class Attempts(ABC, Generic[_Q, _A]):
    """Makes calls on behalf of requests; what kind of call ``_attempt`` knows."""

    def __init__(self, client: UpstreamClient, limits: UpstreamLimits, metrics: Metrics, backends: Backends) -> None:
        self._client = client
        self._limits = limits
        self._metrics = metrics
        self.backends = backends

    @abstractmethod
    async def _attempt(
        self, state: BackendState, backend: Backend, request: _Q, record: RequestRecord, cleanup: Cleanup
    ) -> _A:
        """One try, in a place that was taken, and that it gives back. Raises AttemptFailed, InvalidRequest."""

    async def call(self, plan: Plan, request: _Q, record: RequestRecord, cleanup: Cleanup) -> _A:
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
                state = self.backends.state_of(backend)
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
        self, state: BackendState, backend: Backend, request: _Q, record: RequestRecord, cleanup: Cleanup
    ) -> _A:
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
                    if not failure.not_ready or failure.is_final:  # a body that is gone cannot be sent again
                        raise
                    ticket.reason = failure.detail
                finally:
                    queue.tried(ticket)
        finally:
            record.queue_wait_s += ticket.waited_s  # an answer that is asked for again may wait again
            queue.close(ticket)

    async def _exchange_signed(
        self, state: BackendState, backend: Backend, parts: tuple[bytes, bytes], path: str
    ) -> Source:
        """The answer to a request with the credential that is made for it, and once more where that was refused."""
        assert backend.origin is not None, "nothing in process is signed"
        sent = None if state.queue is None else state.queue.sent
        signer = state.signer_of(backend)
        if signer is None:
            return await self._client.exchange(backend.origin, parts, backend.timeouts, sent)
        head, body = parts
        lines = await signer.lines(f"{backend.path}{path}", body)
        source = await self._client.exchange(backend.origin, (with_lines(head, lines), body), backend.timeouts, sent)
        if source.status != 401 or not signer.refused(lines):
            return source
        source.close()
        lines = await signer.lines(f"{backend.path}{path}", body)
        return await self._client.exchange(backend.origin, (with_lines(head, lines), body), backend.timeouts, sent)

    async def _read_body(self, source: Source, record: RequestRecord, limit: int) -> bytes:
        started_at = monotonic()
        chunks: list[bytes] = []
        size = 0
        try:
            while data := await source.read():
                source.begun()
                size += len(data)
                if size > limit:
                    raise BodyTooLarge(limit)
                chunks.append(data)
        except AttemptFailed as failure:
            failure.is_final = failure.is_final or bool(chunks)
            raise
        finally:
            record.upstream_wait_s += monotonic() - started_at
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _read_refused(self, source: Source, record: RequestRecord) -> tuple[bytes, bytes, bool]:
        """Body and content type of a refusal that is the caller's to see, and whether they are the backend's own words.

        Raises AttemptFailed for every other status.
        """
        if source.status not in PASSED_THROUGH:
            raise failure_of_answer(source)
        try:
            body = await self._read_body(source, record, self._limits.max_error_body_bytes)
        except BodyTooLarge:
            refusal = InvalidRequest(
                "The model backend refused the request; its explanation is too large to pass on.",
                code="upstream_refused",
            )
            return error_body(refusal), _JSON, False
        return body, header(source, b"content-type") or _JSON, True


class BodyTooLarge(AttemptFailed):
    """A body beyond its bound."""

    def __init__(self, limit: int) -> None:
        super().__init__("protocol_error", f"a body of more than {limit} bytes")
        self.is_final = True  # much of it has arrived


def head_with(start: bytes, record: RequestRecord, framing: bytes) -> bytes:
    """The whole head of a request: its prepared ``start``, the trace, and the line that says how its body ends."""
    trace = record.trace
    state_line = b"tracestate: %b\r\n" % trace.tracestate if trace.tracestate else b""
    return b"%btraceparent: %b\r\n%b%b\r\n\r\n" % (start, trace.upstream_header(), state_line, framing)


def with_lines(head: bytes, lines: bytes) -> bytes:
    """A head with further header lines, each with CRLF."""
    return head.removesuffix(_CRLF) + lines + _CRLF
