"""A stream of Messages on its way to a caller who speaks it: passed on byte for byte, read on the way. Pure.

Invariants:
- What ``feed`` and ``end`` return, joined, is what came in, byte for byte, and whole events only.
- Events are decoded only where they may matter: the start, the end, what is said of usage, and errors. Of the others
  the length counts.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import re

import msgspec

from gateway.dialects.anthropic import schema
from gateway.dialects.anthropic.errors import as_event, error_told
from gateway.dialects.anthropic.refusals import failure_of_first, is_of_the_account
from gateway.dialects.anthropic.stream_in import decode_event
from gateway.dialects.anthropic.usage import counted, merged
from gateway.dialects.sse import Event, EventReader
from gateway.errors import AttemptFailed, GatewayError
from gateway.model import Usage

_ENVELOPE_BYTES = 110  # of an event with a delta: its name, its type, its index and that of its delta
_may_matter = re.compile(rb'"(?:message_start|message_delta|message_stop|error)"').search


class PassedEvents:
    """See ``EventStream``."""

    __slots__ = (
        "_bytes",
        "_held",
        "_reader",
        "_reported",
        "begun_usage",
        "done",
        "events",
        "failed",
        "started",
        "usage",
    )

    def __init__(self, max_event_bytes: int) -> None:
        self._reader = EventReader(max_event_bytes)
        self._held = bytearray()  # of an event that is not complete
        self._reported: schema.Usage | None = None
        self._bytes = 0
        self.started = False
        self.done = False
        self.failed = False
        self.usage: Usage | None = None
        self.begun_usage: Usage | None = None
        self.events = 0

    @property
    def output_bytes(self) -> int:
        """See EventStream: what came, less the envelope of each event."""
        return max(self._bytes - self.events * _ENVELOPE_BYTES, 0)

    def feed(self, data: bytes) -> bytes:
        """See EventStream."""
        if self.started and not self._held and data.endswith(b"\n\n") and _may_matter(data) is None:
            self.events += data.count(b"\ndata:")  # nearly every piece of a stream
            self._bytes += len(data)
            return data
        for event in self._reader.feed(data):
            self._note(event)
        self._held += data
        end = len(self._held) - self._reader.held_bytes
        whole = bytes(self._held[:end])
        del self._held[:end]
        return whole

    def end(self) -> bytes:
        """See EventStream."""
        for event in self._reader.end():
            self._note(event)
        if not (self.done or self.failed):
            raise AttemptFailed("reset", "the stream ended before its message_stop")
        rest = bytes(self._held)
        self._held.clear()
        return rest

    def error_event(self, error: GatewayError) -> bytes:
        """See EventStream."""
        return as_event(error_told(error))

    def _note(self, event: Event) -> None:
        if _may_matter(event.data) is None and self.started:
            self.events += 1
            self._bytes += len(event.data) + len(event.name)
            return
        try:
            read = decode_event(event.data)
        except (msgspec.DecodeError, RecursionError) as error:
            if self.started:
                return  # not ours to judge once the stream runs: the caller gets what the backend sent
            raise AttemptFailed("protocol_error", f"an event that is none of Messages: {error}") from None
        if read.type == "error":
            self._fail(read.error or schema.ErrorDetail())
        elif read.type == "message_start" and read.message is not None:
            self.started = True
            self._reported = read.message.usage
            self.begun_usage = counted(self._reported)
        elif not self.started and read.type != "ping":
            raise AttemptFailed("protocol_error", "a stream that does not begin with its message_start")
        elif read.type == "message_delta":
            self._reported = merged(self._reported, read.usage)
            self.usage = counted(self._reported)
        elif read.type == "message_stop":
            self.done = True

    def _fail(self, detail: schema.ErrorDetail) -> None:
        if not self.started:
            raise failure_of_first(detail)
        if is_of_the_account(detail):
            raise AttemptFailed("error_in_body", f"an error in a stream: {detail.type[:64]}: {detail.message[:1000]}")
        self.failed = True
