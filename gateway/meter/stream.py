"""A stream on its way to the caller: timed, counted, and ended properly whatever happens to the backend.

Invariants:
- Nothing after the first byte changes the status; from there a failure is one event of the caller's dialect, and the
  stream ends after it.
- Nothing of the stream is kept: memory does not grow with its length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.clock import monotonic
from gateway.dialects.contract import EventStream
from gateway.errors import TIMEOUT_OUTCOMES, AttemptFailed, UpstreamFailed, UpstreamTimeout
from gateway.telemetry import RequestRecord


class Pieces(Protocol):
    """Where the bytes come from."""

    delimited: bool

    def take(self) -> bytes | None:
        """The bytes that have arrived; ``b""`` at the end, None where nothing is there yet. Raises AttemptFailed."""

    def arrival(self) -> Awaitable[None]:
        """To be awaited once after ``take`` gave None."""

    def listen(self, listener: Callable[[bool], None] | None) -> bool:
        """Have ``listener`` called instead, with True when it is the last time; False where that cannot be had."""


class MeteredStream:
    """Reads like a source: ``take`` until it gives ``b""``. Never raises what the backend did.

    ``watch`` is shown every event that is passed on of what the backend said.
    """

    __slots__ = ("_chat", "_ended", "_first", "_record", "_source", "_waits_since", "_watch")

    def __init__(
        self,
        source: Pieces,
        chat: EventStream,
        first: bytes,
        record: RequestRecord,
        watch: Callable[[bytes], None] | None = None,
    ) -> None:
        self._source = source
        self._chat = chat
        self._first = first
        self._record = record
        self._ended = False
        self._waits_since: float | None = None
        self._watch = watch
        if watch is not None:
            watch(first)
        record.first_token_at = record.last_token_at = monotonic()
        # What it is if nobody reads to the end; a short stream may all have come with its first event.
        record.stream_end_reason = "complete" if chat.done and not chat.failed else "client_gone"

    def arrival(self) -> Awaitable[None]:
        """To be awaited once after ``take`` gave None, before it is called again."""
        self._waits_since = monotonic()
        return self._source.arrival()

    async def relay(self, push: Callable[[bytes], bool]) -> bytes | None:
        """After ``take`` gave None: hand to ``push`` whatever comes, as it comes.

        Returns the first piece that ``push`` did not take (it returned False), ``b""`` at the end, or None where
        something may have come that ``take`` should be asked for. No task runs and nothing waits meanwhile: a piece
        leaves in the very turn of the event loop that it came in.
        """
        left: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_arrival(last: bool) -> None:
            if left.done():
                return  # what comes now waits for whoever has been told
            try:
                piece = self.take()
                while piece and push(piece):
                    if not last and not self._ended:  # a stream may end here though the backend goes on
                        self._waits_since = monotonic()
                        return
                    piece = self.take()
                if piece is None:
                    self._waits_since = monotonic()
                else:
                    left.set_result(piece)
            except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the task that serves the call
                left.set_exception(error)

        if not self._source.listen(on_arrival):
            await self.arrival()
            return None
        self._waits_since = monotonic()
        try:
            return await left
        finally:
            self._source.listen(None)

    def take(self) -> bytes | None:
        """What is there for the caller; ``b""`` at the end, None where nothing is there yet."""
        if self._first:
            first, self._first = self._first, b""
            return first
        now = monotonic()
        self._stop_waiting(now)
        while not self._ended:
            try:
                passed_on = self._next(now)
            except AttemptFailed as failure:
                return self._break(failure)
            if passed_on or passed_on is None:
                return passed_on
        return b""

    def stop_waiting(self) -> None:
        """The caller left, maybe while something was waited for."""
        self._stop_waiting(monotonic())

    def _stop_waiting(self, now: float) -> None:
        if self._waits_since is not None:
            self._record.upstream_wait_s += now - self._waits_since
            self._waits_since = None

    def _next(self, now: float) -> bytes | None:
        data = self._source.take()
        if data:
            chat = self._chat
            self._record.last_token_at = now
            passed_on = chat.feed(data)
            if chat.done and not chat.failed:
                self._record.stream_end_reason = "complete"  # whoever leaves from here on has had it all
            if self._watch is not None and passed_on:
                self._watch(passed_on)
            return passed_on
        if data is None:
            return None
        if not self._source.delimited and not self._chat.done:
            raise AttemptFailed("reset", "connection closed before the end of the stream")
        rest = self._chat.end()
        if self._watch is not None and rest:
            self._watch(rest)
        self._end()
        return rest

    def _end(self) -> None:
        """The backend said all it had to say, be it that it failed."""
        self._ended = True
        record = self._record
        record.stream_end_reason = "complete"
        if self._chat.failed:
            record.stream_end_reason = record.outcome = "error_in_body"
            record.status = UpstreamFailed.status
            record.error_code = UpstreamFailed.code

    def _break(self, failure: AttemptFailed) -> bytes:
        """End with an error event. The status that was sent stands; the record says what an operator should see."""
        if self._chat.done or self._chat.failed:  # the caller has its end; only the connection was not ended well
            self._end()
            return b""
        self._ended = True
        error: UpstreamTimeout | UpstreamFailed
        if failure.outcome in TIMEOUT_OUTCOMES:
            error = UpstreamTimeout("The model backend stopped answering.", detail=failure.detail)
        else:
            error = UpstreamFailed("The model backend broke off its answer.", detail=failure.detail)
        record = self._record
        record.stream_end_reason = failure.outcome
        record.status = error.status
        record.error_code = error.code
        record.outcome = failure.outcome
        record.detail = failure.detail
        return self._chat.error_event(error)
