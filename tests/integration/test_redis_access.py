"""How the lane is let in: TLS with a custom CA, ACL users, databases, Unix sockets, credentials that change."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from gateway.errors import RedisRefused
from gateway.redis.config import RedisConfig, parse_url
from gateway.redis.embedded import EmbeddedValkey
from gateway.redis.lane import RedisLane
from gateway.redis.names import tenant_key
from gateway.redis.script import Script
from tests.support.redis_lane import LOOPS, Remembered, lane_to, outcome, run, until, until_answered
from tests.support.relay import Relay
from tests.support.valkey import Valkey

KEY = tenant_key("acme", "test")
USER = "limits"
RULES = ("~lgw:1:*", "+@all", "-@admin", "-@dangerous", "-client", "-script", "-info")


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server that wants a password, and has a user with few rights."""
    with Valkey("requirepass master", f"user {USER} on >first {' '.join(RULES)}") as server:
        yield server


def admin(valkey: Valkey, *parts: str) -> None:
    """Run a command as the default user."""

    async def main() -> None:
        async with lane_to(f"redis://:master@127.0.0.1:{valkey.port}") as lane:
            await lane.send(*parts)

    run(main())


async def until_refused(lane: RedisLane) -> None:
    """Wait until the lane was told that it may not come in."""

    async def closed() -> bool:
        return not lane.available

    await until(closed)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """What a server with a certificate for ``name`` needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> Path:
    """The authority's certificate in a file."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_with_an_authority_of_ones_own(valkey: Valkey, authority: trustme.CA, tmp_path: Path, loop: str) -> None:
    """The server's certificate is checked against it; commands and answers of any size pass."""

    async def main() -> None:
        async with Relay(valkey.port, server_context(authority)) as relay:
            url = relay.url.replace("://", "://:master@")
            async with lane_to(url, ca_file=ca_file(authority, tmp_path), deadline_s=10.0) as lane:
                answers = await asyncio.gather(*(lane.send("ECHO", number) for number in range(1000)))
                assert answers == [str(number).encode() for number in range(1000)]
                assert len(await lane.send("ECHO", b"x" * 1_000_000)) == 1_000_000
                assert relay.connections == 1

    run(main(), loop)


def test_authorities_are_those_that_the_file_has_now(valkey: Valkey, authority: trustme.CA, tmp_path: Path) -> None:
    """A server whose certificate comes from another authority is trusted once the file has that one."""

    async def main() -> None:
        file, successor = ca_file(authority, tmp_path), trustme.CA()
        async with Relay(valkey.port, server_context(successor)) as relay:
            url = relay.url.replace("://", "://:master@")
            async with lane_to(url, ca_file=file) as lane:
                await until_refused(lane)
                assert "certificate" in str(await outcome(lane.send("PING")))
                ca_file(successor, tmp_path)
                await until_answered(lane)
                file.write_text("nonsense")
                relay.cut()
                await until_answered(lane)
                assert relay.connections == 2, "what is no authority changes nothing"

    run(main())


def test_certificates_that_are_not_trusted(valkey: Valkey, authority: trustme.CA, tmp_path: Path) -> None:
    """Another authority, another name, no TLS at all: nothing is sent, and the breaker opens."""

    async def main() -> None:
        file = ca_file(authority, tmp_path)
        for context in (server_context(trustme.CA()), server_context(authority, "other.example"), None):
            async with Relay(valkey.port, context) as relay:
                url = f"rediss://:master@127.0.0.1:{relay.port}"
                async with lane_to(url, ca_file=file, connect_timeout_s=0.5) as lane:
                    await until_refused(lane)
                    assert relay.writes <= (0 if context is not None else 10)

    run(main())


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    """It is found when the lane is made."""

    async def main() -> None:
        (tmp_path / "ca.pem").write_text("nonsense")
        for name in ("ca.pem", "missing.pem"):
            with pytest.raises(OSError):
                RedisLane(RedisConfig(server=parse_url("rediss://localhost"), ca_file=tmp_path / name))

    run(main())


