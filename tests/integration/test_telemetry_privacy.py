"""No prompt, no completion and no credential is ever in the logs or the metrics, whatever happens to a request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import faults
from tests.support.client import ConnectionEnded, request_bytes
from tests.support.documents import api_key, backend, document, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.scripts import (
    Behaviour,
    Chat,
    Close,
    Hang,
    Script,
    Send,
    error_reply,
    event,
    json_reply,
    reply,
    stream,
)
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

CHAT = "/v1/chat/completions"
MARK = "CANARY"
PROMPT, COMPLETION, KEY, WRONG_KEY, SECRET, COOKIE, REGISTRY = (
    f"{MARK}-{what}-7f3a9"
    for what in ("prompt", "completion", "good-key", "wrong-key", "upstream-secret", "cookie", "file")
)
SAID = f"backend says: {PROMPT} {COMPLETION} Bearer {SECRET}"

BEHAVIOURS: dict[str, Behaviour] = {
    "good": Chat(pieces=(COMPLETION, COMPLETION)),
    "no usage": Chat(pieces=(COMPLETION,), usage=None),
    **{f"status {status}": error_reply(status, SAID) for status in (400, 401, 403, 404, 422, 429, 500, 503)},
    "error body with 200": json_reply({"error": {"message": SAID}}),
    "error event first": stream([event({"error": {"message": SAID}})]),
    "error event later": stream([*faults.events()[:2], event({"error": {"message": SAID}})]),
    "no JSON": reply(body=SAID.encode()),
    "JSON of another form": reply(body=json.dumps({"choices": {SAID: SAID}, "usage": SAID}).encode()),
    "broken JSON": reply(body=b'{"choices":[{"message":{"content":"' + SAID.encode()),
    "event that is no JSON": stream([f"data: {SAID}\n\n".encode()]),
    "events of another form": stream([b'data: {"choices": 5, "x": "' + SAID.encode() + b'"}\n\n']),
    "broken stream": stream([event({"choices": [{"delta": {"content": SAID}}]})], ending=[Close()]),
    "bad chunk": stream([*faults.events()[:2]], ending=[Send(f"{SAID}\r\n".encode()), Close()]),
    "no HTTP": faults.garbage(f"{SAID}\r\n\r\n".encode()),
    "bad header": Script((Send(f"HTTP/1.1 200 OK\r\n{SAID}\x00: {SAID}\r\n\r\n".encode()), Close())),
    "bad status line": Script((Send(f"HTTP/1.1 {SAID}\r\n\r\n".encode()), Close())),
    "bad length": reply(headers=[("content-length", SAID)], body=b"{}"),
    "bad coding": reply(headers=[("content-encoding", "gzip")], body=SAID.encode()),
    "huge event": stream([b"data: " + SAID.encode() * 30_000]),
}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """The backend."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[GatewayProcess]:
    """A gateway that logs as much as it can, whose backends' credential is a file."""
    secret = {"auth": {"type": "bearer", "secret": {"file": "credential"}}}
    documents = [
        backend("main", f"{upstream.url}/v1", **secret),
        scenario("chat", "main"),
        tenant("acme"),
        api_key("acme-key", KEY),
    ]
    with GatewayProcess(
        documents, key=KEY, env={"LLM_GATEWAY_LOG_LEVEL": "debug"}, secrets={"credential": SECRET.encode()}
    ) as process:
        yield process


def body(**fields: Any) -> dict[str, Any]:
    """A chat request whose every text is private."""
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    return {"model": "chat", "messages": messages, "user": PROMPT, "metadata": {PROMPT: PROMPT}} | fields


def everything_said(gateway: GatewayProcess) -> str:
    """All output so far and what the management port shows."""
    shown = [gateway.management(path).body.decode() for path in ("/metrics", "/readyz", "/livez")]
    return "\n".join([*(json.dumps(line) for line in gateway.logs()), *gateway.stray_output(), *shown])


