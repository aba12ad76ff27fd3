"""What a dialect has to offer, on either side of the gateway. Pure: values in, values out.

A call goes through two translations at most, and both meet in the form of ``gateway.dialects.form``:

    caller's dialect --ClientCall.read--> ChatRequest --a provider's ``translate``--> backend's dialect
    caller's dialect <--ClientCall.whole, events-- chat completion <--Translation.whole, translator-- backend's dialect

Invariants:
- A caller that speaks what the backend speaks gets its request and its answer through as they are: then
  ``Translation.dialect`` is the caller's, and nothing of the answer is translated on either side.
- What a backend cannot do is refused with a 400 that names the field, or left out and noted in ``Outgoing.dropped``
  where the scenario is lenient. Nothing is lost silently.
- A stream is translated event by event; nothing waits for its end, and nothing is kept but what the next event needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from gateway.dialects.openai.reply import ReplyFacts
from gateway.errors import GatewayError
from gateway.model import Backend, ChatRequest, Dialect, Usage


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it is sent: ``path`` follows the backend's own, ``lines`` are further header lines, each with CRLF.

    ``dropped`` names what was left out of it, by the fields of a chat request.
    """

    path: str
    body: bytes
    lines: bytes = b""
    dropped: tuple[str, ...] = ()


class Translator(Protocol):
    """A stream on its way from one dialect to another."""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece, cut anywhere; returns whole events, maybe none. Raises AttemptFailed."""

    def end(self) -> bytes:
        """The stream came to its end; returns what is left to say.

        Raises AttemptFailed where a backend's stream ended before it should.
        """


class EventStream(Protocol):
    """Whole events on their way to the caller, read on the way: what ``ChatStream`` is for chat completions.

    ``feed`` and ``end`` return what is passed on. ``started``: an event with data came; ``done``: the last one did;
    ``failed``: one that reports an error. ``usage`` is the last that was reported; ``events`` and ``output_bytes`` say
    how much was streamed, for an estimate where none was. ``begun_usage`` is what was reported at
    the start, whose input stands where the end never comes.
    """

    started: bool
    done: bool
    failed: bool
    usage: Usage | None
    begun_usage: Usage | None
    events: int

    @property
    def output_bytes(self) -> int:
        """About how many bytes of text were streamed."""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; returns the whole events to pass on, maybe none. Raises AttemptFailed."""

    def end(self) -> bytes:
        """The stream came to its end; returns what was held back. Raises AttemptFailed where it is cut."""

    def error_event(self, error: GatewayError) -> bytes:
        """How ``error`` is told after the stream has begun."""


class Translation(Protocol):
    """One call of one backend: its request, and the way back of its answer."""

    dialect: Dialect
    """In which the answer is told: ``chat``, or the caller's own where it passes through."""

    outgoing: Outgoing

    def whole(self, body: bytes) -> tuple[bytes, ReplyFacts]:
        """The answer to a request that is not streamed. Raises AttemptFailed where it is none."""

    def refusal(self, status: int, body: bytes) -> bytes:
        """The body that tells the caller why the backend refused (400, 413, 415, 422); an error in ``dialect``.

        Raises AttemptFailed where it refused for what is no fault of the caller, such as the gateway's own credential.
        """

    def events(self, max_event_bytes: int) -> EventStream:
        """What counts and passes on the events of a streamed answer, told in ``dialect``."""

    def translator(self, max_event_bytes: int) -> Translator | None:
        """What makes them of the backend's stream; None where they pass as they come."""


Translate = Callable[[ChatRequest, Backend], Translation]
"""How a provider is spoken to. Raises InvalidRequest for what it cannot do."""

RetryAfter = Callable[[bytes], float | None]
"""How long the body of a 429 or 503 asks to wait, in seconds; None where it does not say."""

HeaderFields = list[tuple[bytes, bytes]]


class ErrorDialect(Protocol):
    """How a dialect tells of errors of the gateway's own."""

    def status(self, error: GatewayError) -> int:
        """The status of an answer that tells of ``error``."""

    def error_body(self, error: GatewayError) -> bytes:
        """The body of an answer; holds the public text only."""

    def error_event(self, error: GatewayError) -> bytes:
        """The last event of a stream that has begun."""

    def header_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> HeaderFields:
        """Header fields of an answer under the names that callers of this dialect look for."""


class ClientCall(Protocol):
    """One call of a caller: its request read, and the way back of its answer."""

    def read(self, body: bytes) -> ChatRequest:
        """The request. Raises InvalidRequest naming the field."""

    def whole(self, body: bytes) -> bytes:
        """A chat completion as the caller's dialect tells it. Raises UpstreamFailed where it is none."""

    def refusal(self, status: int, body: bytes) -> bytes:
        """A backend's refusal, which is an error of the chat dialect or any other text, as this one tells it."""

    def events(self) -> Translator:
        """What makes events of this dialect of a streamed chat completion, the events of errors included."""


class NamedDialect(ErrorDialect, Protocol):
    """A dialect that callers speak."""

    @property
    def name(self) -> Dialect:
        """What it is called."""


class ClientDialect(NamedDialect, Protocol):
    """One whose calls need nothing but their body."""

    def call(self, max_members: int) -> ClientCall:
        """For one call; ``max_members`` bounds the top-level members of its body."""
