"""TLS to backends: verified against the right authority and the right name, which is also sent (SNI)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.errors import SettingsInvalid
from gateway.model import Timeouts
from gateway.upstream import UpstreamClient, UpstreamLimits
from tests.conftest import StartGateway
from tests.support import faults
from tests.support.calls import Run, each_loop, failure_of, fetch, origin_of, until, upstream_client
from tests.support.documents import echo_registry, new_key, openai_registry
from tests.support.gateway import DidNotStart, GatewayProcess
from tests.support.scripts import Close, Gate, Script, Send, reply, stream
from tests.support.upstream import ScriptedUpstream


@pytest.fixture
def secure() -> Iterator[ScriptedUpstream]:
    """An upstream with a certificate for localhost from an authority of its own."""
    with ScriptedUpstream(tls=True) as server:
        yield server


@pytest.fixture
def trusting(secure: ScriptedUpstream, tmp_path: Path) -> UpstreamLimits:
    """Limits whose CA file has the upstream's authority."""
    path = tmp_path / "ca.pem"
    path.write_bytes(secure.ca_pem)
    return UpstreamLimits(ca_file=path)


@each_loop
def test_a_trusted_backend(run: Run, secure: ScriptedUpstream, trusting: UpstreamLimits) -> None:
    """The server name is sent, the connection is verified and kept, bodies of every size come through."""

    async def main() -> None:
        async with upstream_client(trusting) as client:
            body = b"x" * 3_000_000
            secure.enqueue(reply(body=b"ok"), reply(body=body, framing="chunked"), stream([b"data: 1\n\n"] * 50))
            assert await fetch(client, origin_of(secure)) == b"ok"
            assert await fetch(client, origin_of(secure)) == body
            assert await fetch(client, origin_of(secure)) == b"data: 1\n\n" * 50

    run(main())
    assert secure.server_names == ["localhost"]
    assert secure.connections_total == 1


@each_loop
def test_an_unknown_authority_is_refused(run: Run, secure: ScriptedUpstream, tmp_path: Path) -> None:
    """Neither the system's authorities nor another CA file vouch for it; no request is sent."""
    other = tmp_path / "other.pem"
    other.write_bytes(trustme.CA().cert_pem.bytes())

    async def main(limits: UpstreamLimits) -> None:
        async with upstream_client(limits) as client:
            failure = await failure_of(fetch(client, origin_of(secure)))
            assert failure.outcome == "connect_error"
            assert "certificate verify failed" in failure.detail
            assert client.open_connections == 0

    run(main(UpstreamLimits()))
    run(main(UpstreamLimits(ca_file=other)))
    assert secure.requests == []


