"""Callers that ask one scenario at a steady pace and keep what each answer was, when it was asked for and had."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

ANSWER_S_MAX = 20.0


@dataclass(frozen=True)
class Answered:
    """One answer; times are monotonic seconds."""

    id: str
    scenario: str
    status: int
    backend: str
    began: float
    ended: float
    content: bytes


@dataclass
class Asked:
    """What a group of callers saw, in the order in which it ended."""

    answers: list[Answered] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stopping: bool = False


@dataclass(frozen=True)
class Pace:
    """Where and how often a caller asks."""

    port: int
    key: str
    scenario: str
    every_s: float
    stream: bool = False


async def ask_on(pace: Pace, asked: Asked, new_id: Callable[[], str]) -> None:
    """Ask until ``asked.stopping``. What is no answer is an error, and ends this caller."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", pace.port)
        await asyncio.sleep(random.uniform(0, pace.every_s))
        due = time.monotonic()
        while not asked.stopping:
            request_id = new_id()
            async with asyncio.timeout(ANSWER_S_MAX):
                asked.answers.append(await _ask(reader, writer, pace, request_id))
            due = max(due + pace.every_s, time.monotonic() - pace.every_s)  # catch up one call at most
            await asyncio.sleep(due - time.monotonic())
        writer.close()
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        asked.errors.append(f"{pace.scenario}: {type(error).__name__}: {error}")


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: Pace, request_id: str) -> Answered:
    message = {"model": pace.scenario, "messages": [{"role": "user", "content": "hi"}], "stream": pace.stream}
    body = json.dumps(message).encode()
    began = time.monotonic()
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {pace.key}\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = _field(head, b"content-length")
    content = await reader.readexactly(int(length)) if length else await _chunks(reader)
    backend = _field(head, b"x-llm-gateway-backend").decode()
    return Answered(request_id, pace.scenario, int(head[9:12]), backend, began, time.monotonic(), content)


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n%b: " % name)[2].partition(b"\r\n")[0]


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    content = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        content += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return content
