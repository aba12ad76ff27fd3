"""What a backend sees of a request, and what a caller sees of a backend's answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import faults
from tests.support.client import Response
from tests.support.scripts import JSON_TYPE, error_reply, json_reply, reply
from tests.support.surface import UPSTREAM_SECRET, Surface, chat_body, surface

PATH = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def surface_process() -> Iterator[Surface]:
    """One gateway for this module."""
    with surface() as running:
        yield running


@pytest.fixture
def place(surface_process: Surface) -> Surface:
    """The gateway with its upstream as new."""
    surface_process.upstream.forget()
    return surface_process


def post(place: Surface, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """One chat request with the main key."""
    with place.gateway.client() as client:
        return client.request(PATH, body, key=place.keys.main, headers=headers)


# -- what goes up ------------------------------------------------------------------------------------------------


def test_values_are_passed_on_byte_for_byte(place: Surface) -> None:
    """Every value, of fields known and unknown, reaches the backend as the very bytes that the caller wrote."""
    values = {
        "messages": rb'[ {"role":"user", "content":"\u00e9\ud83d\ude00 \/ \u2028 caf' + "é".encode() + rb'"} ]',
        "temperature": b"1.0",
        "top_p": b"1e-1",
        "seed": b"12345678901234567890123456789012345678901234567890",
        "logit_bias": b'{"50256":-100, "1":1E5,"1":2}',
        "frequency_penalty": b"0.10000000000000000000000000000001",
        "presence_penalty": b"-0",
        "x_float": b"1e400",
        "x_list": b"[ 1 ,2,\t3\n]",
        "x_null": b"null",
        "x_empty": b"{}",
        "n": b"2",
        "stream": b"false",
    }
    members = [b'"%s" : %s' % (name.encode(), value) for name, value in values.items()]
    assert post(place, b'{ "model" : "chat" ,' + b" ,\n".join(members) + b" }").status == 200
    [request] = place.upstream.requests
    sent = b",".join(b'"%s":%s' % (name.encode(), value) for name, value in values.items())
    assert request.body == b'{"model":"upstream-model",' + sent + b"}"


def test_escaped_keys_keep_their_meaning(place: Surface) -> None:
    """A key that was written with escapes reaches the backend as the same key, and as the one that was judged."""
    body = rb'{"mod\u0065l":"chat","m\u0065ssages":[{"role":"user","content":"x"}],"a\"\\\n\u0000b":1}'
    assert post(place, body).status == 200
    [request] = place.upstream.requests
    assert request.json() == json.loads(body) | {"model": "upstream-model"}


def test_head_that_a_backend_sees(place: Surface) -> None:
    """A backend sees its own credential and headers and a trace; of the caller's head nothing else at all."""
    private = {
        "cookie": "session=secret-cookie",
        "x-forwarded-for": "198.51.100.7",
        "x-real-ip": "198.51.100.7",
        "forwarded": "for=198.51.100.7",
        "x-request-id": "caller-request-id",
        "user-agent": "caller-agent/1.0",
        "openai-organization": "org-caller",
        "x-team": "caller-team",
        "te": "trailers",
        "keep-alive": "timeout=5",
        "connection": "keep-alive, x-hop",
        "x-hop": "hop-by-hop",
        "proxy-authorization": "Basic Y2FsbGVy",
        "accept-encoding": "gzip, br",
        "x-api-key": place.keys.main,
        "api-key": place.keys.main,
    }
    assert post(place, chat_body(), private).status == 200
    [request] = place.upstream.requests
    names = [name for name, _ in request.headers]
    assert sorted(names) == sorted(set(names))
    trace = request.header("traceparent") or ""
    assert dict(request.headers) == {
        "host": f"127.0.0.1:{place.upstream.port}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "authorization": f"Bearer {UPSTREAM_SECRET}",
        "x-team": "llm",
        "traceparent": trace,
        "content-length": str(len(request.body)),
    }
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", trace)


def test_trace_goes_on(place: Surface) -> None:
    """A caller's trace goes on at the backend with a span of its own, its sampling and its state kept."""
    head = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=a,other=b", "x-request-id": "traced"}
    assert post(place, chat_body(), head).status == 200
    [request] = place.upstream.requests
    version, trace, span, flags = (request.header("traceparent") or "").split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != SPAN
    assert request.header("tracestate") == "vendor=a,other=b"
    line = place.gateway.wait_for_log(lambda line: line.get("request_id") == "traced")
    assert line["trace_id"] == TRACE


@pytest.mark.parametrize(
    "traceparent", ["", "00-0-0-01", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "x" * 999]
)
def test_malformed_trace_starts_anew(place: Surface, traceparent: str) -> None:
    """A malformed trace is replaced by a new one, and its state is dropped."""
    assert post(place, chat_body(), {"traceparent": traceparent, "tracestate": "vendor=a"}).status == 200
    [request] = place.upstream.requests
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-00", request.header("traceparent") or "")
    assert request.header("tracestate") is None


def test_each_attempt_has_its_own_span(place: Surface) -> None:
    """A fallback is another span of the same trace."""
    place.upstream.enqueue(error_reply(500))
    assert post(place, chat_body("pair"), {"traceparent": f"00-{TRACE}-{SPAN}-01"}).status == 200
    first, second = ((request.header("traceparent") or "").split("-") for request in place.upstream.requests)
    assert first[1] == second[1] == TRACE
    assert first[2] != second[2]