def test_a_user_with_few_rights_is_enough(valkey: Valkey) -> None:
    """Without INFO, CLIENT and SCRIPT: the source comes with each call of a script that the server does not know."""

    async def main() -> None:
        async with lane_to(f"redis://{USER}:first@127.0.0.1:{valkey.port}", check_s=0.05) as lane:
            script = Script("get", "return redis.call('get', KEYS[1])")
            await lane.send("SET", KEY, "1")
            assert [await lane.run(script, [KEY], []) for _ in range(3)] == [b"1"] * 3
            with pytest.raises(RedisRefused, match="^NOPERM"):
                await lane.send("SET", "other", "1")
            await asyncio.sleep(0.2)  # past a few looks at the server
            assert await lane.send("GET", KEY) == b"1"

    run(main())


def test_the_documented_user_is_enough(valkey: Valkey) -> None:
    """The rule of docs/redis.md, with every warning."""
    document = (Path(__file__).resolve().parents[2] / "docs" / "redis.md").read_text(encoding="utf-8")
    rule = re.search(r"`user (limits on >PASSWORD [^`]*)`", document)
    assert rule
    admin(valkey, "ACL", "SETUSER", *rule[1].replace("limits", "documented", 1).split(" "))
    admin(valkey, "CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")

    async def main() -> None:
        seen = Remembered()
        async with lane_to(f"redis://documented:PASSWORD@127.0.0.1:{valkey.port}", seen) as lane:
            assert await lane.run(Script("set", "return redis.call('set', KEYS[1], '1')"), [KEY], []) == b"OK"
            assert await lane.send("ACL", "WHOAMI") == b"documented"
            assert seen.notices == ["eviction_policy"]

    run(main())


@pytest.mark.parametrize("userinfo", ["", ":wrong@", f"{USER}:wrong@", "nobody:first@"])
def test_wrong_credentials(valkey: Valkey, userinfo: str, caplog: pytest.LogCaptureFixture) -> None:
    """The breaker opens with one line, which holds no password."""

    async def main() -> None:
        seen = Remembered()
        async with lane_to(f"redis://{userinfo}127.0.0.1:{valkey.port}", seen) as lane:
            await until_refused(lane)
            await asyncio.sleep(0.3)  # past a few further attempts
            assert seen.notices == ["credentials"]

    with caplog.at_level(logging.INFO, "gateway.redis"):
        run(main())
    assert len(caplog.records) == 1
    assert not {"wrong", "first"} & set(re.findall(r"\w+", caplog.text))


def test_credentials_are_read_again_after_a_refusal(valkey: Valkey, tmp_path: Path) -> None:
    """Whoever rotates a password writes the file before or after; either way the lane gets in by itself."""
    file = tmp_path / "credentials"
    file.write_text(f"{USER}\nwrong\n")

    async def main() -> None:
        async with lane_to(f"redis://:master@127.0.0.1:{valkey.port}", credentials_file=file) as lane:
            await until_refused(lane)
            file.write_text(f"{USER}\nfirst\n")
            await until_answered(lane)
            assert await lane.send("ACL", "WHOAMI") == USER.encode()
            file.unlink()
            await lane.send("SET", KEY, "1")

    run(main())


def test_changed_credentials_are_presented_on_the_connection(valkey: Valkey, tmp_path: Path) -> None:
    """No connection is made anew; wrong ones are said and those in use stay in use."""
    file = tmp_path / "credentials"
    file.write_text("master")

    async def main() -> None:
        seen = Remembered()
        options = {"credentials_file": file, "check_s": 0.05}
        async with Relay(valkey.port) as relay, lane_to(relay.url, seen, **options) as lane:
            assert await lane.send("ACL", "WHOAMI") == b"default"

            async def renamed() -> bool:
                return bool(await lane.send("ACL", "WHOAMI") == USER.encode())

            file.write_text(f"{USER}\nfirst")
            await until(renamed)
            file.write_text(f"{USER}\nwrong")

            async def noticed() -> bool:
                return seen.notices == ["credentials"]

            await until(noticed)
            await asyncio.sleep(0.2)  # past a few further looks
            assert await renamed()
            assert seen.notices == ["credentials"]
            assert relay.connections == 1

    run(main())


