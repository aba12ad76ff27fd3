"""Requests that are wrong are refused with the field or position named, and nothing of them reaches a backend."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest

from tests.support.client import ConnectionEnded, RawClient, Response
from tests.support.gateway import GatewayProcess
from tests.support.surface import MESSAGES, chat_body
from tests.support.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
Pair = tuple[GatewayProcess, ScriptedUpstream]
MIB = 1 << 20


def post(pair: Pair, body: bytes | dict[str, Any], **headers: str) -> Response:
    """One chat request with a good key."""
    with pair[0].client() as client:
        return client.request(PATH, body, key=pair[0].key, headers={n.replace("_", "-"): v for n, v in headers.items()})


def error_of(answer: Response, status: int = 400) -> dict[str, Any]:
    """The error of a refusal, whose envelope has all four members."""
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert isinstance(error, dict)
    return error


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"", 0),
        (b"{", 1),
        (b'{"model":"chat","messages":[', 28),
        (b'{"model":"chat" "messages":[]}', 16),
        (b'{"model":"chat","messages":[{"role":"user"}],}', 45),
        (b'{"model":"chat","messages":[{"role":nan}]}', 36),
        (b'{"model":"chat","messages":[{"a":01}]}', 34),
        (b'{"model":"chat","messages":[{"a":"\x01"}]}', 34),
        (b'{"model":"chat","messages":[{"a":"\xff"}]}', 34),
        (b'{"model":"chat","messages":[{"a":1}]} x', 38),
        (b'{"model":"chat","messages":[{"a":1}]}{}', 37),
        (b"{'model':'chat'}", 1),
        (b'\xef\xbb\xbf{"model":"chat"}', 0),
    ],
)
def test_invalid_json(shared_pair: Pair, body: bytes, position: int) -> None:
    """A body that is no JSON is a 400 that says where, to within a byte."""
    error = error_of(post(shared_pair, body))
    assert error["code"] == "invalid_json"
    found = re.search(r"\(byte (\d+)\)", error["message"])
    assert found is not None, error
    assert int(found[1]) - position in {0, 1}
    assert not shared_pair[1].requests


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1", b"[" * 100_000])
def test_not_an_object(shared_pair: Pair, body: bytes) -> None:
    """JSON that is no object is a 400."""
    assert error_of(post(shared_pair, body))["message"] == "The body must be a JSON object."


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": ...}, "missing_field", "model"),
        ({"model": None}, "missing_field", "model"),
        ({"model": ""}, "invalid_value", "model"),
        ({"model": 5}, "invalid_type", "model"),
        ({"model": ["chat"]}, "invalid_type", "model"),
        ({"messages": ...}, "missing_field", "messages"),
        ({"messages": None}, "invalid_type", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hello"}, "invalid_type", "messages"),
        ({"messages": {"role": "user"}}, "invalid_type", "messages"),
        ({"stream": "true"}, "invalid_type", "stream"),
        ({"stream": 1}, "invalid_type", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"stream": True, "stream_options": []}, "invalid_type", "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "invalid_type", "stream_options"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"max_tokens": "10"}, "invalid_type", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
        ({"max_completion_tokens": True}, "invalid_type", "max_completion_tokens"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 129}, "invalid_value", "n"),
        ({"n": "2"}, "invalid_type", "n"),
    ],
)
def test_wrong_field(shared_pair: Pair, change: dict[str, Any], code: str, param: str) -> None:
    """A field that is missing, empty or of a wrong type is a 400 that names it; ``...`` leaves a field out."""
    body = {name: value for name, value in (chat_body() | change).items() if value is not ...}
    error = error_of(post(shared_pair, body))
    assert (error["code"], error["param"]) == (code, param)
    assert f"`{param}`" in error["message"]
    assert not shared_pair[1].requests


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"model":"chat","messages":[{}],"model":"of-others"}', "model"),
        (b'{"model":"chat","messages":[{}],"mod\\u0065l":"of-others"}', "model"),
        (b'{"\\u006d\\u006F\\u0064\\u0065\\u006C":"of-others","messages":[{}],"model":"chat"}', "model"),
        (b'{"model":"chat","messages":[{}],"messages":[{}]}', "messages"),
        (b'{"model":"chat", "messages":[{}], "stream":false, "stream":true}', "stream"),
        (b'{"model":"chat","messages":[{}],"max_tokens":1,"max_tokens":1}', "max_tokens"),
        (b'{"model":"chat","messages":[{}],"x":1,"y":2,"x":1}', "x"),
        (b'{"model":"chat","messages":[{}],"":1,"":1}', ""),
        (b'{"model":"chat","messages":[{}],"a\\/b":1,"a/b":1}', "a/b"),
        (b'{"model":"chat","messages":[{}],"\xc3\xa9":1,"\\u00e9":1}', "é"),
        (b'{"model":"chat","messages":[{}],"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":1}', "\N{GRINNING FACE}"),
        (b'{"model":"chat","messages":[{}],"\\t":1,"\\u0009":1}', "\t"),
    ],
)
def test_repeated_key(shared_pair: Pair, body: bytes, field: str) -> None:
    """A top-level key that appears twice, however it is spelled, is a 400 that names it: it could mean two things."""
    error = error_of(post(shared_pair, body))
    assert (error["code"], error["param"]) == ("repeated_field", field)
    assert not shared_pair[1].requests


def test_similar_keys_are_not_repeated(shared_pair: Pair) -> None:
    """Keys that only look alike (a space, normal form, nesting) are different keys and pass; other case is refused."""
    assert post(shared_pair, json.dumps({"Model": "other"} | chat_body()).encode()).status == 400
    body = {"models": 1, "model ": 2, "\u00e9": 3, "e\u0301": 4, "x": {"model": {"model": 1}}} | chat_body()
    assert post(shared_pair, json.dumps(body).encode()).status == 200
    assert post(shared_pair, json.dumps(body, ensure_ascii=False).encode()).status == 200
    for request in shared_pair[1].requests:
        assert request.json() == body | {"model": "upstream-model"}


def test_too_many_fields(shared_pair: Pair) -> None:
    """The number of top-level fields is bounded."""
    fields: dict[str, Any] = {f"field{number}": number for number in range(254)}
    assert post(shared_pair, chat_body(**fields)).status == 200
    error = error_of(post(shared_pair, chat_body(**fields, one_more=1)))
    assert error["code"] == "too_many_fields"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("field", [b"x", b"messages", b"prompt_variables", b"stream_options", b"model"])
def test_deep_json_is_survived(shared_pair: Pair, opening: bytes, field: bytes) -> None:
    """JSON nested 100,000 deep, closed or not, is a 400 wherever it is, and the next request is served."""
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    for end in (b"", b"1" + closing * 100_000):
        rest = b'"y":1' if field == b"messages" else b'"messages":[{}]'
        body = b'{"model":"chat",%s,"%s":%s}' % (rest, field, opening * 100_000 + end)
        assert error_of(post(shared_pair, body))["code"] in {"invalid_json", "repeated_field"}
    assert post(shared_pair, chat_body()).status == 200
    assert len(shared_pair[1].requests) == 1


def test_largest_body(shared_pair: Pair) -> None:
    """A body of exactly the bound passes, whole."""
    empty = json.dumps(chat_body(x="")).encode()
    padding = "y" * (20 * MIB - len(empty))
    assert post(shared_pair, chat_body(x=padding)).status == 200
    assert shared_pair[1].requests[0].json()["x"] == padding


def test_body_announced_as_too_large(shared_pair: Pair) -> None:
    """A content-length above the bound is a 413 before any of the body is sent."""
    with shared_pair[0].client() as client:
        client.send(
            f"POST {PATH} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {shared_pair[0].key}\r\n"
            f"content-length: {20 * MIB + 1}\r\nexpect: 100-continue\r\n\r\n".encode()
        )
        error = error_of(client.read_response(), 413)
    assert error["code"] == "request_too_large"
    assert str(20 * MIB) in error["message"]
    assert not shared_pair[1].requests


def test_chunked_body_that_grows_too_large(shared_pair: Pair) -> None:
    """A chunked body is a 413 once it exceeds the bound, and the connection closes."""
    with shared_pair[0].client(timeout_s=20) as client:
        client.send(
            f"POST {PATH} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {shared_pair[0].key}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        piece = b"%x\r\n%s\r\n" % (MIB, b"z" * MIB)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(21):
                client.send(piece)
        answer = client.read_response()
        assert error_of(answer, 413)["code"] == "request_too_large"
        assert answer.header("connection") == "close"
    assert not shared_pair[1].requests


def test_chunked_body(shared_pair: Pair) -> None:
    """A chunked body is a body like any other."""
    body = json.dumps(chat_body()).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for at in range(len(body))) + b"0\r\n\r\n"
    with shared_pair[0].client() as client:
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: g\r\nx-api-key: {shared_pair[0].key}\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        client.send(head.encode() + chunks)
        assert client.read_response().status == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_compressed_body(shared_pair: Pair, coding: str) -> None:
    """A compressed body is refused: what is bounded and billed is what arrives."""
    error = error_of(post(shared_pair, b"\x1f\x8b", content_encoding=coding))
    assert (error["code"], error["param"]) == ("unsupported_encoding", "content-encoding")
    assert post(shared_pair, chat_body(), content_encoding="identity").status == 200


def test_a_refusal_keeps_the_connection(shared_pair: Pair) -> None:
    """After a refusal of a complete request the connection serves the next one."""
    with shared_pair[0].client() as client:
        for body in (b"{", b"[]", json.dumps(chat_body("nope")).encode()):
            assert client.request(PATH, body, key=shared_pair[0].key).status in {400, 404}
        assert client.request(PATH, chat_body(), key="wrong-key-wrong-key").status == 401
        assert client.request(PATH, chat_body(), key=shared_pair[0].key).status == 200


def test_half_a_body_reaches_nobody(shared_pair: Pair) -> None:
    """A client that leaves within its body is logged as gone, and no backend hears of it."""
    gateway, upstream = shared_pair
    with gateway.client() as client:
        body = json.dumps({"model": "chat", "messages": MESSAGES}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: g\r\nx-api-key: {gateway.key}\r\nx-request-id: half-a-body\r\n"
        client.send(head.encode() + b"content-length: %d\r\n\r\n" % (len(body) + 1) + body)
    line = gateway.wait_for_log(lambda line: line.get("request_id") == "half-a-body")
    assert (line["status"], line["outcome"]) == (499, "client_gone")
    assert not upstream.requests


def test_garbage_on_the_port(shared_pair: Pair) -> None:
    """Bytes that are no HTTP are answered 400 in the envelope, and the connection closes."""
    with RawClient("127.0.0.1", shared_pair[0].port) as client:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        try:
            answer = client.read_response()
        except ConnectionEnded:  # also fine: there is nobody who reads an answer
            return
        assert error_of(answer)["code"] == "invalid_http"
        assert client.closed_by_server()