# -- what comes down ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.parametrize("streamed", [False, True])
def test_refusals_pass_through(place: Surface, status: int, *, streamed: bool) -> None:
    """What a backend says against the request itself passes with its status, body and type; nothing else is tried."""
    body = b'{"error" : {"message":"too long, by 1.0", "type":"x","param":null,"code":"context_length_exceeded"}}\n'
    place.upstream.enqueue(reply(status, body=body, headers=[("content-type", "application/json; charset=utf-8")]))
    answer = post(place, chat_body("pair", stream=streamed))
    assert (answer.status, answer.body) == (status, body)
    assert answer.header("content-type") == "application/json; charset=utf-8"
    assert answer.header("x-llm-gateway-scenario") == "pair"
    assert len(place.upstream.requests) == 1


def test_refusal_that_is_no_json(place: Surface) -> None:
    """A refusal passes as it is, whatever its type and framing."""
    place.upstream.enqueue(reply(422, body=b"detail: no", headers=[("content-type", "text/plain")], framing="chunked"))
    answer = post(place, chat_body())
    assert (answer.status, answer.body, answer.header("content-type")) == (422, b"detail: no", "text/plain")


def test_headers_of_a_backend_stay_inside(place: Surface) -> None:
    """Nothing of a backend's head reaches the caller but the type of the content."""
    private = [("server", "secret-server"), ("set-cookie", "a=b"), ("x-ratelimit-remaining-tokens", "5"), ("via", "x")]
    place.upstream.enqueue(
        *(json_reply(json.loads(faults.plain_body()), status, headers=private) for status in (200, 400))
    )
    for status in (200, 400):
        answer = post(place, chat_body())
        assert answer.status == status
        assert {name for name, _ in answer.headers} == {
            "date", "content-type", "content-length", "x-request-id", "x-llm-gateway-scenario",
        }  # fmt: skip


@pytest.mark.parametrize("status", [401, 403, 404, 402, 405, 407, 301, 302, 204, 206, 451])
def test_misconfiguration_is_ours(place: Surface, status: int) -> None:
    """A status that is our fault is a 502 that says nothing to the caller; the log has the detail."""
    canary = "Incorrect API key provided: sk-operators-secret"
    request_id = f"misconfigured-{status}"
    place.upstream.enqueue(error_reply(status, canary, headers=[("location", "/elsewhere"), ("www-authenticate", "x")]))
    answer = post(place, chat_body(), {"x-request-id": request_id})
    assert answer.status == 502
    assert answer.json()["error"] == {
        "message": "The model backend failed to answer.",
        "type": "upstream_error",
        "param": None,
        "code": "upstream_failed",
    }
    assert answer.header("location") is None
    line = place.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)
    assert str(status) in line["attempts"][0]["detail"]
    assert canary not in json.dumps(line)


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 529, 408, 429])
def test_server_errors_stay_inside(place: Surface, status: int) -> None:
    """A backend's failure is told in our own words, without its body; overload stays visible as such."""
    place.upstream.enqueue(error_reply(status, "Traceback: /srv/model.py line 7"))
    answer = post(place, chat_body())
    assert answer.status == (503 if status in {429, 503, 529} else 502)
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ("7", "7"),
        ("0", "0"),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "0"),
        ("Mon, 01 Jan 0001 00:00:00 -0000", "0"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "86400"),
        ("99999999", "86400"),
        ("9" * 400, "86400"),
        ("soon", "1"),
        ("1.2", "1"),
        ("-5", "1"),
        ("Mon, 99 Foo 2026 99:99:99 +9999", "1"),
    ],
)
def test_retry_after_is_passed_on(place: Surface, sent: str, passed_on: str) -> None:
    """A backend's ``retry-after`` is passed on in whole seconds, bounded; a senseless one becomes a second."""
    place.upstream.enqueue(error_reply(503, headers=[("retry-after", sent)]))
    answer = post(place, chat_body())
    assert (answer.status, answer.header("retry-after")) == (503, passed_on)


def test_soonest_retry_after_of_the_plan(place: Surface) -> None:
    """Where every backend asked for patience, the caller is told the shortest time."""
    waits = [error_reply(429, headers=[("retry-after", wait)]) for wait in ("30", "5")]
    place.upstream.enqueue(*waits)
    answer = post(place, chat_body("pair"))
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert len(place.upstream.requests) == 2


def test_no_room_at_the_backend(place: Surface) -> None:
    """At a backend's bound of concurrent calls the next one is a 503 with ``retry-after`` and is not sent."""
    place.upstream.enqueue(faults.hang_mid_stream())
    with place.gateway.client() as first:
        head = f"POST {PATH} HTTP/1.1\r\nhost: g\r\nx-api-key: {place.keys.main}\r\n"
        body = json.dumps(chat_body("narrow", stream=True)).encode()
        first.send(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        first.read_until(b"data: ")
        answer = post(place, chat_body("narrow"))
        assert (answer.status, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.header("retry-after") == "1"
    place.upstream.wait_for_disconnect()
    place.gateway.assert_nothing_in_flight()
    assert post(place, chat_body("narrow")).status == 200
    assert len(place.upstream.requests) == 2


@pytest.mark.parametrize("size", [900_000, 10_000_000])
def test_large_refusal(place: Surface, size: int) -> None:
    """A refusal is passed on up to a bound; beyond it the status stands and the body is ours."""
    place.upstream.enqueue(faults.large_error(400, size))
    answer = post(place, chat_body())
    assert answer.status == 400
    assert (len(answer.body) > size) == (size < 1_000_000)
    assert size < 1_000_000 or answer.json()["error"]["code"] == "upstream_refused"


def test_reply_is_passed_on_byte_for_byte(place: Surface) -> None:
    """A whole reply is the backend's, byte for byte, white space and unknown members included."""
    body = (
        b'{ "id":"x", "object":"chat.completion","created":1,"model":"m",\n "choices":[ {"index":0, "x":1.0e5} ] }\n\n'
    )
    place.upstream.enqueue(reply(body=body, headers=[JSON_TYPE]))
    assert post(place, chat_body()).body == body
