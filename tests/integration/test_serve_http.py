"""What the server makes of bytes: framing, ambiguity, bounds. Real sockets, an application of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client import RawClient, Response, request_bytes
from tests.support.served import Receive, Send, ServedApp, answer, read_all
from tests.support.waiting import eventually

HOST = b"host: gateway.test\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n"


class Echo:
    """Answers with method, path, query and body; remembers each request's scope."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = await read_all(receive)
        line = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode()
        await answer(send, line + body)


@pytest.fixture
def echo() -> Echo:
    """The application."""
    return Echo()


@pytest.fixture
def served(echo: Echo) -> Iterator[ServedApp]:
    """It, served with tight bounds."""
    with ServedApp(echo, max_header_bytes=4096, max_header_count=20) as server:
        yield server


@pytest.fixture
def client(served: ServedApp) -> Iterator[RawClient]:
    """A connection to it."""
    with served.client() as connection:
        yield connection


def assert_refused(response: Response, status: int, code: str) -> None:
    """Our envelope, and the connection is given up."""
    assert response.status == status, response
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert response.header("connection") == "close"
    assert response.header("content-type") == "application/json"


def test_requests_on_one_connection_are_answered_with_a_known_length(client: RawClient) -> None:
    """A connection serves request after request, each answer with a length, a date and no server name."""
    for number in range(3):
        response = client.request(f"/n{number}?q=1", b"abc")
        assert response.body == f"POST /n{number} q=1 abc".encode()
        assert response.header("content-length") == str(len(response.body))
        assert response.header("date")
        assert response.header("server") is None
        assert response.header("connection") is None


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    """Several requests in one packet, again and again: all are answered, in their order."""
    for _ in range(10):
        client.send(b"".join(request_bytes(f"/{number}", b"x" * 900 * number) for number in range(9)))
        assert [client.read_response().body for _ in range(9)] == [
            f"POST /{number}  {'x' * 900 * number}".encode() for number in range(9)
        ]


def test_a_request_may_arrive_byte_by_byte(client: RawClient) -> None:
    """Where a packet ends means nothing."""
    for byte in request_bytes("/slow", b"body", headers={"x-long": "value"}):
        client.send(bytes([byte]))
    assert client.read_response().body == b"POST /slow  body"


def test_a_bad_request_behind_a_good_one_is_refused_in_its_turn(client: RawClient, echo: Echo) -> None:
    """The good one is answered, then the refusal comes, then the connection closes; what follows is not read."""
    client.send(request_bytes("/good") + b"BAD\r\n\r\n" + request_bytes("/never"))
    assert client.read_response().body == b"GET /good  "
    assert_refused(client.read_response(), 400, "invalid_http")
    assert client.closed_by_server()
    assert [scope["path"] for scope in echo.scopes] == ["/good"]


@pytest.mark.parametrize(
    "request_head",
    [
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked, identity\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nhost: a\n\n",
        b"GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\rx: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://a:b/ HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(request_head: bytes, client: RawClient, echo: Echo) -> None:
    """Nothing of an ambiguous request, and nothing behind it, reaches the application as a request."""
    client.send(request_head + request_bytes("/smuggled"))
    response = client.read_response()
    assert response.status == 400, response
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.header("connection") == "close"
    assert client.closed_by_server()
    assert "/smuggled" not in [scope["path"] for scope in echo.scopes]


@pytest.mark.parametrize(
    "chunks", [b"3\nabc\n0\n\n", b"-1\r\nabc", b"FFFFFFFFFFFFFFFFF\r\nabc", b"3\r\nabcd\r\n0\r\n\r\n"]
)
def test_a_bad_chunk_ends_the_request_with_a_400(chunks: bytes, client: RawClient) -> None:
    """The application is told that its client is gone; the client that its request is wrong."""
    client.send(CHUNKED + b"\r\n" + chunks)
    assert_refused(client.read_response(), 400, "invalid_http")
    assert client.closed_by_server()


def test_chunks_with_extensions_and_trailers_are_read_and_the_extras_dropped(client: RawClient, echo: Echo) -> None:
    """A trailer never becomes a header field."""
    client.send(CHUNKED + b'\r\n3;a=b;c="d"\r\nabc\r\n2\r\nde\r\n0\r\nauthorization: evil\r\nhost: evil\r\n\r\n')
    assert client.read_response().body == b"POST /  abcde"
    client.request("/next")
    assert all(b"evil" not in value for scope in echo.scopes for _, value in scope["headers"])


def test_whitespace_around_a_field_value_is_no_part_of_it(client: RawClient, echo: Echo) -> None:
    """RFC 9112, section 5."""
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"x-a:  \t b c \t \r\n\r\n")
    client.read_response()
    assert (b"x-a", b"b c") in echo.scopes[0]["headers"]


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_to_upgrade_is_ignored(protocol: str, client: RawClient, echo: Echo) -> None:
    """The request is answered as it is, body and all, and the connection goes on (RFC 9110, section 7.8)."""
    headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": protocol, "http2-settings": "AAMAAABk"}
    request = request_bytes("/up", b"the body", headers=headers)
    client.send(request * 2 + request[:-3])
    assert [client.read_response().body for _ in range(2)] == [b"POST /up  the body"] * 2
    client.send(request[-3:])
    assert client.read_response().body == b"POST /up  the body"
    assert b"upgrade" not in dict(echo.scopes[0]["headers"])
    assert client.request("/after").status == 200


def test_connect_is_refused(client: RawClient) -> None:
    """The gateway is no tunnel."""
    client.send(b"CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n")
    assert_refused(client.read_response(), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://gateway.test/a/b?q=1", "/a/b", b"q=1"),
        (b"http://gateway.test", "/", b""),
        (b"/%76%31/x%20y?%41", "/v1/x y", b"%41"),
        (b"/?", "/", b""),
    ],
)
def test_targets(target: bytes, path: str, query: bytes, client: RawClient, echo: Echo) -> None:
    """Absolute form, escapes, and what is not a path."""
    client.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert client.read_response().status == 200
    assert (echo.scopes[0]["path"], echo.scopes[0]["query_string"]) == (path, query)


