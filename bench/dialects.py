"""What a translation costs: calls that are translated against the same calls that pass, in one gateway and one round.

Three ways: a caller of Chat Completions before Anthropic, and callers of Anthropic Messages and of OpenAI Responses
before a backend of chat completions. What is told is how much more CPU they take than chat completions that pass, per
request, and per piece of a stream that comes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import process, wire
from bench.candidates import KEY, Candidate, Launch, Running, gateway_launch, gateway_version, registry
from bench.client import Load, Window, drive
from tests.support.documents import Document, backend, scenario

CONNECTIONS = 32


@dataclass(frozen=True)
class Way:
    """A path, its body, and the rows that its differences go to; ``stream`` is the model that streams."""

    path: str
    body: Callable[..., bytes]
    whole: str
    stream: str
    row: str = ""


PASSING = Way(wire.CHAT_PATH, wire.chat_body, wire.PLAIN, wire.BURST)
WAYS = (
    Way(wire.CHAT_PATH, wire.chat_body, wire.CLAUDE, wire.CLAUDE_BURST, "to-messages"),
    Way(wire.MESSAGES_PATH, wire.messages_body, wire.PLAIN, wire.BURST, "from-messages"),
    Way(wire.RESPONSES_PATH, wire.responses_body, wire.PLAIN, wire.BURST, "from-responses"),
)


def translating() -> Candidate:
    """The gateway with backends of both dialects."""
    return Candidate("gateway between dialects", gateway_version, _launch)


def _launch(folder: Path, port: int, upstream_port: int) -> Launch:
    url = f"http://127.0.0.1:{upstream_port}/v1"
    more: list[Document] = [
        *(backend(f"backend-{name}", url, provider="anthropic", model=name) for name in wire.CLAUDE_MODELS),
        *(scenario(name, f"backend-{name}") for name in wire.CLAUDE_MODELS),
    ]
    return gateway_launch(folder, port, [*registry(upstream_port), *more])


def measure(each: Running, seconds: float, add: Callable[[str, float], None]) -> None:
    """One round: every way against what passes; ``add`` is told of row and microseconds."""
    passing = _request_us(each, PASSING, seconds)
    streaming = _stream_us(each, PASSING, seconds)
    for way in WAYS:
        add(way.row, _request_us(each, way, seconds) - passing)
        add(f"{way.row}-chunk", (_stream_us(each, way, seconds) - streaming) / wire.CHUNKS_PER_STREAM)


def _request_us(each: Running, way: Way, seconds: float) -> float:
    window = _run(each, wire.request(each.port, way.body(way.whole), KEY, way.path), None, seconds)
    return window.cpu_ns / window.answers / 1e3


def _stream_us(each: Running, way: Way, seconds: float) -> float:
    request = wire.request(each.port, way.body(way.stream, stream=True), KEY, way.path)
    window = _run(each, request, _events_of(each, request), seconds)
    return window.cpu_ns / window.answers / 1e3


def _events_of(each: Running, request: bytes) -> int:
    """How many events one such stream has: more than the backend's in some dialects."""
    events = uvloop.run(_one(each.port, request)).count(b"data: ")
    if events < wire.CHUNKS_PER_STREAM:
        raise process.Malfunction(f"{each.name}: a stream of {events} events")
    return events


async def _one(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 10)
    finally:
        writer.close()


def _run(each: Running, request: bytes, events: int | None, seconds: float) -> Window:
    load = Load(each.port, request, CONNECTIONS, events)
    window, failures = uvloop.run(drive(load, seconds / 5, seconds, each.cpu_ns))
    if failures:
        raise process.Malfunction(f"{each.name}: requests failed: {failures}")
    return window
