"""A fault of the gateway itself: the caller is told nothing but that, the operator everything, and it counts once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from gateway.edge import EdgeOptions, build
from gateway.edge.build import Served
from gateway.operations import Operations
from gateway.pipeline import Pipeline
from gateway.telemetry import AccessLog, Metrics, RequestRecord

SECRET = "CANARY: /srv/gateway/secret.py"


class FailingPipeline:
    """Whatever it is asked, it fails in a way that nobody foresaw."""

    finished = None  # told of requests of canaries only

    async def identify(self, *_: object) -> None:
        """Lets everybody in."""

    def models(self, *_: object) -> None:
        """Fails."""
        raise ZeroDivisionError(SECRET)

    async def chat(self, *_: object) -> None:
        """Fails."""
        raise ZeroDivisionError(SECRET)


class Records:
    """Stands in for metrics and log: keeps the records of finished requests."""

    def __init__(self) -> None:
        self.started = 0
        self.finished: list[RequestRecord] = []
        self.written: list[RequestRecord] = []

    def request_started(self) -> None:
        """Counts."""
        self.started += 1

    def request_finished(self, record: RequestRecord) -> None:
        """Keeps."""
        self.finished.append(record)

    def write(self, record: RequestRecord) -> None:
        """Keeps."""
        self.written.append(record)


App = Callable[
    [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


def call(app: App, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one request to an ASGI application that does not stream."""
    sent: list[dict[str, Any]] = []
    pieces = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for piece in pieces:
            return piece
        return await asyncio.Event().wait() and {}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "headers": [], "scheme": "http", "root_path": "",
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(cast("Any", app(scope, receive, send)))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", b'{"model":"x","messages":[{}]}'),
        ("GET", "/v1/models", b""),
        ("POST", "/generate", b'{"prompt":"x"}'),
        ("POST", "/chat/completion", b'{"prompt":"x"}'),
    ],
)
def test_fault_is_told_in_the_envelope(caplog: pytest.LogCaptureFixture, method: str, path: str, body: bytes) -> None:
    """An unforeseen exception is a 500 in the envelope without its text, a trace in the log, and one record."""
    records = Records()
    app = build(
        Served(cast("Pipeline", FailingPipeline()), cast("Operations", None)),
        cast("Metrics", records),
        cast("AccessLog", records),
        EdgeOptions(),
    )
    with caplog.at_level(logging.ERROR):
        status, answer = call(cast("App", app), method, path, body)
    assert status == 500
    assert json.loads(answer)["error"] == {
        "message": "The gateway failed to handle the request.",
        "type": "api_error",
        "param": None,
        "code": "internal_error",
    }
    assert SECRET in caplog.text
    assert records.started == len(records.finished) == len(records.written) == 1
    assert (records.finished[0].status, records.finished[0].detail) == (500, "ZeroDivisionError")
