"""The scripted upstream does what it says: what the other tests rest on, tested with a bare client."""

from __future__ import annotations

import gzip
import ssl
import time

import pytest

from tests.support import faults
from tests.support.client import ConnectionEnded, RawClient, request_bytes
from tests.support.scripts import DONE, Chat, Close, Gate, Hang, Reset, Script, Send, Tokens, error_reply, reply, stream
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import black_hole_port, eventually, refusing_port

PATH = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def connect(upstream: ScriptedUpstream) -> RawClient:
    """A client of the upstream."""
    return RawClient("127.0.0.1", upstream.port, timeout_s=5)


def test_answers_plain_and_records_the_request() -> None:
    """A chat request gets a completion with usage, and is recorded as it came."""
    with ScriptedUpstream(Chat(usage=Tokens(7, 2, cached=4))) as upstream, connect(upstream) as client:
        answer = client.request(PATH, ASK, headers={"X-Trace": "t"}).json()
        assert answer["choices"][0]["message"]["content"] == "Hello from upstream"
        assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
        (request,) = upstream.wait_for_requests(1)
        assert (request.method, request.target, request.json()) == ("POST", PATH, ASK)
        assert request.header("x-trace") == "t"


@pytest.mark.parametrize("with_usage", [True, False])
def test_streams_with_usage_only_where_asked(with_usage: bool) -> None:
    """The usage chunk comes when ``stream_options.include_usage`` asks for it."""
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    with ScriptedUpstream() as upstream, connect(upstream) as client:
        client.send(request_bytes(PATH, ASK | {"stream": True} | options))
        events = list(client.events(client.read_head()))
        assert events[-1] == DONE
        assert (b'"usage"' in events[-2]) == with_usage


def test_pipelined_requests_are_answered_in_order() -> None:
    """Two requests in one packet get two answers, in order, by the queue's scripts."""
    with ScriptedUpstream() as upstream, connect(upstream) as client:
        upstream.enqueue(reply(body=b"one"), error_reply(429, headers=[("retry-after", "7")]))
        client.send(request_bytes(PATH, ASK) * 2)
        assert client.read_response().body == b"one"
        second = client.read_response()
        assert (second.status, second.header("retry-after")) == (429, "7")
        upstream.wait_for_idle()
        assert upstream.connections_total == 1


def test_sees_when_the_client_leaves_mid_stream() -> None:
    """An early disconnect is reported with its time and request."""
    with ScriptedUpstream(stream([b"data: 1\n\n"], ending=[Hang()])) as upstream:
        client = connect(upstream)
        client.send(request_bytes(PATH, ASK))
        client.read_until(b"data: 1\n\n")
        left_at = client.reset()
        gone = upstream.wait_for_disconnect(2)
        assert gone.request is not None
        assert abs(gone.at - left_at) < 2  # the upstream may see it before the call returns
        upstream.wait_for_open_connections(0)


def test_sees_when_the_client_leaves_in_its_request() -> None:
    """A client that leaves with half its body sent is an early disconnect without a request."""
    with ScriptedUpstream() as upstream:
        with connect(upstream) as client:
            client.send(request_bytes(PATH, ASK)[:-5])
            upstream.wait_for_open_connections(1)
        assert upstream.wait_for_disconnect(2).request is None


def test_an_idle_close_is_no_early_disconnect() -> None:
    """A client that leaves between requests is not reported."""
    with ScriptedUpstream() as upstream:
        with connect(upstream) as client:
            client.request(PATH, ASK)
        upstream.wait_for_open_connections(0)
        assert upstream.disconnects == []


def test_a_gate_holds_a_script_until_opened() -> None:
    """A script waits at its gate, and the test knows that it is there."""
    gate = Gate()
    with ScriptedUpstream(Script((gate, *reply(body=b"late").steps))) as upstream, connect(upstream) as client:
        client.send(request_bytes(PATH, ASK))
        gate.wait_reached()
        assert upstream.busy_connections == 1
        gate.open()
        assert client.read_response().body == b"late"


@pytest.mark.parametrize("step", [Reset(), Close()])
def test_ends_before_any_answer(step: Reset | Close) -> None:
    """A connection that is reset or closed gives no byte."""
    with ScriptedUpstream(Script((step,))) as upstream, connect(upstream) as client:
        client.send(request_bytes(PATH, ASK))
        assert client.closed_by_server()


