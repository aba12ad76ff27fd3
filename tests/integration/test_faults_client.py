"""Clients that leave, dawdle or hurry: the backend is stopped at once, memory is bounded, nothing is left."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.support import faults
from tests.support.client import RawClient
from tests.support.lane import Lane, attempts
from tests.support.scripts import DONE, Chat, Gate, Hang, Received, Script, error_reply, reply
from tests.support.waiting import eventually

CANCELLED_WITHIN_S = 1.0
"""The promise is 100 ms; the rest is for a loaded machine."""

HANGS = {
    "before first token, plain": (faults.hang_before_first_byte(), False),
    "before first token, stream": (faults.hang_after_head(), True),
    "mid-body": (faults.hang_mid_body(), False),
    "mid-stream": (faults.hang_mid_stream(), True),
    "mid-stream, endless": (faults.endless_stream(delay_s=0.01), True),
}


def left(way: str, client: RawClient) -> float:
    """Leave; when."""
    if way == "reset":
        return client.reset()
    at = time.monotonic()
    if way == "close":
        client.close()
    else:
        client.half_close()
    return at


@pytest.mark.parametrize("way", ["reset", "close", "half-close"])
@pytest.mark.parametrize("moment", [*HANGS])
def test_a_client_that_leaves_stops_the_backend(faulty: Lane, moment: str, way: str) -> None:
    """Whenever it leaves after its request, the backend's connection is closed at once and the log says 499."""
    faulty.main.behaviour, streamed = HANGS[moment]
    request_id = f"left-{time.monotonic_ns()}"
    client = faulty.client()
    client.send(faulty.request("patient", stream=streamed, headers={"x-request-id": request_id}))
    faulty.main.wait_for_requests()
    if moment.startswith("mid-stream"):
        client.read_until(faults.events()[1] if moment == "mid-stream" else b"\n\n")
    else:
        eventually(lambda: faulty.gateway.metrics().value("llm_gateway_backend_inflight_requests") == 1)
    left_at = left(way, client)
    gone = faulty.main.wait_for_disconnect()
    client.close()
    assert gone.at - left_at < CANCELLED_WITHIN_S
    line = faulty.log_of_id(request_id)
    assert (line["status"], line["outcome"], line["code"]) == (499, "client_gone", "client_gone")
    if moment.startswith("mid-stream"):
        assert line["stream_end"] == "client_gone"
        assert line["tokens"]["estimated"]
        assert attempts(line) == [("patient", "ok")]
    else:
        assert attempts(line) == [("patient", "cancelled")]


@pytest.mark.parametrize("way", ["reset", "close", "half-close"])
def test_a_client_that_leaves_in_its_head(faulty: Lane, way: str) -> None:
    """Half a head is no request: nobody is asked and nothing is logged as one."""
    before = len(faulty.gateway.logs())
    client = faulty.client()
    client.send(faulty.request("alone")[:60])
    eventually(lambda: faulty.gateway.client_connections() == 1)
    left(way, client)
    eventually(lambda: faulty.gateway.client_connections() == 0)
    client.close()
    assert [line for line in faulty.gateway.logs()[before:] if line["event"] == "request"] == []
    assert faulty.main.requests == []


@pytest.mark.parametrize("way", ["reset", "close", "half-close"])
def test_a_client_that_leaves_in_its_body(faulty: Lane, way: str) -> None:
    """Half a body reaches no backend and is a 499."""
    request_id = f"left-{time.monotonic_ns()}"
    client = faulty.client()
    client.send(faulty.request("alone", headers={"x-request-id": request_id})[:-10])
    faulty.gateway.wait_for_metric("llm_gateway_inflight_requests", 1)
    left(way, client)
    line = faulty.log_of_id(request_id)
    client.close()
    assert (line["status"], line["attempts"]) == (499, [])
    assert faulty.main.requests == []


def test_a_client_that_leaves_during_a_connect(faulty: Lane) -> None:
    """While a backend is being connected to, too; the fallback is not tried for nobody."""
    request_id = f"left-{time.monotonic_ns()}"
    client = faulty.client()
    client.send(faulty.request("hole-safe", headers={"x-request-id": request_id}))
    faulty.gateway.wait_for_metric("llm_gateway_backend_inflight_requests", 1)
    client.reset()
    line = faulty.log_of_id(request_id)
    assert (line["status"], attempts(line)) == (499, [("hole", "cancelled")])
    assert faulty.second.requests == []


def test_many_clients_that_leave_at_once(faulty: Lane) -> None:
    """Fifty streams end with their clients, and so do their fifty connections."""
    faulty.main.behaviour = faults.hang_mid_stream()
    clients = [faulty.client() for _ in range(50)]
    for client in clients:
        client.send(faulty.request("patient", stream=True))
    faulty.main.wait_for_requests(50)
    faulty.gateway.wait_for_metric("llm_gateway_backend_inflight_requests", 50)
    for client in clients:
        client.reset()
    eventually(lambda: len(faulty.main.disconnects) == 50)


