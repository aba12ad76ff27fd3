"""A load balancer as Kubernetes has one: it spreads connections, not requests, over pods that are known to be ready.

It looks at ``/readyz`` of each pod as the kubelet does. What it has seen, or was told of a pod that is to end, takes
``lag_s`` until new connections go by it, as endpoints take their time to every node. Connections that are open stay
where they are. A pod that refuses a connection is a failure that the client sees: nothing is tried again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

PROBE_S = 0.05
_PROBE = b"GET /readyz HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n"


@dataclass(eq=False)
class Pod:
    """One of those behind it: where it serves and is looked at, whether connections go there, how many did."""

    port: int
    management_port: int
    seen_ready: bool = False
    is_leaving: bool = False
    takes_new: bool = False
    connections: int = 0
    open_now: int = 0


class Balancer:
    """Listens on ``port`` from entry to exit, in the running loop."""

    def __init__(self, lag_s: float) -> None:
        self.lag_s = lag_s
        self.pods: list[Pod] = []
        self._turns = itertools.count()
        self._clients: set[_Client] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Client(self._choose, self._clients), "127.0.0.1", 0, backlog=4096
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._watching = loop.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        for client in tuple(self._clients):
            await client.end()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    def add(self, port: int, management_port: int) -> Pod:
        """One more pod; connections go there once it was seen ready."""
        pod = Pod(port, management_port)
        self.pods.append(pod)
        return pod

    def leave(self, pod: Pod) -> None:
        """Take a pod out that is to end: it counts as unready from now on, whatever it says."""
        pod.is_leaving = True
        self._spread(pod, takes_new=False)

    def _spread(self, pod: Pod, *, takes_new: bool) -> None:
        asyncio.get_running_loop().call_later(self.lag_s, setattr, pod, "takes_new", takes_new)

    def _client(self) -> _Client:
        return _Client(self._choose, self._clients)

    def _choose(self) -> Pod | None:
        ready = [pod for pod in self.pods if pod.takes_new]
        return ready[next(self._turns) % len(ready)] if ready else None

    async def _watch(self) -> None:
        while True:
            for pod in self.pods:
                await self._look_at(pod)
            await asyncio.sleep(PROBE_S)

    async def _look_at(self, pod: Pod) -> None:
        is_ready = await _is_ready(pod.management_port)
        if is_ready != pod.seen_ready and not pod.is_leaving:
            pod.seen_ready = is_ready
            self._spread(pod, takes_new=is_ready)


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_PROBE)
            answer = await reader.read(4096)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.startswith(b"HTTP/1.1 200 ")


class _Half(asyncio.Protocol):
    """One side of a connection; what it reads the other side writes."""

    transport: asyncio.Transport
    other: _Half | None = None
    _is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._is_over = True
        if self.other is None:
            return False
        if self.other._is_over:  # of the same kind
            self.other.transport.close()
            return False
        self.other.transport.write_eof()
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close() if exc is None else self.other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()


class _Client(_Half):
    """The side of the client; what comes before there is somebody to read it waits."""

    def __init__(self, choose: Callable[[], Pod | None], clients: set[_Client]) -> None:
        self._choose, self._clients = choose, clients
        self._pod: Pod | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._clients.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        pod = self._choose()
        if pod is None:
            self.transport.abort()
            return
        try:
            _, server = await asyncio.get_running_loop().create_connection(_Half, "127.0.0.1", pod.port)
        except OSError:
            self.transport.abort()
            return
        self._pod = pod
        pod.connections += 1
        pod.open_now += 1
        self.other, server.other = server, self
        server.transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._clients.discard(self)
        if self._pod is not None:
            self._pod.open_now -= 1

    async def end(self) -> None:
        """Cut both sides."""
        self._connecting.cancel()
        self.transport.abort()
        await asyncio.gather(self._connecting, return_exceptions=True)
        if self.other is not None:
            self.other.transport.abort()
