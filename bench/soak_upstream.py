"""The model server of the soak of limits: it makes as many tokens as it may, and counts what it was made to do.

``python -m bench.soak_upstream PORT``. What it does is chosen by the request's ``model``, see ``BEHAVIOURS``. Each
request counts when it has come, with the usage that its answer reports, by model and UTC day; ``GET /counts`` gives
the counts. What a request may make at most is ``max_tokens`` or ``max_completion_tokens`` of each of its ``n`` choices,
else ``MOST``. Prints ``ready`` when it listens and ends with its parent's pipe.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import uvloop

from bench import upstream, wire

MOST = 400
"""Tokens of one choice that nobody limits."""

PRICE = {"inputPerMillion": "0.123456789", "outputPerMillion": "1.987654321"}
"""USD; a token has no whole number of nano-USD, so that rounding matters."""

_NANO_USD_PER_TOKEN = [Fraction(each) * 1000 for each in PRICE.values()]
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PIECES = 3
_NAMES = ("requests", "input", "output", "cost")


@dataclass(frozen=True)
class Behaviour:
    """The output tokens of a choice, at least and at most, None: all that it may; seconds that an answer takes."""

    output: tuple[int, int] | None
    pause_s: tuple[float, float] = (0.005, 0.04)


TYPICAL, GREEDY, STEADY = "typical", "greedy", "steady"
BEHAVIOURS = {
    TYPICAL: Behaviour((20, 200)),
    GREEDY: Behaviour(None),
    STEADY: Behaviour((10, 10), (0.01, 0.01)),
}
"""By the first part of a model's name, which ends with ``/``."""


def cost_nano_usd(prompt: int, completion: int) -> int:
    """The price of one call in nano-USD, rounded half up."""
    per_input, per_output = _NANO_USD_PER_TOKEN
    return int(prompt * per_input + completion * per_output + Fraction(1, 2))


def usage_of(request: dict[str, Any]) -> tuple[int, int]:
    """The tokens of input and of output that a request makes; less input than it has bytes."""
    behaviour = BEHAVIOURS[request["model"].partition("/")[0]]
    caps = [request[name] for name in ("max_tokens", "max_completion_tokens") if request.get(name) is not None]
    most = min(caps, default=MOST)
    each = most if behaviour.output is None else min(most, random.randint(*behaviour.output))
    return sum(len(each["content"]) for each in request["messages"]) // 4 + 3, each * (request.get("n") or 1)


class Counts:
    """What was done so far: requests, tokens and nano-USD by model and UTC day."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, model: str, prompt: int, completion: int) -> None:
        """One more request."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        for name, value in zip(_NAMES, (1, prompt, completion, cost_nano_usd(prompt, completion)), strict=True):
            self._counts[model, day, name] += value

    def document(self) -> bytes:
        """All of them, as JSON."""
        return json.dumps([[*place, value] for place, value in self._counts.items()]).encode()


class Spending(asyncio.Protocol):
    """One connection; requests come one at a time."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        data = self._pending + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 1) if end > 0 else None
        if end < 0 or (length and len(data) < end + 4 + int(length[1])):
            self._pending = data
            return
        self._pending = b""
        if data.startswith(b"GET /counts "):
            self._transport.write(_whole(self._counts.document()))
        else:
            self._answer(json.loads(data[end + 4 :]))

    def _answer(self, request: dict[str, Any]) -> None:
        prompt, completion = usage_of(request)
        self._counts.add(request["model"], prompt, completion)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        loop = asyncio.get_running_loop()
        pause_s = random.uniform(*BEHAVIOURS[request["model"].partition("/")[0]].pause_s)
        if not request.get("stream"):
            loop.call_later(pause_s, self._transport.write, _whole(_completion(usage)))
            return
        asked = (request.get("stream_options") or {}).get("include_usage")
        pieces = [wire.STREAM_HEAD, *(wire.as_chunk(wire.stream_event("soak", f"{n}")) for n in range(_PIECES))]
        pieces.append((wire.as_chunk(_usage_event(usage)) if asked else b"") + upstream.ENDING)
        for number, piece in enumerate(pieces):
            loop.call_later(pause_s * (number + 1) / len(pieces), self._transport.write, piece)


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _completion(usage: dict[str, int]) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "so it is"}, "finish_reason": "stop"}
    head = {"id": "soak", "object": "chat.completion", "created": 1760000000, "model": "soak"}
    return json.dumps(head | {"choices": [choice], "usage": usage}).encode()


def _usage_event(usage: dict[str, int]) -> bytes:
    head = {"id": "soak", "object": "chat.completion.chunk", "created": 1760000000, "model": "soak"}
    return b"data: " + json.dumps(head | {"choices": [], "usage": usage}).encode() + b"\n\n"


if __name__ == "__main__":
    counts = Counts()
    uvloop.run(upstream.serve(int(sys.argv[1]), lambda: Spending(counts)))
