"""What a scripted upstream does with a request, as values: steps, scripts, and the well-formed replies.

A ``Script`` is a list of steps that run once a request has arrived as far as the script asks. A ``Behaviour`` is a
script or a function from the request to one. Everything is plain bytes on the wire, so that a script can say what no
HTTP library would send; the broken ones are in ``tests.support.faults``.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Framing = Literal["length", "chunked", "close"]
Headers = Sequence[tuple[str, str]]

JSON_TYPE = ("content-type", "application/json")
SSE_TYPE = ("content-type", "text/event-stream; charset=utf-8")
LAST_CHUNK = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Send:
    """Write these bytes and go on when the kernel has taken them all (so back-pressure is felt)."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Hang:
    """Do nothing more on this connection until the peer leaves or the upstream stops."""


@dataclass(frozen=True)
class Close:
    """End the connection with a FIN."""


@dataclass(frozen=True)
class Reset:
    """End the connection with a RST (SO_LINGER 0)."""


@dataclass(frozen=True)
class StopReading:
    """Stop reading what the peer sends, so that its writes stall once the buffers are full."""


class Gate:
    """A step that waits until the test opens it; the test can wait until a script has come here.

    One gate may be passed by many connections; ``reached`` counts them.
    """

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._arrivals = threading.Semaphore(0)
        self.reached = 0

    def open(self) -> None:
        """Let every script pass, now and later."""
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """Whether scripts pass."""
        return self._opened.is_set()

    def arrive(self) -> None:
        """Called by the upstream when a script comes to the gate."""
        self.reached += 1
        self._arrivals.release()

    def wait_reached(self, timeout_s: float = 5.0) -> float:
        """Wait until one more script has come here; the monotonic time at which the wait ended."""
        if not self._arrivals.acquire(timeout=timeout_s):
            raise AssertionError(f"no script reached the gate within {timeout_s} s")
        return time.monotonic()


Step = Send | Pause | Hang | Close | Reset | StopReading | Gate
Moment = Literal["connect", "first_byte", "head", "request"]


@dataclass(frozen=True)
class Script:
    """Steps, and the moment of a request at which they start.

    ``first_byte``: as soon as any byte of the request is there; ``head``: when its head is complete; ``request``:
    when its body is. ``connect``: when the connection is, before any request (see ``ScriptedUpstream.on_connect``).
    After the last step the connection serves its next request.
    """

    steps: tuple[Step, ...]
    at: Moment = "request"

    def then(self, *steps: Step) -> Script:
        """The same script with more steps at its end."""
        return Script(self.steps + steps, self.at)


@dataclass(frozen=True)
class Received:
    """A request as it arrived. Header names are lower case; ``received_at`` is ``time.monotonic()`` at its end."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection_id: int
    received_at: float

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def wants_stream(self) -> bool:
        """Whether the body asks for a stream."""
        return self._field("stream") is True

    def wants_usage(self) -> bool:
        """Whether the body asks for the usage chunk of a stream (``stream_options.include_usage``)."""
        options = self._field("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def model(self) -> str:
        """The model that the body names, or an empty string."""
        return str(self._field("model") or "")

    def _field(self, name: str) -> Any:
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document.get(name) if isinstance(document, dict) else None


Behaviour = Script | Callable[[Received], Script]


@dataclass(frozen=True)
class Tokens:
    """Usage as a backend reports it, in tokens."""

    prompt: int = 11
    completion: int = 3
    cached: int = 0

    def as_json(self) -> dict[str, Any]:
        """The OpenAI ``usage`` object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True)
