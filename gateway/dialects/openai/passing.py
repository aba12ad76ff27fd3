"""Answers that pass as they come: bytes that mean nothing here, such as sound, and events, whose usage is read.

Invariant: what ``feed`` and ``end`` return, joined, is what came in, byte for byte.

Sources: https://platform.openai.com/docs/api-reference/audio/speech-audio-done-event,
https://platform.openai.com/docs/api-reference/audio/transcript-text-done-event,
https://platform.openai.com/docs/api-reference/images-streaming (each ends with an event that has ``usage``).
"""

from __future__ import annotations

import msgspec

from gateway.dialects.openai.errors import error_event
from gateway.dialects.openai.operations import reported
from gateway.dialects.openai.stream import ChatStream
from gateway.dialects.openai.usage import ABSENT
from gateway.errors import GatewayError
from gateway.model import Usage


class Passing:
    """Bytes; see ``EventStream``. Nothing can be told after the first of them: where they break off, they just end."""

    def __init__(self) -> None:
        self.started = self.done = self.failed = False
        self.usage: Usage | None = None
        self.begun_usage: Usage | None = None
        self.events = 0

    @property
    def output_bytes(self) -> int:
        """No text."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """As they came."""
        self.started = True
        return data

    def end(self) -> bytes:
        """Nothing was held back."""
        self.done = True
        return b""

    def error_event(self, error: GatewayError) -> bytes:  # noqa: ARG002  # whatever it is
        """None."""
        return b""


class _Event(msgspec.Struct):
    type: str = ""
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_decode = msgspec.json.Decoder(_Event).decode


class PassingEvents(ChatStream):
    """Events; only those that may hold usage or an error are decoded."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(drop_usage=False, max_event_bytes=max_event_bytes)
        self._is_measured = True

    def error_event(self, error: GatewayError) -> bytes:
        """See EventStream."""
        return error_event(error)

    def _read(self, payload: bytes, size: int) -> bool:  # noqa: ARG002  # nothing is estimated of it
        self.started = True
        if payload.startswith(b"[DONE]"):
            self.done = True
            return False
        try:
            event = _decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return False
        if event.error != ABSENT or event.type == "error":
            self.failed = True
        self.usage = reported(event.usage) or self.usage
        self.done = self.done or event.type.endswith((".done", ".completed"))
        return False
