"""A Valkey that stalls for a moment, that may have lost writes, or that is loading its data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Self

import hiredis
import pytest

from gateway.errors import RedisUnanswered, RedisUnavailable
from gateway.redis.link import SHORT_LIFE_S
from gateway.redis.names import tenant_key
from tests.support.redis_lane import Remembered, lane_to, outcome, run, until_answered
from tests.support.relay import Relay
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

KEY = tenant_key("acme", "test")


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that a test may treat badly."""
    with Valkey() as server:
        yield server


class Loading:
    """A server that says OK to everything but, while it is loading, to nothing but the introduction of a client."""

    def __init__(self) -> None:
        self.is_loading = False
        self.asked = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = hiredis.Reader()
        while data := await reader.read(65536):
            requests.feed(data)
            while isinstance(request := requests.gets(), list):
                self.asked += 1
                writer.write(self._answer(bytes(request[0])))
        writer.close()

    def _answer(self, name: bytes) -> bytes:
        if self.is_loading and name not in {b"INFO", b"CLIENT"}:
            return b"-LOADING the data\r\n"
        return {b"PING": b"+PONG\r\n", b"INFO": b"$0\r\n\r\n"}.get(name, b"+OK\r\n")


def test_a_short_stall_opens_nothing_however_many_commands_meet_it(valkey: Valkey) -> None:
    """Those that meet it are unanswered; all that fail within one deadline are one failure."""

    async def main() -> None:
        seen, changes = Remembered(), list[bool]()
        async with Relay(valkey.port) as relay, lane_to(relay.url, seen, deadline_s=0.3) as lane:
            await until_answered(lane)
            lane.on_change(changes.append)
            relay.flowing.clear()
            asked = []
            for _ in range(100):
                asked += [lane.send("INCR", KEY) for _ in range(5)]
                await asyncio.sleep(0.001)
            outcomes = await asyncio.gather(*map(outcome, asked))
            relay.flowing.set()
            assert {type(each) for each in outcomes} == {RedisUnanswered}
            assert seen.failures == {"unanswered": 500, "unavailable": 0}
            assert await lane.send("GET", KEY) == b"500"
            assert changes == []

    run(main())


def test_a_possible_loss_is_told_before_anything_is_sent(valkey: Valkey) -> None:
    """Another server of the same history: what waited to be sent is not, and what is sent at the news comes first."""

    async def main() -> None:
        seen, first = Remembered(), list[asyncio.Future[object]]()
        with Valkey(f"replicaof 127.0.0.1 {valkey.port}") as replica:
            eventually(lambda: "master_link_status:up" in replica.command("INFO", "replication"), 10.0)
            async with Relay(valkey.port) as relay, lane_to(relay.url, seen) as lane:
                await until_answered(lane)
                lane.on_loss(lambda: first.append(lane.send("APPEND", KEY, "1")))
                await asyncio.sleep(SHORT_LIFE_S + 0.1)  # from here on its loss is no sign that none can last
                replica.command("REPLICAOF", "NO", "ONE")
                relay.target_port = replica.port
                relay.cut()
                waited: list[asyncio.Future[object]] = []
                while not first:
                    waited.append(lane.send("APPEND", KEY, "waited"))
                    await asyncio.sleep(0)
                outcomes = await asyncio.gather(*map(outcome, waited))
                assert {type(each) for each in outcomes} <= {RedisUnanswered, RedisUnavailable}
                assert "may have lost writes" in str(outcomes[-1])
                await lane.send("APPEND", KEY, "2")
                assert replica.command("GET", KEY.decode()).endswith("\r\n12\r\n")
                assert seen.notices == ["promoted"]
                assert len(first) == 1
                assert lane.available

    run(main())


def test_a_server_that_is_loading_is_not_asked() -> None:
    """Its commands are turned away untouched; the lone probe finds when it is ready."""

    async def main() -> None:
        async with Loading() as server, lane_to(f"redis://127.0.0.1:{server.port}") as lane:
            await until_answered(lane)
            server.is_loading = True
            failure = await outcome(lane.send("SET", KEY, "1"))
            assert isinstance(failure, RedisUnavailable)
            assert not lane.available
            asked = server.asked
            failures = [await outcome(lane.send("SET", KEY, "1")) for _ in range(100)]
            assert {type(each) for each in failures} == {RedisUnavailable}
            assert server.asked - asked <= 10  # probes
            server.is_loading = False
            await until_answered(lane)

    run(main())