class Chat:
    """A well-behaved OpenAI chat backend, plain or streaming as the request asks.

    A stream has one chunk per piece of ``pieces`` after the role chunk, ``delay_s`` seconds apart, and a usage chunk
    where the request asks for one. ``usage`` of None reports none at all.
    """

    pieces: tuple[str, ...] = ("Hello", " from", " upstream")
    usage: Tokens | None = field(default_factory=Tokens)
    delay_s: float = 0.0
    headers: Headers = ()
    reply_id: str = "chatcmpl-scripted"

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        if request.wants_stream():
            chunks = [*self.events(request.model(), with_usage=request.wants_usage())]
            return stream(chunks, delay_s=self.delay_s, headers=self.headers)
        return reply(body=self.body(request.model()), headers=[JSON_TYPE, *self.headers])

    def body(self, model: str) -> bytes:
        """The plain reply's body."""
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(self.pieces)}, "logprobs": None}
        document = self._envelope("chat.completion", model, [choice | {"finish_reason": "stop"}])
        if self.usage is not None:
            document["usage"] = self.usage.as_json()
        return compact(document)

    def events(self, model: str, *, with_usage: bool = False) -> list[bytes]:
        """The stream's events, each with its blank line, ``[DONE]`` last."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in self.pieces]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        documents = [self._envelope("chat.completion.chunk", model, [choice]) for choice in choices]
        if with_usage and self.usage is not None:
            usage = {"usage": self.usage.as_json()}
            documents.append(self._envelope("chat.completion.chunk", model, []) | usage)
        return [event(document) for document in documents] + [DONE]

    def _envelope(self, kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.reply_id, "object": kind, "created": 1760000000, "model": model, "choices": choices}


def compact(document: object) -> bytes:
    """JSON without spaces, as most servers send it."""
    return json.dumps(document, separators=(",", ":")).encode()


def event(document: object) -> bytes:
    """One server-sent event with a JSON payload."""
    return b"data: " + compact(document) + b"\n\n"


def head(status: int, headers: Iterable[tuple[str, str]], reason: str = "Scripted") -> bytes:
    """A response head, headers in the order given, nothing added."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def framing_headers(framing: Framing, length: int) -> list[tuple[str, str]]:
    """The header that says how the body ends."""
    if framing == "length":
        return [("content-length", str(length))]
    return [("transfer-encoding", "chunked")] if framing == "chunked" else [("connection", "close")]


def reply(
    status: int = 200,
    *,
    body: bytes = b"",
    headers: Headers = (JSON_TYPE,),
    framing: Framing = "length",
    at: Moment = "request",
) -> Script:
    """A whole reply in one write."""
    start = head(status, [*headers, *framing_headers(framing, len(body))])
    if framing == "chunked":
        return Script((Send(start + (chunk(body) if body else b"") + LAST_CHUNK),), at)
    ending: tuple[Step, ...] = (Close(),) if framing == "close" else ()
    return Script((Send(start + body), *ending), at)


def json_reply(document: object, status: int = 200, *, headers: Headers = ()) -> Script:
    """A reply with a JSON body."""
    return reply(status, body=compact(document), headers=[JSON_TYPE, *headers])


def error_reply(status: int, message: str = "scripted failure", *, headers: Headers = (), code: str = "bad") -> Script:
    """An OpenAI error envelope with any status, e.g. 429 with ``retry-after``."""
    error = {"message": message, "type": "scripted_error", "param": None, "code": code}
    return json_reply({"error": error}, status, headers=headers)


def stream(
    chunks: Sequence[bytes],
    *,
    delay_s: float = 0.0,
    headers: Headers = (),
    framing: Framing = "chunked",
    ending: Sequence[Step] | None = None,
) -> Script:
    """A server-sent-event reply: one write per item of ``chunks``, which need not be whole events.

    ``ending`` replaces the proper end of the body, for streams that break off.
    """
    length = sum(map(len, chunks))
    steps: list[Step] = [Send(head(200, [SSE_TYPE, *headers, *framing_headers(framing, length)]))]
    for index, data in enumerate(chunks):
        if index and delay_s:
            steps.append(Pause(delay_s))
        steps.append(Send(chunk(data) if framing == "chunked" else data))
    if ending is not None:
        steps += ending
    elif framing != "length":
        steps.append(Send(LAST_CHUNK) if framing == "chunked" else Close())
    return Script(tuple(steps))


def split_at(data: bytes, points: Iterable[int]) -> list[bytes]:
    """``data`` cut at these offsets (0..len), empty pieces left out."""
    cuts = [0, *sorted(points), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def drip(data: bytes, *, piece: int = 1, delay_s: float = 0.01) -> tuple[Step, ...]:
    """``data`` in pieces of ``piece`` bytes (>= 1) with a pause of ``delay_s`` seconds after each."""
    steps: list[Step] = []
    for start in range(0, len(data), piece):
        steps += [Send(data[start : start + piece]), Pause(delay_s)]
    return tuple(steps)
