"""A TCP relay in the test's event loop or one of its own: it delays, cuts and holds what passes, and speaks TLS."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self


class Relay:
    """Relays connections of 127.0.0.1:``port`` to ``target_port``, which may change for those to come.

    ``delay_s`` holds back each piece of an answer, in order. While ``flowing`` is clear answers are kept, while
    ``asking`` is commands are; what is kept when its connection is cut is lost. ``cut_after`` closes each connection
    after so many bytes of answers.
    """

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay_s = 0.0
        self.cut_after: int | None = None
        self.connections = 0
        self.writes = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.asking = asyncio.Event()
        self.asking.set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Its address for a client."""
        return f"{'redis' if self._tls is None else 'rediss'}://127.0.0.1:{self.port}/0"

    def do(self, *actions: Callable[[], object]) -> None:
        """Call these from another thread than the relay's."""
        for action in actions:
            self._loop.call_soon_threadsafe(action)

    def cut(self) -> None:
        """Close every connection at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(behind_writer)
        try:
            await asyncio.gather(self._ask(reader, behind_writer), self._answer(behind_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, behind_writer):
                self._writers.discard(each)
                each.transport.abort()
            self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**20):
            self.writes += 1
            await self.asking.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        pump = loop.create_task(self._pump(pieces, writer))
        self._tasks.add(pump)
        try:
            while data := await reader.read(2**16):
                pieces.put_nowait((loop.time() + self.delay_s, data))
        finally:
            pump.cancel()
            self._tasks.discard(pump)
        raise ConnectionResetError

    async def _pump(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        sent = 0
        while True:
            at, data = await pieces.get()
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            await self.flowing.wait()
            room = len(data) if self.cut_after is None else max(self.cut_after - sent, 0)
            writer.write(data[:room])
            sent += len(data)
            if room < len(data):
                await writer.drain()
                writer.close()


@contextmanager
def relay_in_thread(port: int) -> Iterator[Relay]:
    """A relay to ``port`` with a loop and a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    relay = Relay(port)

    def wait(work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    wait(relay.__aenter__())
    try:
        yield relay
    finally:
        wait(relay.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