def test_the_file_may_change_before_the_server(valkey: Valkey, tmp_path: Path) -> None:
    """A connection that is made meanwhile comes in with what the server took last, later ones with the new."""
    file = tmp_path / "credentials"
    file.write_text(f"{USER}\nfirst")

    async def main() -> None:
        seen = Remembered()
        async with (
            Relay(valkey.port) as relay,
            lane_to(relay.url, seen, credentials_file=file, check_s=0.05) as lane,
            lane_to(f"redis://:master@127.0.0.1:{valkey.port}") as other,
        ):
            await until_answered(lane)
            file.write_text(f"{USER}\nsecond")
            relay.cut()
            await until_answered(lane)
            assert await lane.send("ACL", "WHOAMI") == USER.encode()
            assert relay.connections == 2

            async def noticed() -> bool:
                return seen.notices == ["credentials"]

            await until(noticed)
            await other.send("ACL", "SETUSER", USER, ">second", "<first")
            relay.cut()
            await until_answered(lane)
            assert await lane.send("ACL", "WHOAMI") == USER.encode()
            assert seen.notices == ["credentials"]

    run(main())


def test_credentials_in_an_address_of_a_file_are_read_again(valkey: Valkey, tmp_path: Path) -> None:
    """Like those of a file of their own; what is no address is passed over."""
    file = tmp_path / "url"
    file.write_text(f"{valkey.url}\n")

    async def main() -> None:
        async with (
            Relay(valkey.port) as relay,
            lane_to(f"redis://:wrong@127.0.0.1:{relay.port}", url_file=file, check_s=0.05) as lane,
        ):
            await until_refused(lane)
            file.write_text("redis://:master@127.0.0.1:1\n")
            await until_answered(lane)
            assert await lane.send("ACL", "WHOAMI") == b"default"
            file.write_text("nonsense")
            relay.cut()
            await until_answered(lane)
            file.write_text(f"redis://{USER}:first@127.0.0.1:1")

            async def renamed() -> bool:
                return bool(await lane.send("ACL", "WHOAMI") == USER.encode())

            await until(renamed)
            assert relay.connections >= 2

    run(main())


def test_a_user_who_loses_its_connection_by_rotation(valkey: Valkey, tmp_path: Path) -> None:
    """The server kills connections of a user that was deleted; the file has the next one."""
    file = tmp_path / "credentials"
    file.write_text(f"{USER}\nfirst")

    async def main() -> None:
        async with lane_to(valkey.url, credentials_file=file) as lane:
            await until_answered(lane)
            async with lane_to(f"redis://:master@127.0.0.1:{valkey.port}") as other:
                await other.send("ACL", "SETUSER", "second", "on", ">next", *RULES)
                file.write_text("second\nnext")
                await other.send("ACL", "DELUSER", USER)
            await until_answered(lane)
            assert await lane.send("ACL", "WHOAMI") == b"second"

    run(main())


@pytest.mark.parametrize("content", ["", "\n", "a\nb\nc", "user\n\n", "x" * 70_000])
def test_a_credentials_file_that_is_none(valkey: Valkey, tmp_path: Path, content: str) -> None:
    """Nobody gets in with it, and it is not quoted."""
    file = tmp_path / "credentials"
    file.write_text(content)

    async def main() -> None:
        async with lane_to(valkey.url, credentials_file=file) as lane:
            await until_refused(lane)
            failure = await outcome(lane.send("PING"))
            assert "neither a password" in str(failure)

    run(main())


def test_databases(valkey: Valkey) -> None:
    """Each lane sees its own."""

    async def main() -> None:
        urls = [f"redis://:master@127.0.0.1:{valkey.port}/{number}" for number in (0, 3)]
        async with lane_to(urls[0]) as first, lane_to(urls[1]) as second:
            await first.send("SET", KEY, "0")
            assert await second.send("GET", KEY) is None
        async with lane_to(f"redis://:master@127.0.0.1:{valkey.port}/99") as none:
            await until_refused(none)

    run(main())


def test_unix_socket(tmp_path: Path) -> None:
    """A server beside the gateway needs no port."""
    path = tmp_path / "valkey.sock"

    async def main() -> None:
        async with lane_to(f"unix://{path}?db=2") as lane:
            assert await lane.send("SET", KEY, "1") == b"OK"

    with Valkey(f"unixsocket {path}"):
        run(main())


def test_the_embedded_server() -> None:
    """The lane uses the address that it gives."""
    server = EmbeddedValkey.start()

    async def main() -> None:
        async with lane_to(server.url) as lane:
            assert await lane.send("PING") == b"PONG"

    try:
        run(main())
    finally:
        server.stop()
