"""How a server ends the connections of its clients. Real sockets, the test's own application."""

from __future__ import annotations

from typing import Any

from gateway.clock import monotonic
from tests.support.client import request_bytes
from tests.support.served import ServedApp, Streaming, hello
from tests.support.waiting import eventually


def test_draining_answers_with_close_and_still_accepts() -> None:
    """During the propagation delay nobody is turned away, and nobody stays."""

    def drain(server: Any) -> None:
        server.clients.draining = True

    with ServedApp(hello) as served, served.client() as old:
        assert old.request("/").header("connection") is None
        served.call(drain)
        eventually(lambda: served.server.clients.draining)
        for client in (old, served.client()):
            response = client.request("/")
            assert (response.status, response.header("connection")) == (200, "close")
            assert client.closed_by_server()
            client.close()


def test_closing_between_requests_lets_streams_end() -> None:
    """Idle connections go, half a head goes, a stream stays and ends with the connection."""
    app = Streaming()
    with ServedApp(app) as served:
        idle, half, busy = (served.client() for _ in range(3))
        half.send(b"GET / HT")
        busy.send(request_bytes("/"))
        busy.read_until(b"piece")
        eventually(lambda: served.connections == 3)
        served.call(lambda server: server.close_between_requests())
        assert idle.closed_by_server()
        assert half.closed_by_server()
        assert served.connections == 1
        busy.close()
        idle.close()
        half.close()
        eventually(lambda: served.server.idle)


def test_closing_waits_for_a_request_that_is_on_its_way() -> None:
    """Half a head is read to its end and answered; nobody is waited for longer than for a moment."""
    with ServedApp(hello) as served, served.client() as half, served.client() as idle:
        half.send(request_bytes("/")[:-4])
        eventually(lambda: served.connections == 2)
        served.call(lambda server: server.close_between_requests(monotonic(), 0.3))
        eventually(lambda: served.server.clients.draining)
        half.send(request_bytes("/")[-4:])
        response = half.read_response()
        assert (response.status, response.header("connection")) == (200, "close")
        assert idle.closed_by_server()


def test_cutting_ends_everything() -> None:
    """Streams too, and what serves them."""
    app = Streaming()
    with ServedApp(app) as served:
        clients = [served.client() for _ in range(3)]
        for each in clients:
            each.send(request_bytes("/"))
            each.read_until(b"piece")
    assert len(app.gone) == 3
    for each in clients:
        assert b"late" not in each.read_to_end()
        each.close()