def test_a_client_that_sends_slowly(faulty: Lane) -> None:
    """Head and body may arrive byte by byte; no backend is bothered before the end."""
    data = faulty.request("alone")
    with faulty.client() as client:
        client.send_slowly(data[:-1], piece=3, delay_s=0.002)
        assert faulty.main.requests == []
        client.send(data[-1:])
        assert client.read_response().status == 200


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_two_requests_in_one_packet(faulty: Lane, streamed: bool) -> None:
    """They are answered in order, the second after the first, each with its own answer."""
    gate = Gate()

    def named(request: Received) -> Script:
        steps = Chat(pieces=(request.json()["user"],))(request).steps
        return Script((gate, *steps)) if request.json()["user"] == "first" else Script(steps)

    faulty.main.behaviour = named
    with faulty.client() as client:
        first = faulty.request("patient", stream=streamed, user="first")
        client.send(first + faulty.request("patient", stream=not streamed, user="second"))
        gate.wait_reached()
        assert len(faulty.main.requests) == 1
        gate.open()
        answers = [client.read_response(), client.read_response()]
    assert [b"first" in answer.body for answer in answers] == [True, False]
    assert [b"second" in answer.body for answer in answers] == [False, True]
    assert [answer.body.endswith(DONE) for answer in answers] == [streamed, not streamed]


def test_a_client_that_leaves_with_a_request_in_wait(faulty: Lane) -> None:
    """The first is cancelled and the second, which nobody would read, is never begun."""
    faulty.main.behaviour = Script((Hang(),))
    client = faulty.client()
    client.send(faulty.request("patient") * 2)
    faulty.main.wait_for_requests()
    left_at = client.reset()
    assert faulty.main.wait_for_disconnect().at - left_at < CANCELLED_WITHIN_S
    assert len(faulty.main.requests) == 1


def resident_bytes(faulty: Lane) -> int:
    """Memory of the whole tree."""
    return sum(psutil.Process(pid).memory_info().rss for pid in faulty.gateway.pids())


def test_a_slow_reader_stops_the_backend(faulty: Lane) -> None:
    """Before a client that does not read, an endless stream comes to rest; then it goes on where it was."""
    faulty.main.behaviour = faults.endless_stream(size=2000)
    with faulty.client(receive_buffer=65_536) as client:
        client.send(faulty.request("patient", stream=True))
        head = client.read_head()
        amounts = [-2, -1]

        def at_rest() -> bool:
            amounts.append(faulty.main.bytes_sent())
            return amounts[-1] == amounts[-2] == amounts[-3]

        before = resident_bytes(faulty)
        eventually(at_rest, 10, every_s=0.15)
        assert amounts[-1] < 20_000_000  # what the kernel's buffers on the way hold
        assert resident_bytes(faulty) - before < 4_000_000
        events = client.events(head)
        for _ in range(10_000):
            assert b'"content":"xxx' in next(events)
        assert faulty.main.bytes_sent() > amounts[-1]
        assert resident_bytes(faulty) - before < 4_000_000
    assert faulty.main.wait_for_disconnect().request is not None


def test_memory_does_not_grow_with_a_stream(faulty: Lane) -> None:
    """Sixty megabytes flow through; next to nothing of it stays."""
    faulty.main.behaviour = faults.endless_stream(size=20_000, count=5_000)
    with faulty.client() as client:
        client.send(faulty.request("patient", stream=True))
        parts = client.body_parts(client.read_head())
        read = len(next(parts))
        before = resident_bytes(faulty)
        while read < 60_000_000:
            read += len(next(parts))
        assert resident_bytes(faulty) - before < 8_000_000


def test_a_backend_at_its_bound(faulty: Lane) -> None:
    """The next attempt of the plan, or 503 with a time to wait; the place is free again as soon as it is left."""
    gate = Gate()
    faulty.main.behaviour = Script((gate, *Chat()(Received("POST", "/", (), b"{}", 0, 0.0)).steps))
    with faulty.client() as client:
        client.send(faulty.request("bounded"))
        gate.wait_reached()
        refused = faulty.call("bounded", stream=True)
        assert (refused.status, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.header("retry-after") == "1"
        assert attempts(faulty.log_of(refused)) == [("bounded", "busy")]
        served = faulty.call("bounded-safe")
        assert served.status == 200
        assert attempts(faulty.log_of(served)) == [("bounded", "busy"), ("second", "ok")]
        gate.open()
        assert client.read_response().status == 200
    for _ in range(3):
        assert faulty.call("bounded").status == 200


@pytest.mark.parametrize(
    "script", [error_reply(500), faults.hang_mid_stream(), faults.reset_mid_stream(), reply(body=b"no JSON")]
)
def test_a_failed_call_gives_its_place_back(faulty: Lane, script: Script) -> None:
    """However a call at a bounded backend ends, the next one finds room."""
    faulty.main.behaviour = script
    client = faulty.client()
    client.send(faulty.request("bounded", stream=True))
    client.read_head()
    client.close()
    faulty.gateway.wait_for_metric("llm_gateway_backend_inflight_requests", 0)
    faulty.main.forget()
    assert faulty.call("bounded").status == 200
