"""The life of client connections: timeouts, bounds, leaving, closing. Real sockets, the test's own application."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from gateway.edge.connections import CONNECTION_EXTENSION
from tests.support.client import request_bytes
from tests.support.served import Receive, Send, ServedApp, Streaming, answer, hello, read_all
from tests.support.waiting import eventually

BIG = 8 * 2**20


# -- time


def test_a_head_that_does_not_end_is_a_408() -> None:
    """The time runs from the first byte; trickling bytes does not extend it."""
    with ServedApp(hello, header_timeout_s=0.3) as served, served.client() as client:
        started = time.monotonic()
        for byte in request_bytes("/")[:-1]:
            client.send(bytes([byte]))
            time.sleep(0.005)
        response = client.read_response()
        assert 0.25 < time.monotonic() - started < 3
        assert (response.status, response.header("connection")) == (408, "close")
        assert response.json()["error"]["code"] == "request_timeout"
        assert client.closed_by_server()


@pytest.mark.parametrize("sent", [b"", b"\r\n", request_bytes("/")])
def test_an_idle_connection_is_closed_without_a_word(sent: bytes) -> None:
    """Also one that never sent anything, or nothing but a blank line."""
    with ServedApp(hello, keep_alive_s=0.3) as served, served.client() as client:
        started = time.monotonic()
        client.send(sent)
        if sent.startswith(b"GET"):
            assert client.read_response().body == b"hello"
        assert client.closed_by_server()
        assert 0.25 < time.monotonic() - started < 3


def test_a_request_on_its_way_is_not_idle() -> None:
    """A connection in use is not touched by the idle time, nor by the time for the head."""

    async def slow(_scope: Any, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await asyncio.sleep(0.6)
        await answer(send, b"done")

    with ServedApp(slow, keep_alive_s=0.2, header_timeout_s=0.2) as served, served.client() as client:
        assert client.request("/").body == b"done"
        assert client.request("/").body == b"done"


def test_keep_alive_of_zero_closes_after_each_response() -> None:
    """And still waits for the first request."""
    with ServedApp(hello, keep_alive_s=0.0, header_timeout_s=5.0) as served, served.client() as client:
        time.sleep(0.1)
        assert client.request("/").header("connection") == "close"
        assert client.closed_by_server()


def test_an_old_connection_is_closed_with_its_next_response() -> None:
    """A busy connection is told, and loses no request."""
    with ServedApp(hello, max_age_s=0.5) as served, served.client() as client:
        deadline = time.monotonic() + 5
        while (response := client.request("/")).header("connection") is None:
            assert time.monotonic() < deadline
        assert response.body == b"hello"
        assert client.closed_by_server()


def test_an_old_connection_that_has_been_idle_is_closed() -> None:
    """So that it does not come back to this replica after hours."""
    with ServedApp(hello, max_age_s=0.5) as served, served.client() as client:
        client.request("/")
        assert client.closed_by_server()


def test_ages_differ() -> None:
    """Connections that were opened together do not end together."""
    with ServedApp(hello, max_age_s=2.0) as served:
        clients = [served.client() for _ in range(20)]
        eventually(lambda: served.connections == 20)
        ends = {connection._age_ends for connection in served.server.clients.connections}  # type: ignore[union-attr]
        assert len(ends) == 20
        for each in clients:
            each.close()


# -- number


def test_a_connection_too_many_is_a_503() -> None:
    """It is told to come back, and there is room again when others leave."""
    with ServedApp(hello, max_connections=2) as served:
        first, second = served.client(), served.client()
        assert first.request("/").status == second.request("/").status == 200
        with served.client() as third:
            third.send(request_bytes("/", b"x" * 1000))
            response = third.read_response()
            assert response.status == 503
            assert response.header("retry-after") == "1"
            assert response.json()["error"]["type"] == "overloaded_error"
            assert third.closed_by_server()
        first.close()
        second.close()
        eventually(lambda: served.connections == 0)
        with served.client() as fourth:
            assert fourth.request("/").status == 200


# -- leaving


@pytest.mark.parametrize("way", ["close", "reset", "half_close"])
@pytest.mark.parametrize("moment", ["before the first byte", "in the stream"])
def test_the_application_hears_at_once_that_its_client_is_gone(way: str, moment: str) -> None:
    """Within 100 ms, once, whether it streams or waits, and by receive() too."""
    app = Streaming(pieces=1 if moment == "in the stream" else 0)
    with ServedApp(app) as served:
        client = served.client()
        client.send(request_bytes("/", b"{}"))
        assert app.started.wait(5)
        if app.pieces:
            client.read_until(b"piece")
        left = time.monotonic()
        getattr(client, way)()
        eventually(lambda: app.receives == ["http.disconnect"])
        assert len(app.gone) == 1
        assert app.gone[0] - left < 0.1
        eventually(lambda: served.connections == 0)
        client.close()


def test_a_client_that_pipelined_and_left_is_noticed() -> None:
    """A request waiting behind does not hide that nobody is there."""
    app = Streaming()
    with ServedApp(app) as served:
        client = served.client()
        client.send(request_bytes("/", b"{}") * 2)
        client.read_until(b"piece")
        client.close()
        eventually(lambda: len(app.gone) == 1)
        eventually(lambda: served.connections == 0)


def test_a_callback_of_a_finished_request_is_never_called() -> None:
    """The client may leave when it has its answer."""
    calls: list[int] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scope["extensions"][CONNECTION_EXTENSION].on_disconnect(lambda: calls.append(1))
        await hello(scope, receive, send)
        scope["extensions"][CONNECTION_EXTENSION].on_disconnect(lambda: calls.append(2))

    with ServedApp(app) as served:
        with served.client() as client:
            assert client.request("/").body == b"hello"
        eventually(lambda: served.connections == 0)
        assert calls == []


# -- slow readers


def test_a_slow_reader_stops_the_application_and_loses_nothing() -> None:
    """What waits for a client is bounded; every byte arrives in order once it reads."""
    progress = [0]

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(400):
            await send({"type": "http.response.body", "body": bytes([number % 256]) * 65536, "more_body": True})
            progress[0] = number
        assert not scope["extensions"][CONNECTION_EXTENSION].write_paused or progress[0]
        await send({"type": "http.response.body"})

    with ServedApp(app) as served, served.client(receive_buffer=4096) as client:
        client.send(request_bytes("/"))
        client.read_until(b"\r\n\r\n")

        def settled() -> bool:
            before = progress[0]
            time.sleep(0.1)
            return before == progress[0] > 0

        eventually(settled)
        assert progress[0] < 350
        head = client.read_until(b"\r\n")
        data = client.read_exactly(int(head, 16) + 2)
        assert data == b"\0" * 65536 + b"\r\n"
        for number in range(1, 400):
            size = int(client.read_until(b"\r\n"), 16)
            assert client.read_exactly(size + 2) == bytes([number % 256]) * size + b"\r\n"


@pytest.mark.parametrize("complete", [True, False])
def test_a_client_that_takes_no_byte_is_cut(complete: bool) -> None:
    """Whether the application is done with the response or waits; it hears of it in the second case."""
    ended = threading.Event()

    async def app(_scope: Any, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if not complete:
            for _ in range(100):
                await send({"type": "http.response.body", "body": b"x" * BIG, "more_body": True})
        await send({"type": "http.response.body", "body": b"x" * 4 * BIG})
        ended.set()

    with ServedApp(app, write_timeout_s=0.4) as served, served.client(receive_buffer=4096) as client:
        client.send(request_bytes("/"))
        assert ended.wait(10)
        eventually(lambda: served.connections == 0, 10)


# -- early and wrong answers


async def refuses(_scope: Any, _receive: Receive, send: Send) -> None:
    """Answers without a look at the body."""
    await answer(send, json.dumps({"no": 1}).encode(), 401)


def test_an_answer_before_the_body_is_read_by_a_client_that_is_still_sending() -> None:
    """The connection closes, without a reset that would take the answer with it."""
    with ServedApp(refuses) as served, served.client() as client:
        client.send(request_bytes("/", b"x" * 300_000)[:200_000])
        response = client.read_response()
        assert (response.status, response.header("connection")) == (401, "close")
        client.send(b"x" * 100_000)
        assert client.closed_by_server()


def test_a_client_that_takes_long_to_send_what_nobody_wants_still_gets_its_answer() -> None:
    """What it sends is dropped for as long as it keeps sending, within reason."""
    with ServedApp(refuses) as served, served.client() as client:
        client.send(request_bytes("/", b"", headers={"content-length": "20000000"}))
        for _ in range(25):
            client.send(b"x" * 10_000)
            time.sleep(0.1)
        assert client.read_response().status == 401
        assert client.closed_by_server()


def test_an_answer_before_a_small_body_keeps_the_connection() -> None:
    """The rest is read past, and is no request."""
    with ServedApp(refuses) as served, served.client() as client:
        request = request_bytes("/", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        client.send(request[:-10])
        assert client.read_response().header("connection") is None
        client.send(request[-10:] + request)
        assert client.read_response().status == 401
        eventually(lambda: served.server.clients.total_requests == 2)


def test_an_answer_to_a_client_that_asked_before_sending_closes() -> None:
    """It may or may not send its body now: nothing after it can be trusted to be a request."""
    with ServedApp(refuses) as served, served.client() as client:
        client.send(request_bytes("/", b"", headers={"content-length": "10", "expect": "100-continue"}))
        response = client.read_response()
        assert (response.status, response.header("connection")) == (401, "close")


def test_an_application_that_fails_is_a_500_in_our_envelope() -> None:
    """And says nothing of what failed."""

    async def fails(_scope: Any, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("secret")

    with ServedApp(fails) as served, served.client() as client:
        response = client.request("/")
        assert response.status == 500
        assert response.json()["error"]["type"] == "api_error"
        assert b"secret" not in response.body


@pytest.mark.parametrize("fault", ["raises", "ends early", "too long", "too short"])
def test_a_response_that_goes_wrong_in_its_middle_is_cut(fault: str) -> None:
    """The client can tell that it is incomplete; the server goes on."""

    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        length = [(b"content-length", b"10")] if fault.startswith("too") else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        if fault == "raises":
            raise RuntimeError
        if fault == "too long":
            await send({"type": "http.response.body", "body": b"1234567890"})
        if fault == "too short":
            await send({"type": "http.response.body", "body": b"1234"})

    with ServedApp(app) as served:
        with served.client() as client:
            client.send(request_bytes("/"))
            received = client.read_to_end()
            assert not received.endswith((b"0\r\n\r\n", b"1234567890"))
        eventually(lambda: served.connections == 0)


def test_a_line_break_in_a_response_header_is_never_sent() -> None:
    """Whatever the application took it from."""

    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        await answer(send, b"", headers=((b"x-a", b"1\r\nset-cookie: evil"),))

    with ServedApp(app) as served, served.client() as client:
        response = client.request("/")
        assert (response.status, response.header("set-cookie")) == (500, None)