def test_a_keep_alive_connection_dies_when_it_is_used_again() -> None:
    """The second request's first byte resets the connection; a new one works."""
    with ScriptedUpstream() as upstream:
        upstream.enqueue(reply(body=b"one"), faults.reset_on_first_byte())
        with connect(upstream) as client:
            assert client.request(PATH, ASK).body == b"one"
            client.send(request_bytes(PATH, ASK))
            assert client.closed_by_server()
        with connect(upstream) as client:
            assert client.request(PATH, ASK).status == 200


def test_breaks_off_where_told() -> None:
    """A stream that closes in the middle has no last chunk."""
    with ScriptedUpstream(faults.close_mid_stream(2)) as upstream, connect(upstream) as client:
        client.send(request_bytes(PATH, ASK))
        head = client.read_head()
        seen: list[bytes] = []
        with pytest.raises(ConnectionEnded):
            seen.extend(client.body_parts(head))
        assert client.read_to_end() == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw-deflate"])
def test_compressed_bodies(coding: str) -> None:
    """A content coding is named in the head and is real."""
    with ScriptedUpstream(faults.compressed(coding, "chunked")) as upstream, connect(upstream) as client:  # type: ignore[arg-type]
        answer = client.request(PATH, ASK)
        assert answer.header("content-encoding") == ("gzip" if coding == "gzip" else "deflate")
        assert answer.body != faults.plain_body()
        if coding == "gzip":
            assert gzip.decompress(answer.body) == faults.plain_body()


def test_back_pressure_is_felt() -> None:
    """A reader that stops stops the script: the upstream cannot send without end."""
    with ScriptedUpstream(faults.endless_stream(), send_buffer=65536) as upstream:
        with RawClient("127.0.0.1", upstream.port, receive_buffer=65536) as client:
            client.send(request_bytes(PATH, ASK))
            client.read_head()
            amounts = [-1]

            def stalled() -> bool:
                amounts.append(upstream.bytes_sent())
                return amounts[-1] == amounts[-2] > 0

            eventually(stalled, 5, every_s=0.2)
            assert amounts[-1] < 10_000_000
        assert upstream.wait_for_disconnect(5).request is not None


def test_refuses_and_accepts_again() -> None:
    """``refuse`` makes connecting fail until ``accept``, on the same port."""
    with ScriptedUpstream() as upstream:
        upstream.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(upstream)
        upstream.accept()
        with connect(upstream) as client:
            assert client.request(PATH, ASK).status == 200


def test_hangs_on_connect() -> None:
    """A connection that is accepted and never served gives nothing."""
    with ScriptedUpstream() as upstream:
        upstream.on_connect(faults.accept_and_hang())
        with RawClient("127.0.0.1", upstream.port, timeout_s=0.2) as client:
            client.send(request_bytes(PATH, ASK))
            with pytest.raises(TimeoutError):
                client.read_head()
        assert upstream.requests == []


def test_speaks_tls_with_its_own_authority() -> None:
    """With TLS it is trusted by its own authority and records the server name asked for."""
    with ScriptedUpstream(tls=True) as upstream:
        context = ssl.create_default_context(cadata=upstream.ca_pem.decode())
        with RawClient("localhost", upstream.port, tls=context) as client:
            assert client.request(PATH, ASK).status == 200
        assert upstream.server_names == ["localhost"]


def test_bad_requests_are_noted() -> None:
    """Bytes that are no HTTP are noted, so that a test can assert that there were none."""
    with ScriptedUpstream() as upstream, connect(upstream) as client:
        client.send(b"\x16\x03 nonsense\r\n\r\n")
        assert client.closed_by_server()
        assert len(upstream.protocol_errors) == 1


def test_closing_all_connections() -> None:
    """The server side can end its idle connections at any time."""
    with ScriptedUpstream() as upstream, connect(upstream) as client:
        client.request(PATH, ASK)
        upstream.close_connections()
        assert client.closed_by_server()
        upstream.wait_for_open_connections(0)


def test_ports_that_refuse_or_swallow() -> None:
    """One port refuses at once, the other lets a connect run into its timeout."""
    with refusing_port() as port, pytest.raises(ConnectionRefusedError):
        RawClient("127.0.0.1", port)
    with black_hole_port() as port, pytest.raises(TimeoutError):
        RawClient("127.0.0.1", port, timeout_s=0.3)


def test_many_small_writes_stay_apart() -> None:
    """Pauses between writes are real: the pieces come one after the other."""
    pieces = [Send(b"a"), Send(b"b")]
    script = Script((Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"), *pieces))
    with ScriptedUpstream(script) as upstream, connect(upstream) as client:
        started = time.monotonic()
        assert client.request(PATH, ASK).body == b"ab"
        assert time.monotonic() - started < 5
