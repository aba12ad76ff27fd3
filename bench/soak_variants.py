"""The model server of the soaks of rollouts and reloads: it does what the name of the model says, and says what it saw.

``python -m bench.soak_variants PORT``. ``fails:0.2`` answers a fifth of its requests with 500, ``late:0.8`` streams its
first token after so many seconds, ``marks`` takes a while and answers with the marks that the request carries: each
part of it that a registry decides. Prints ``ready`` when it listens and ends with its parent's pipe.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from typing import Any, cast

import uvloop

from bench import upstream, wire

MARK_HEADER = "x-mark"
_PAUSE_S = (0.02, 0.3)  # of an answer with marks: many requests are under way while the registry changes
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MARK = re.compile(rb"\r\n%b: *(\d+)" % MARK_HEADER.encode(), re.IGNORECASE)
_REFUSED = b"HTTP/1.1 500 Sorry\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Variant(asyncio.Protocol):
    """One connection; requests come one at a time."""

    def __init__(self) -> None:
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
        self._answer(data[:end], json.loads(data[end + 4 :]))

    def _answer(self, head: bytes, request: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        kind, _, value = str(request["model"]).partition(":")
        if kind == "fails" and random.random() < float(value):
            self._transport.write(_REFUSED)
        elif kind == "marks":
            loop.call_later(random.uniform(*_PAUSE_S), self._transport.write, _whole(_marks(head, request, value)))
        elif request.get("stream"):
            pause_s = float(value) if kind == "late" else 0.0
            stream = wire.STREAM_HEAD + wire.as_chunk(wire.stream_event("soak", "so")) + upstream.ENDING
            loop.call_later(pause_s, self._transport.write, stream)
        else:
            self._transport.write(_whole("so it is"))


def _marks(head: bytes, request: dict[str, Any], model: str) -> str:
    """The marks of the backend's name of its model, its header, the scenario's parameters and its prompt."""
    found = _MARK.search(head)
    prompt = request["messages"][0]["content"].removeprefix("mark ")
    return " ".join([model, found[1].decode() if found else "none", str(request.get("seed")), prompt])


def _whole(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    document = {"id": "soak", "object": "chat.completion", "created": 1760000000, "model": "soak", "choices": [choice]}
    body = json.dumps(document | {"usage": wire.usage()}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


if __name__ == "__main__":
    uvloop.run(upstream.serve(int(sys.argv[1]), Variant))
