"""Many callers at once over raw connections, each with what it got and when the first byte of it came."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support.client import request_bytes
from tests.support.limited import PATH

TIMEOUT_S = 60.0


@dataclass
class Got:
    """What one caller has had. Times are ``time.monotonic()``; ``first_at`` is that of the first byte of the body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    first_at: float = 0.0
    is_complete: bool = False

    @property
    def cache(self) -> str | None:
        """What the cache did."""
        return self.headers.get("x-llm-gateway-cache")

    @property
    def events(self) -> list[bytes]:
        """The events of a stream."""
        return [each + b"\n\n" for each in self.body.split(b"\n\n")[:-1]]

    @property
    def texts(self) -> list[str]:
        """The texts of its chunks."""
        chunks = [json.loads(each[6:]) for each in self.events if each != b"data: [DONE]\n\n"]
        found = [choice["delta"].get("content") for chunk in chunks for choice in chunk.get("choices", ())]
        return [each for each in found if each]

    @property
    def error(self) -> str | None:
        """The code of the error that ended a stream."""
        last = self.events[-1] if self.events else b""
        return str(json.loads(last[6:])["error"]["code"]) if last.startswith(b'data: {"error"') else None


class Caller:
    """One call under way; ``leave`` breaks it off."""

    def __init__(self, crowd: Crowd, port: int, request: bytes) -> None:
        self.got = Got()
        self._crowd = crowd
        self._writer: asyncio.StreamWriter | None = None
        self._done: Future[None] = asyncio.run_coroutine_threadsafe(self._run(port, request), crowd.loop)

    def result(self) -> Got:
        """What it got, waited for."""
        self._done.result(TIMEOUT_S)
        return self.got

    def leave(self, *, after_s: float = 0.0) -> None:
        """Reset the connection, now or in so many seconds."""
        loop = self._crowd.loop
        loop.call_soon_threadsafe(loop.call_later, after_s, self._abort)

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    async def _run(self, port: int, request: bytes) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                self._writer.write(request)
                await self._read(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                return
            finally:
                self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        got = self.got
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines[1:] if line)
        got.headers = {name.lower(): value for name, _, value in pairs}
        got.status = int(lines[0].split(" ")[1])
        if "content-length" in got.headers:
            got.body = await reader.readexactly(int(got.headers["content-length"]))
            got.first_at = time.monotonic()
            got.is_complete = True
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            got.first_at = got.first_at or time.monotonic()
            got.body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        got.is_complete = True


class Crowd:
    """An event loop in a thread that callers live on; a context manager."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def call(self, port: int, key: str, fields: dict[str, Any]) -> Caller:
        """One more caller."""
        return Caller(self, port, request_bytes(PATH, fields, key=key, headers={"connection": "close"}))

    def results(self, callers: Sequence[Caller]) -> list[Got]:
        """What all of them got."""
        return [each.result() for each in callers]