def test_nothing_private_is_ever_said(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """After every kind of request, answer and failure, no canary is in stdout, stderr, metrics or health."""
    count = 0
    for behaviour in BEHAVIOURS.values():
        for streamed in (False, True):
            upstream.enqueue(behaviour)
            _send(gateway, request_bytes(CHAT, body(stream=streamed), key=KEY, headers={"cookie": COOKIE}))
            upstream.forget()
            count += 1
    for request in _wrong_requests():
        _send(gateway, request)
    _leave_in_the_middle(gateway, upstream)
    gateway.assert_nothing_in_flight()
    eventually(lambda: sum(line["event"] == "request" for line in gateway.logs()) > count + 10)
    _break_the_registry(gateway)
    assert MARK not in everything_said(gateway)
    gateway.stop()
    assert MARK not in "\n".join([*map(json.dumps, gateway.logs()), *gateway.stray_output()])


def test_canaries_do_arrive(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    """The canaries are where they belong: the prompt and the secret at the backend, the completion at the caller."""
    upstream.enqueue(BEHAVIOURS["good"])
    with gateway.client() as client:
        answer = client.request(CHAT, body(), key=KEY)
    assert COMPLETION in answer.body.decode()
    [request] = upstream.requests
    assert PROMPT in request.body.decode()
    assert request.header("authorization") == f"Bearer {SECRET}"
    assert KEY not in str(request)


def _send(gateway: GatewayProcess, request: bytes) -> None:
    with gateway.client() as client:
        client.send(request)
        with contextlib.suppress(ConnectionEnded):  # some are not worth an answer
            client.read_response()


def _wrong_requests() -> Iterator[bytes]:
    wrong_headers: list[dict[str, str]] = [
        {"authorization": f"Bearer {WRONG_KEY}"},
        {"authorization": f"Basic {WRONG_KEY}"},
        {"x-api-key": WRONG_KEY},
        {"api-key": WRONG_KEY, "x-api-key": KEY},
        {"x-api-key": f"{WRONG_KEY}\x7f"},
        {"x-api-key": KEY, "x-request-id": f"<{PROMPT}>", "traceparent": PROMPT, "tracestate": PROMPT},
        {"x-api-key": KEY, "content-encoding": PROMPT},
    ]
    for headers in wrong_headers:
        yield request_bytes(CHAT, body(), headers=headers)
    bodies: list[bytes | dict[str, Any]] = [
        body(model=PROMPT),
        body(messages=PROMPT),
        body(n=PROMPT),
        body(stream=PROMPT),
        body(prompt_variables={PROMPT: PROMPT}),
        json.dumps({PROMPT: PROMPT}).encode(),
        f'{{"{PROMPT}": {PROMPT}}}'.encode(),
        f'{{"{PROMPT}": 1, "{PROMPT}": 2}}'.encode(),
        PROMPT.encode(),
    ]
    for path in (CHAT, "/generate", "/chat/completion"):
        for each in bodies:
            yield request_bytes(path, each, key=KEY)
        yield request_bytes(path, {"prompt": PROMPT, "model": "chat"}, key=KEY)
    yield request_bytes(f"/{PROMPT}?key={WRONG_KEY}", key=WRONG_KEY)
    yield request_bytes(f"/v1/models?api-key={WRONG_KEY}", key=WRONG_KEY)
    yield f"GET /{PROMPT} HTTP/9.9\r\nauthorization: {WRONG_KEY}\r\n\r\n".encode()
    yield f"{PROMPT}\r\n\r\n".encode()
    yield f"GET / HTTP/1.1\r\nhost: g\r\n{WRONG_KEY} : {WRONG_KEY}\r\n\r\n".encode()
    yield f"POST {CHAT} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: {PROMPT}\r\n\r\n".encode()
    yield f"POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: {PROMPT}\r\n\r\n".encode()


def _leave_in_the_middle(gateway: GatewayProcess, upstream: ScriptedUpstream) -> None:
    upstream.enqueue(stream([event({"choices": [{"delta": {"content": COMPLETION}}]})], ending=[Hang()]))
    with gateway.client() as client:
        client.send(request_bytes(CHAT, body(stream=True), key=KEY))
        client.read_until(COMPLETION.encode())
    upstream.wait_for_disconnect()
    with gateway.client() as client:
        client.send(request_bytes(CHAT, body(), key=KEY)[:-10])


def _break_the_registry(gateway: GatewayProcess) -> None:
    broken = [
        backend("leaky", "http://127.0.0.1:1/v1", headers={"authorization": f"Bearer {REGISTRY}"}),
        backend("leakier", f"http://user:{REGISTRY}@127.0.0.1/v1"),
        backend("leakiest", "http://127.0.0.1:1/v1", auth={"type": "bearer", "secret": {"value": REGISTRY}}),
        api_key("leaked", REGISTRY, digests=[{"sha256": REGISTRY}]),
        document("ApiKey", "leaked-too", {"tenant": "acme", "key": REGISTRY, "digests": [REGISTRY]}),
    ]
    gateway.write_registry(broken, "broken.yaml")
    gateway.wait_for_metric("llm_gateway_registry_reload_failures_total", 1)
