"""A fleet before one upstream that answers each backend as the test says, and callers that do not stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.support.client import Response
from tests.support.documents import Document, api_key, backend, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.scripts import Behaviour, Chat, Received, Script
from tests.support.upstream import ScriptedUpstream

PATH = "/v1/chat/completions"
OVERRIDE: Document = {"targets": [{"backend": "new"}]}


class ByModel:
    """Answers by the model that a backend names: ``main`` and ``new``; well, until the test says otherwise."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}

    def __call__(self, request: Received) -> Script:
        """The script for one request."""
        behaviour = self.behaviours.get(str(request.json()["model"]), Chat())
        return behaviour if isinstance(behaviour, Script) else behaviour(request)


def documents(url: str, key: str, **spec: Any) -> list[Document]:
    """The scenario ``chat`` on the backend ``main``, with a backend ``new`` beside it; ``spec`` is the scenario's."""
    return [
        backend("main", f"{url}/v1", model="main"),
        backend("new", f"{url}/v1", model="new"),
        scenario("chat", "main", **spec),
        tenant("acme"),
        api_key("acme-key", key),
    ]


def body(**fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "chat", "messages": [{"role": "user", "content": "hi"}]} | fields


def ask(gateway: GatewayProcess, headers: Mapping[str, str] | None = None, **fields: Any) -> Response:
    """One call over a connection of its own."""
    with gateway.client() as client:
        more = {"connection": "close", **(headers or {})}
        return client.request(PATH, body(**fields), key=gateway.key, headers=more)


def backends_asked(upstream: ScriptedUpstream) -> list[str]:
    """The models of all requests so far, in order."""
    return [str(each.json()["model"]) for each in list(upstream.requests)]


class Callers:
    """One caller per gateway, calling until the end of the block, whatever is answered."""

    def __init__(self, gateways: Sequence[GatewayProcess], every_s: float = 0.01, **fields: Any) -> None:
        self._every_s = every_s
        self._body = body(**fields)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(each,), daemon=True) for each in gateways]
        self.statuses: list[int] = []
        self.failures: list[Exception] = []

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(30)
        assert not self.failures, self.failures

    def _call(self, gateway: GatewayProcess) -> None:
        try:
            with gateway.client() as client:
                while not self._stop.is_set():
                    self.statuses.append(client.request(PATH, self._body, key=gateway.key).status)
                    time.sleep(self._every_s)  # the pace of a caller
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is told at the end of the block
            self.failures.append(failure)
