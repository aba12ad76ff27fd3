"""What the server refuses, cuts or survives by itself, and who hears of it. Real sockets, applications of the tests."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from gateway.app.server import PortServer
from tests.support.client import request_bytes
from tests.support.gateway import GatewayProcess
from tests.support.served import Receive, Send, ServedApp, answer, read_all
from tests.support.waiting import eventually

CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


async def hello(_scope: Any, receive: Receive, send: Send) -> None:
    """The simplest application."""
    await read_all(receive)
    await answer(send, b"hello")


class Waiting:
    """Never answers; notes how its client's connection looked at the disconnect, and when that was."""

    def __init__(self, *, streams: bool = False) -> None:
        self.streams = streams
        self.begun = threading.Event()
        self.gone: list[tuple[Any, bool, float]] = []

    async def __call__(self, scope: Any, _receive: Receive, send: Send) -> None:
        connection = scope["extensions"]["llm_gateway.connection"]
        connection.on_disconnect(lambda: self.gone.append((connection.fault, connection.stalled, time.monotonic())))
        if self.streams:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        self.begun.set()
        await asyncio.Event().wait()


# -- pipelining


@pytest.mark.parametrize("behind", [1, 7, 60])
def test_a_client_that_leaves_with_much_pipelined_behind_is_noticed_at_once(behind: int) -> None:
    """Within 100 ms, however much of it nobody has read."""
    app = Waiting()
    with ServedApp(app) as served:
        client = served.client()
        client.send(request_bytes("/"))
        assert app.begun.wait(5)
        client.send(request_bytes("/", b"x" * 400_000 if behind == 1 else b"x" * 60_000) * behind)
        left = client.reset()
        eventually(lambda: app.gone)
        assert app.gone[0][2] - left < 0.1
        assert app.gone[0][:2] == (None, False)


def test_what_nobody_has_let_in_takes_little_memory() -> None:
    """The bodies behind a response that its client does not read are not kept."""

    async def large(_scope: Any, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await answer(send, b"x" * 8 * 2**20)

    with ServedApp(large) as served, served.client(receive_buffer=4096) as client:
        client.send(request_bytes("/") * 2)
        eventually(lambda: served.server.clients.total_requests == 1)
        client.send(request_bytes("/", b"x" * 30_000) * 60)
        (connection,) = served.server.clients.connections
        eventually(lambda: connection._deaf)  # type: ignore[union-attr]
        assert len(connection._behind) == connection._behind.held_bytes // 30_000 <= 2  # type: ignore[union-attr]
        answered = [client.read_response()]
        while answered[-1].header("connection") is None:
            answered.append(client.read_response())
        assert 2 <= len(answered) <= 4
        assert client.closed_by_server()


# -- what the application and the operator hear


@pytest.mark.parametrize("streams", [False, True])
def test_a_bad_chunk_in_a_request_that_is_being_served_is_told_to_the_application(streams: bool) -> None:
    """It counts the request, so that the server does not; the client is told unless the response has begun."""
    app = Waiting(streams=streams)
    with ServedApp(app) as served, served.client() as client:
        client.send(CHUNKED)
        assert app.begun.wait(5)
        client.send(b"xyz\r\n")
        received = client.read_to_end()
        assert received.startswith(b"HTTP/1.1 200" if streams else b"HTTP/1.1 400")
        fault, stalled, _ = app.gone[0]
        assert (fault.status, fault.code, stalled) == (400, "invalid_http", False)
        assert served.refusals == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"BAD\r\n\r\n", "invalid_http"),
        (b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n", "invalid_http"),
        (b"GET / HTTP/1.1\r\n\r\n", "invalid_value"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000, "request_headers_too_large"),
        (b"GET / HT", "request_timeout"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", "method_not_allowed"),
    ],
)
def test_what_the_server_refuses_is_counted_by_its_code(
    sent: bytes, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; and no client can write an error into our log with it."""
    with ServedApp(hello, header_timeout_s=0.3) as served, served.client() as client:
        client.send(sent)
        assert client.read_response().json()["error"]["code"] == code
        assert served.refusals == [code]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_refusal_behind_a_request_is_counted_too(caplog: pytest.LogCaptureFixture) -> None:
    """The request itself is the application's."""
    with ServedApp(hello) as served, served.client() as client:
        client.send(request_bytes("/") + b"BAD\r\n\r\n")
        assert [client.read_response().status for _ in range(2)] == [200, 400]
        assert served.refusals == ["invalid_http"]
    assert caplog.records == []


def test_connections_that_are_turned_away_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of connections is no flood of lines."""
    with ServedApp(hello, max_connections=1) as served, served.client() as first:
        assert first.request("/").status == 200
        for _ in range(3):
            with served.client() as client:
                client.send(request_bytes("/"))
                assert client.read_response().status == 503
        assert served.refusals == ["overloaded"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "more than 1 connections are open: new ones are turned away"
    ]


def test_the_gateway_shows_what_its_server_refused(echo_gateway: GatewayProcess) -> None:
    """On the data port, in its metrics."""
    with echo_gateway.client() as client:
        client.send(b"BAD\r\n\r\n")
        assert client.read_response().status == 400
    echo_gateway.wait_for_metric("llm_gateway_connection_refusals_total", 1, code="invalid_http")


# -- the server's own faults and its end


def test_an_application_that_the_server_ends_before_its_first_byte_is_a_503() -> None:
    """The client is told what the log says, and to come back."""
    app = Waiting()
    with ServedApp(app) as served:
        client = served.client()
        client.send(request_bytes("/"))
        assert app.begun.wait(5)
    response = client.read_response()
    assert (response.status, response.header("retry-after"), response.header("connection")) == (503, "1", "close")
    assert response.json()["error"]["code"] == "shutting_down"
    client.close()


def test_an_application_that_cancels_itself_is_a_500() -> None:
    """That is no shutdown."""

    async def cancelled(_scope: Any, _receive: Receive, _send: Send) -> None:
        raise asyncio.CancelledError

    with ServedApp(cancelled) as served, served.client() as client:
        assert client.request("/").status == 500


def test_a_connection_whose_timeouts_fail_does_not_end_those_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is cut; the sweep goes on."""

    class Faulty:
        """A connection with a bug."""

        def sweep(self, _now: float) -> None:
            """Fail."""
            raise RuntimeError("a bug")

        def abort(self) -> None:
            """Be gone."""
            connections.discard(self)

    with ServedApp(hello, keep_alive_s=0.3) as served, served.client() as client:
        connections: set[Any] = served.server.clients.connections
        served.call(lambda _: connections.add(Faulty()))
        assert client.closed_by_server()
        eventually(lambda: not connections)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_tick_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts are enforced again with the next one."""
    failed = threading.Event()

    async def fails_once(self: PortServer, counter: int) -> bool:
        if self.started and not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        return await on_tick(self, counter)

    on_tick = PortServer.on_tick
    monkeypatch.setattr(PortServer, "on_tick", fails_once)
    with ServedApp(hello, keep_alive_s=0.3) as served, served.client() as client:
        assert failed.wait(5)
        assert client.closed_by_server()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