def test_http_1_0_gets_no_chunks_and_a_close(served: ServedApp) -> None:
    """An old client is answered in its own terms, and may leave out the host."""
    with served.client() as client:
        client.send(b"GET /old HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        response = client.read_response()
        assert response.header("connection") == "close"
        assert response.body == b"GET /old  "
        assert client.closed_by_server()


def test_head_and_204_have_no_body(client: RawClient) -> None:
    """A response to HEAD tells no body, whatever the application sends."""
    client.send(request_bytes("/", method="HEAD") + request_bytes("/next"))
    assert client.read_head().status == 200
    assert client.read_response().body == b"GET /next  "


@pytest.mark.parametrize("where", ["one field", "many fields", "target", "count", "never ends"])
def test_a_head_beyond_its_bounds_is_a_431(where: str, client: RawClient) -> None:
    """Bytes and number of header fields are bounded, also while they are still arriving."""
    fields = {
        "one field": b"x: " + b"a" * 4096 + b"\r\n\r\n",
        "many fields": b"".join(b"x-%d: %s\r\n" % (n, b"a" * 400) for n in range(15)) + b"\r\n",
        "target": b"\r\n",
        "count": b"".join(b"x-%d: 1\r\n" % n for n in range(25)) + b"\r\n",
        "never ends": b"x: " + b"a" * 300_000,
    }
    target = b"/" + b"a" * 4096 if where == "target" else b"/"
    client.send(b"GET " + target + b" HTTP/1.1\r\n" + HOST + fields[where])
    assert_refused(client.read_response(), 431, "request_headers_too_large")
    assert client.closed_by_server()


def test_a_head_just_within_its_bounds_is_served(client: RawClient) -> None:
    """The bound refuses nothing that it allows, wherever in a packet the head begins."""
    padding = {"x-pad": "a" * 3900}
    client.send(request_bytes("/1", headers=padding) * 3)
    assert [client.read_response().status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("noise", [b"\r\n", b"0\r\nx: " + b"y" * 60_000, b"1" + b"0" * 5000])
def test_bytes_that_belong_to_nothing_are_bounded(noise: bytes, served: ServedApp) -> None:
    """Blank lines before a request, endless trailers, endless chunk sizes: nobody keeps us reading for nothing."""
    with served.client() as client:
        if noise != b"\r\n":
            client.send(CHUNKED + b"\r\n")
        client.send(noise * (10 if noise.startswith(b"0") else 1) if noise != b"\r\n" else noise * 5000)
        response = client.read_response()
        assert response.status == 400
        assert client.closed_by_server()


def test_of_a_flood_of_pipelined_requests_those_that_fit_are_answered(client: RawClient, echo: Echo) -> None:
    """Then the connection ends, as the last response says: a client sends the others again (RFC 9112, 9.3.2)."""
    client.send(request_bytes("/n") * 200)
    responses = [client.read_response()]
    while responses[-1].header("connection") is None:
        responses.append(client.read_response())
    assert {response.status for response in responses} == {200}
    assert client.closed_by_server()
    assert len(responses) == len(echo.scopes) <= 9


def test_a_client_that_waits_for_permission_to_send_its_body_gets_it(client: RawClient) -> None:
    """Expect: 100-continue (RFC 9110, section 10.1.1)."""
    client.send(b"POST / HTTP/1.1\r\n" + HOST + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n")
    assert client.read_head().status == 100
    client.send(b"abc")
    assert client.read_response().body == b"POST /  abc"


def test_a_client_of_http_1_0_is_never_told_to_go_on(client: RawClient) -> None:
    """It knows no interim response (RFC 9110, section 10.1.1)."""
    client.send(b"POST / HTTP/1.0\r\n" + HOST + b"content-length: 3\r\nexpect: 100-continue\r\n\r\nabc")
    response = client.read_response()
    assert (response.status, response.body) == (200, b"POST /  abc")


def test_a_large_body_arrives_whole_and_in_order(client: RawClient) -> None:
    """A body beyond every buffer."""
    body = bytes(range(256)) * 8192
    assert client.request("/big", body).body == b"POST /big  " + body


def test_nothing_stays_open_after_refusals(served: ServedApp) -> None:
    """A refused client gets a moment to read its answer, no more."""
    clients = [served.client() for _ in range(5)]
    for each in clients:
        each.send(b"BAD\r\n\r\n")
        assert each.read_response().status == 400
    eventually(lambda: served.connections == 0, 5.0)
    for each in clients:
        each.close()
