"""Calls under limits whose fate can be told apart afterwards: each has a number, which its backend reports as input.

``Maker`` is the backend: it keeps its own count of what it made. ``make_call`` is the client: it stays or leaves.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.support.client import ConnectionEnded, request_bytes
from tests.support.gateway import GatewayProcess
from tests.support.scripts import Chat, Close, Pause, Received, Script, Tokens, error_reply, stream

Way = Literal["plain", "stream", "leave", "leave stream", "fail", "refuse", "silent", "break", "fall back"]
"""How a call goes: to its end, with a client that leaves, or with a backend that misbehaves.

``refuse`` is a 400 of the backend, ``silent`` reports no usage, ``break`` ends a stream early, with ``fall back`` only
the second backend of the scenario answers.
"""

LEFT, CUT, UNREACHED = 0, -1, -2
"""Besides statuses of HTTP: the client left; the gateway ended the connection; there was no gateway to connect to."""

FIRST_PROMPT: Final = 20
"""Tokens of input that call 0 has; each further call has one more, and none as many as its text has bytes."""

CALLS_MAX: Final = 60
MOST_OUTPUT: Final = 120
PLAIN_S: Final = 0.02
EVENT_S: Final = 0.006
DEAR: Final = "dear-model"
STREAMS: Final = frozenset({"stream", "leave stream", "break"})
LEAVING: Final = frozenset({"leave", "leave stream"})


@dataclass(frozen=True)
class Call:
    """One call of a tenant. ``at`` is the place of its gateway, ``stays_s`` how long a client that leaves waits."""

    tenant: str
    number: int
    way: Way
    key: str
    scenario: str
    at: int
    cap: int | None
    stays_s: float

    @property
    def prompt(self) -> int:
        """The tokens of input that its backend reports."""
        return FIRST_PROMPT + self.number


@dataclass(frozen=True)
class Fate:
    """What the client saw of a call. Times are time.monotonic(); ``killed``: its gateway was killed meanwhile."""

    call: Call
    status: int
    began_s: float
    ended_s: float
    text: str = ""
    killed: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether the client saw the end of a call of a gateway that lived on."""
        return self.status > 0 and not self.killed


@dataclass(frozen=True)
class Made:
    """What the backend made of a call: the tokens it reported (or would have), and when it surely worked on it."""

    output: int
    begins_s: float
    ends_s: float


class Maker:
    """The backends' own count, by tenant and number. Makes all the tokens that it may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.made: dict[tuple[str, int], Made] = {}
        self.twice: list[str] = []

    def __call__(self, request: Received) -> Script:
        """The script for one request; slow enough that calls overlap."""
        fields = request.json()
        text: str = fields["messages"][0]["content"]
        tenant, number, way = text.split("|")[:3]
        if way == "fail" or (way == "fall back" and request.model() == DEAR):
            return error_reply(500)
        if way == "refuse":
            return error_reply(400)
        given = [fields[name] for name in ("max_tokens", "max_completion_tokens") if fields.get(name) is not None]
        output = min([MOST_OUTPUT, *given])
        chat = Chat(usage=None if way == "silent" else Tokens(FIRST_PROMPT + int(number), output))
        steps, lasts_s = self._steps(chat, request, way)
        made = Made(output, request.received_at, request.received_at + lasts_s)
        with self._lock:
            if (tenant, int(number)) in self.made:
                self.twice.append(text)
            self.made[tenant, int(number)] = made
        return Script(steps)

    def _steps(self, chat: Chat, request: Received, way: str) -> tuple[Any, float]:
        if not request.wants_stream():
            return (Pause(PLAIN_S), *chat(request).steps), PLAIN_S
        events = chat.events(request.model(), with_usage=request.wants_usage())
        if way == "break":
            return stream(events[:3], delay_s=EVENT_S, ending=(Close(),)).steps, 2 * EVENT_S
        return stream(events, delay_s=EVENT_S).steps, (len(events) - 1) * EVENT_S


def fields_of(call: Call) -> dict[str, Any]:
    """The request's body."""
    content = f"{call.tenant}|{call.number}|{call.way}|".ljust(CALLS_MAX, ".")
    body: dict[str, Any] = {"model": call.scenario, "messages": [{"role": "user", "content": content}]}
    if call.way in STREAMS:
        body["stream"] = True
    return body if call.cap is None else body | {"max_tokens": call.cap}


def make_call(gateway: GatewayProcess, call: Call, secret: str) -> Fate:
    """Make a call; never raises for what becomes of it."""
    began_s = time.monotonic()
    try:
        client = gateway.client()
    except OSError:
        return Fate(call, UNREACHED, began_s, time.monotonic())
    with client:
        try:
            client.send(request_bytes("/v1/chat/completions", fields_of(call), key=secret))
            if call.way == "leave stream":
                client.read_until(b"\r\n\r\n")
            if call.way in LEAVING:
                time.sleep(call.stays_s)
                return Fate(call, LEFT, began_s, time.monotonic())
            answer = client.read_response()
            return Fate(call, answer.status, began_s, time.monotonic(), answer.body.decode())
        except (ConnectionEnded, OSError):
            return Fate(call, CUT, began_s, time.monotonic())
