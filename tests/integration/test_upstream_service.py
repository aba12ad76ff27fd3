"""Calls to the endpoints of a Service: who gets which, and what happens to those that leave or cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from gateway.model import Endpoint, Origin, Service, Timeouts
from gateway.upstream import UpstreamClient, UpstreamLimits
from tests.support.calls import QUICK, Run, each_loop, failure_of, fetch, until
from tests.support.scripts import Gate, Hang, Script, reply
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import black_hole_port, refusing_port

SERVICE = Service(namespace="models", name="qwen", port=8000)
ORIGIN = Origin(scheme="http", host="qwen.models.svc", port=8000, service=SERVICE)
OK = reply(body=b"ok")


class Listed:
    """The endpoints as a test says they are."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = endpoints
        self.known = True

    def ready(self, service: Service) -> tuple[Endpoint, ...]:
        """Those of the one Service."""
        return self.endpoints if service == SERVICE else ()

    def knows(self, _namespace: str) -> bool:
        """As the test says."""
        return self.known


def endpoint(port: int, *addresses: str) -> Endpoint:
    """A pod on this machine."""
    return Endpoint(name=f"pod-{port}", addresses=addresses or ("127.0.0.1",), port=port)


@pytest.fixture
def pods() -> Iterator[list[ScriptedUpstream]]:
    """Three pods."""
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedUpstream(OK)) for _ in range(3)]


@asynccontextmanager
async def client_of(listed: Listed) -> AsyncIterator[UpstreamClient]:
    """A client that knows these."""
    client = UpstreamClient(UpstreamLimits(), listed)
    try:
        yield client
    finally:
        client.close()


def all_of(pods: list[ScriptedUpstream]) -> list[Endpoint]:
    """Their endpoints."""
    return [endpoint(each.port) for each in pods]


def counts(pods: list[ScriptedUpstream]) -> list[int]:
    """How many requests each got."""
    return [len(each.requests) for each in pods]


@each_loop
def test_a_call_goes_to_the_one_with_the_fewest(run: Run, pods: list[ScriptedUpstream]) -> None:
    """Calls at once spread evenly; while one has calls and the others none, these take turns at random."""

    async def main() -> None:
        async with client_of(Listed(*all_of(pods))) as client:
            gate = Gate()
            for each in pods:
                each.behaviour = Script((gate, *OK.steps))
            calls = [asyncio.ensure_future(fetch(client, ORIGIN)) for _ in range(9)]
            await until(lambda: gate.reached == 9)
            assert counts(pods) == [3, 3, 3]
            pods[1].behaviour = pods[2].behaviour = OK
            pods[1].close_connections()
            pods[2].close_connections()
            await until(lambda: sum(call.done() for call in calls) == 6)
            for _ in range(30):
                await fetch(client, ORIGIN)
            assert counts(pods)[0] == 3
            assert min(counts(pods)[1:]) > 3
            gate.open()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results.count(b"ok") == 3

    run(main())


@each_loop
def test_one_that_leaves_finishes_and_gets_nothing_new(run: Run, pods: list[ScriptedUpstream]) -> None:
    """Its idle connections close at once, the one with an open answer when that ends; it may come back meanwhile."""

    async def main() -> None:
        first, other = endpoint(pods[0].port), endpoint(pods[1].port)
        listed = Listed(first)
        async with client_of(listed) as client:
            gate = Gate()
            pods[0].enqueue(Script((gate, *OK.steps)))
            open_call = asyncio.ensure_future(fetch(client, ORIGIN))
            await until(lambda: gate.reached)
            assert await fetch(client, ORIGIN) == b"ok"
            assert pods[0].open_connections == 2
            listed.endpoints = (other,)
            await until(lambda: pods[0].open_connections == 1, what="the idle connection")
            for _ in range(5):
                await fetch(client, ORIGIN)
            assert counts(pods) == [2, 5, 0]
            listed.endpoints = (first, other)
            await fetch(client, ORIGIN)
            listed.endpoints = (other,)
            gate.open()
            assert await open_call == b"ok"
            await until(lambda: pods[0].open_connections == 0)
            await until(lambda: client.open_connections == 1)

    run(main())


@each_loop
def test_another_one_is_tried_where_one_cannot_be_reached(run: Run, pods: list[ScriptedUpstream]) -> None:
    """Within the attempt, in a share of its time; the dead one is avoided afterwards although nobody is emptier."""

    async def main() -> None:
        with refusing_port() as dead, black_hole_port() as hole:
            gone = [endpoint(dead), endpoint(hole)]
            listed = Listed(*gone, endpoint(pods[0].port))
            async with client_of(listed) as client:
                took_s = await until_done(fetch(client, ORIGIN, Timeouts(connect_s=1.5)))
                assert took_s < 1.5
                calls = [asyncio.ensure_future(fetch(client, ORIGIN)) for _ in range(10)]
                assert await until_done(asyncio.gather(*calls)) < 1.5
                listed.endpoints = tuple(gone)
                failure = await failure_of(fetch(client, ORIGIN, Timeouts(connect_s=0.2)))
                assert (failure.not_ready, failure.outcome.startswith("connect_")) == (True, True)

    async def until_done(work: Awaitable[object]) -> float:
        task = asyncio.ensure_future(work)
        return await until(task.done)

    run(main())


@each_loop
def test_nobody_is_there(run: Run, pods: list[ScriptedUpstream]) -> None:
    """That is told apart from not knowing; the next call after one has appeared is answered."""

    async def main() -> None:
        listed = Listed()
        async with client_of(listed) as client:
            failure = await failure_of(fetch(client, ORIGIN))
            assert (failure.outcome, failure.not_ready) == ("connect_error", True)
            assert failure.detail == "no endpoint of models/qwen is ready"
            listed.known = False
            assert (await failure_of(fetch(client, ORIGIN))).detail == "the endpoints of models/qwen are not known"
            listed.endpoints = (endpoint(pods[0].port, "127.0.0.9", "127.0.0.1"),)
            assert await fetch(client, ORIGIN) == b"ok"

    run(main())


@each_loop
def test_deadlines_hold_for_each_endpoint(run: Run, pods: list[ScriptedUpstream]) -> None:
    """One that accepts and says nothing fails in its time, also when it has left meanwhile."""

    async def main() -> None:
        listed = Listed(endpoint(pods[0].port))
        async with client_of(listed) as client:
            pods[0].behaviour = Script((Hang(),))
            timeouts = Timeouts(connect_s=QUICK.connect_s, first_byte_s=0.3)
            call = asyncio.ensure_future(fetch(client, ORIGIN, timeouts))
            await until(lambda: pods[0].requests)
            listed.endpoints = ()
            failure = await failure_of(call)
            assert (failure.outcome, failure.not_ready) == ("first_byte_timeout", False)
            await until(lambda: client.open_connections == 0)

    run(main())
