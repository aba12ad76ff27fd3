"""Names of backends: looked up again while the gateway runs, shared, outlived when the name server fails."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.model import Origin
from gateway.upstream import UpstreamClient, UpstreamLimits
from gateway.upstream.dns import Resolver
from gateway.upstream.pool import Pool
from tests.support.calls import (
    QUICK,
    Run,
    ask,
    each_loop,
    failure_of,
    fetch,
    origin_of,
    request_parts,
    until,
    upstream_client,
    whole,
)
from tests.support.upstream import ScriptedUpstream


@each_loop
@pytest.mark.parametrize(
    "host",
    ["no-such-host.invalid", "a" * 70 + ".test", "exa mple.test", "\u00e4" * 80],
    ids=["unknown", "long label", "space", "not ascii"],
)
def test_names_that_do_not_resolve(run: Run, host: str) -> None:
    """An unknown or impossible name is a connect error like any other."""

    async def main() -> None:
        async with upstream_client() as client:
            origin = Origin(scheme="http", host=host, port=1)
            assert (await failure_of(ask(client, origin))).outcome == "connect_error"

    run(main())


class Names:
    """Answers to look-ups, in place of the name server's."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] = list(addresses)
        self.lookups = 0
        self.fails = False

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
        """As the loop's."""
        if host[0].isdigit():
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        self.lookups += 1
        await asyncio.sleep(0)
        if self.fails:
            raise socket.gaierror(-3, "temporary failure")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


def served_by(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let look-ups of the running loop be answered by ``names`` (asyncio's loop allows it, uvloop's does not)."""
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names.getaddrinfo)


async def absent(names: Names, client: UpstreamClient, origin: Origin, times: int) -> None:
    """Call over kept connections until the name was looked up so many times more."""
    for lookups in range(names.lookups + 1, names.lookups + times + 1):
        await asyncio.sleep(0.11)
        await fetch(client, origin)  # starts the look-up
        await until(lambda lookups=lookups: names.lookups == lookups)  # type: ignore[misc]
        await asyncio.sleep(0)


def test_new_addresses_of_a_name_are_used(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up again after its time; an address that three answers lacked has left and is not used again."""
    names = Names("127.0.0.1")

    async def main() -> None:
        served_by(names, monkeypatch)
        async with upstream_client(UpstreamLimits(dns_ttl_s=0.1)) as client:
            origin = origin_of(upstream, "backend.test")
            await fetch(client, origin)
            await fetch(client, origin)
            assert (names.lookups, upstream.connections_total) == (1, 1)
            busy = await ask(client, origin)
            names.addresses = ["127.0.0.2"]  # where nobody listens
            await absent(names, client, origin, times=3)
            await whole(busy)
            assert client.open_connections == 0, "the old address is left"
            assert (await failure_of(fetch(client, origin))).outcome == "connect_error"
            names.addresses = ["127.0.0.1"]
            await asyncio.sleep(0.15)
            await failure_of(fetch(client, origin))  # starts the look-up
            assert await fetch(client, origin)

    asyncio.run(main())


def test_a_name_whose_answers_rotate_keeps_its_connections(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that is missing from two answers and comes back in the third has not left."""
    names = Names("127.0.0.1")

    async def main() -> None:
        served_by(names, monkeypatch)
        async with upstream_client(UpstreamLimits(dns_ttl_s=0.1)) as client:
            origin = origin_of(upstream, "backend.test")
            await fetch(client, origin)
            for _ in range(3):
                names.addresses = ["127.0.0.2"]
                await absent(names, client, origin, times=2)
                names.addresses = ["127.0.0.1", "127.0.0.3"]
                await absent(names, client, origin, times=1)
            assert upstream.connections_total == 1
            (pool,) = client._pools.values()
            assert isinstance(pool, Pool)
            resolver = pool._resolver
            assert isinstance(resolver, Resolver)
            names.addresses = ["127.0.0.2"]
            await absent(names, client, origin, times=2)
            assert resolver._present == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
            await asyncio.sleep(0.11)
            await fetch(client, origin)
            await until(lambda: resolver._present == {"127.0.0.2"}, what="what has left is not remembered")

    asyncio.run(main())


def test_a_name_server_that_fails_is_outlived(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last answer serves on, without a warning and without a look-up for each call; then news are heard again."""
    names = Names("127.0.0.1")

    async def main() -> None:
        served_by(names, monkeypatch)
        async with upstream_client(UpstreamLimits(dns_ttl_s=0.05, connection_max_age_s=0.0)) as client:
            origin = origin_of(upstream, "backend.test")
            await fetch(client, origin)
            names.fails = True
            await asyncio.sleep(0.06)
            for _ in range(5):
                assert await fetch(client, origin)
            assert names.lookups == 2

    asyncio.run(main())


def test_the_first_look_up_is_shared(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many calls at once ask the name server once, and a caller who leaves does not end the look-up of the others."""
    names = Names("127.0.0.1")

    async def main() -> None:
        served_by(names, monkeypatch)
        async with upstream_client() as client:
            origin = origin_of(upstream, "backend.test")
            calls = [asyncio.ensure_future(fetch(client, origin)) for _ in range(10)]
            await asyncio.sleep(0)
            calls[0].cancel()
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(each) for each in found[1:]] == [bytes] * 9
            assert names.lookups == 1

    asyncio.run(main())


def test_a_name_that_did_not_resolve_is_asked_again(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first failure is not remembered."""
    names = Names("127.0.0.1")
    names.fails = True

    async def main() -> None:
        served_by(names, monkeypatch)
        async with upstream_client() as client:
            origin = origin_of(upstream, "backend.test")
            assert (await failure_of(fetch(client, origin))).outcome == "connect_error"
            names.fails = False
            assert await fetch(client, origin)

    asyncio.run(main())


def test_dead_addresses_are_passed_over(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many addresses, one that refuses or is silent costs its share of the connect time and no failure."""
    names = Names("127.0.0.9", "127.0.0.1", "127.0.0.8")  # nobody listens on .9 and .8

    async def main() -> None:
        served_by(names, monkeypatch)
        async with upstream_client(UpstreamLimits(connection_max_age_s=0.0)) as client:
            origin = origin_of(upstream, "backend.test")
            for _ in range(6):
                assert await fetch(client, origin)

    asyncio.run(main())


def test_connections_spread_over_addresses(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new connection starts at the next address."""
    names = Names("127.0.0.1", "127.0.0.1", "127.0.0.2")
    tried: list[str] = []

    async def main() -> None:
        served_by(names, monkeypatch)
        loop = asyncio.get_running_loop()
        connect = loop.create_connection

        async def note(factory: Any, host: str, port: int, **options: Any) -> Any:
            tried.append(host)
            return await connect(factory, "127.0.0.1", port, **options)

        monkeypatch.setattr(loop, "create_connection", note)
        async with upstream_client(UpstreamLimits(connection_max_age_s=0.0)) as client:
            for _ in range(4):
                await client.exchange(origin_of(upstream, "backend.test"), request_parts(), QUICK)

    asyncio.run(main())
    assert sorted(tried) == ["127.0.0.1"] * 2 + ["127.0.0.2"] * 2