@each_loop
def test_a_wrong_host_name_is_refused(
    run: Run, secure: ScriptedUpstream, trusting: UpstreamLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good certificate for another name is no good."""

    async def resolve(self: Any) -> None:
        self._addresses = ("127.0.0.1",)

    monkeypatch.setattr("gateway.upstream.dns.Resolver._resolve", resolve)

    async def main() -> None:
        async with upstream_client(trusting) as client:
            failure = await failure_of(fetch(client, origin_of(secure, "other.test")))
            assert failure.outcome == "connect_error"
            assert "Hostname mismatch" in failure.detail

    run(main())
    assert secure.requests == []
    assert secure.server_names == ["other.test"]


@each_loop
def test_an_address_is_verified_as_an_address(run: Run, secure: ScriptedUpstream, trusting: UpstreamLimits) -> None:
    """A backend named by its address needs a certificate for it; addresses are not sent as server names."""

    async def main() -> None:
        async with upstream_client(trusting) as client:
            assert await fetch(client, origin_of(secure, "127.0.0.1"))

    run(main())
    assert secure.server_names in ([], [None])


@each_loop
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (faults.close_mid_stream(), "reset"),
        (faults.reset_mid_body(), "reset"),
        (faults.hang_mid_stream(), "idle_timeout"),
        (faults.close_before_reply(), "reset"),
        (faults.garbage(), "protocol_error"),
    ],
)
def test_faults_behind_tls(
    run: Run, secure: ScriptedUpstream, trusting: UpstreamLimits, script: Script, outcome: str
) -> None:
    """Faults look the same as without TLS, and leave nothing open."""

    async def main() -> None:
        async with upstream_client(trusting) as client:
            secure.enqueue(script)
            timeouts = Timeouts(idle_s=0.2)
            assert (await failure_of(fetch(client, origin_of(secure), timeouts))).outcome == outcome
            assert client.open_connections == 0
            await until(lambda: secure.open_connections == 0)

    run(main())


@each_loop
def test_a_kept_connection_behind_tls_is_looked_at(
    run: Run, secure: ScriptedUpstream, trusting: UpstreamLimits
) -> None:
    """Session tickets do not make it look used; a close or an answer that nobody had time to read ends it."""

    async def main() -> None:
        async with upstream_client(trusting) as client:
            for _ in range(5):
                await fetch(client, origin_of(secure))
                time.sleep(0.01)  # noqa: ASYNC251  # the loop is kept busy
            assert secure.connections_total == 1
            for unread in (Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Close()):
                gate = Gate()
                before = len(secure.requests)
                secure.enqueue(reply(body=b"first").then(gate, unread), reply(body=b"ok"))
                assert await fetch(client, origin_of(secure)) == b"first"
                gate.open()
                time.sleep(0.05)  # noqa: ASYNC251
                assert await fetch(client, origin_of(secure)) == b"ok"
                assert len(secure.requests) == before + 2
            assert secure.connections_total == 3

    run(main())


@pytest.mark.parametrize(
    "content", [b"not a pem", b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_bad_ca_file_ends_the_start(content: bytes, tmp_path: Path) -> None:
    """With the name of the setting and exit code 2, before anything listens; so does a client made without that."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(content)
    with pytest.raises(SettingsInvalid, match="LLM_GATEWAY_UPSTREAM_CA_FILE"):
        UpstreamClient(UpstreamLimits(ca_file=ca_file))
    key = new_key()
    gateway = GatewayProcess(echo_registry(key), key=key, env={"LLM_GATEWAY_UPSTREAM_CA_FILE": str(ca_file)})
    with pytest.raises(DidNotStart, match="ended with 2 (.|\n)*LLM_GATEWAY_UPSTREAM_CA_FILE: expected"), gateway:
        pass
    assert "Traceback" not in gateway.output()


@each_loop
def test_a_dead_kept_connection_behind_tls(run: Run, secure: ScriptedUpstream, trusting: UpstreamLimits) -> None:
    """The silent retry works the same."""

    async def main() -> None:
        async with upstream_client(trusting) as client:
            await fetch(client, origin_of(secure))
            secure.enqueue(faults.reset_on_first_byte(), reply(body=b"ok"))
            assert await fetch(client, origin_of(secure)) == b"ok"

    run(main())


@each_loop
def test_a_server_that_speaks_no_tls(run: Run, upstream: ScriptedUpstream) -> None:
    """Plain HTTP on the port is a connect error, a silent one a connect timeout."""

    async def main() -> None:
        async with upstream_client() as client:
            origin = origin_of(upstream)
            secure = type(origin)(scheme="https", host=origin.host, port=origin.port)
            assert (await failure_of(fetch(client, secure))).outcome == "connect_error"
            with socket.socket() as silent:
                silent.bind(("127.0.0.1", 0))
                silent.listen()
                quiet = type(origin)(scheme="https", host="127.0.0.1", port=silent.getsockname()[1])
                failure = await failure_of(fetch(client, quiet, Timeouts(connect_s=0.3)))
                assert failure.outcome == "connect_timeout"
            assert client.open_connections == 0

    run(main())


def test_through_the_gateway(secure: ScriptedUpstream, start_gateway: StartGateway, tmp_path: Path) -> None:
    """The setting for the CA file makes a private backend trusted; without it the call fails, with a 502."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(secure.ca_pem)
    key = new_key()
    ask = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
    for env, status in (({"LLM_GATEWAY_UPSTREAM_CA_FILE": str(ca_file)}, 200), ({}, 502)):
        gateway = start_gateway(openai_registry(secure.url, key), key=key, env=env)
        with gateway.client() as client:
            assert client.request("/v1/chat/completions", ask, key=key).status == status
    assert len(secure.requests) == 1
    assert "localhost" in secure.server_names
