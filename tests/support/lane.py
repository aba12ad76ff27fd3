"""One gateway in front of two scripted upstreams, set up to see faults soon: short timeouts, plans with and without
a fallback. After each use ``assert_clean`` says that nothing of it was left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.client import RawClient, Response, request_bytes
from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess, LogLine
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import black_hole_port, eventually, refusing_port

PATH = "/v1/chat/completions"
FIRST_BYTE_S, IDLE_S, CONNECT_S = 0.4, 0.4, 0.3
_TIMEOUTS = {"connect": "300ms", "firstByte": "400ms", "idle": "400ms", "total": "20s"}
_PATIENT = {"connect": "2s", "firstByte": "30s", "idle": "30s", "total": "60s"}


def ask_for(model: str, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream} | fields


class Lane:
    """The gateway and its upstreams.

    Scenarios: ``alone`` (main), ``safe`` (main, then second), ``dead`` and ``dead-safe`` (a port that refuses),
    ``hole`` and ``hole-safe`` (a port that swallows), ``patient`` (main with long timeouts), ``bounded`` and
    ``bounded-safe`` (main with room for one call).
    """

    def __init__(self, gateway: GatewayProcess, main: ScriptedUpstream, second: ScriptedUpstream) -> None:
        self.gateway, self.main, self.second = gateway, main, second

    def client(self, **options: Any) -> RawClient:
        """A connection to the gateway."""
        return self.gateway.client(**options)

    def request(self, model: str, **fields: Any) -> bytes:
        """The bytes of a request with the tenant's key; ``headers`` may be among the fields."""
        headers = fields.pop("headers", None)
        return request_bytes(PATH, ask_for(model, **fields), key=self.gateway.key, headers=headers)

    def call(self, model: str, **fields: Any) -> Response:
        """One request on a connection of its own."""
        with self.client() as client:
            client.send(self.request(model, **fields))
            return client.read_response()

    def log_of(self, response: Response) -> LogLine:
        """The log line of a response."""
        wanted = response.header("x-request-id")
        return self.gateway.wait_for_log(lambda line: line.get("request_id") == wanted)

    def log_of_id(self, request_id: str) -> LogLine:
        """The log line of the request that was sent with this ``x-request-id``."""
        return self.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)

    @contextmanager
    def counts(self, name: str, by: float, **labels: str) -> Iterator[None]:
        """The block makes a counter grow by exactly this much."""
        before = self.gateway.metrics().value(name, **labels)
        yield
        self.gateway.wait_for_metric(name, before + by, 5.0, **labels)

    def forget(self) -> None:
        """The upstreams as new."""
        self.main.forget()
        self.second.forget()

    def assert_clean(self) -> None:
        """No request, attempt, client connection or busy upstream connection is left."""
        self.gateway.assert_nothing_in_flight()
        for upstream in (self.main, self.second):
            upstream.wait_for_idle()
        eventually(self._holds_only_idle_connections, what="no connection but idle ones to the upstreams")

    def _holds_only_idle_connections(self) -> bool:
        held = [each for each in self.gateway._sockets() if each.raddr]
        clients = [each for each in held if each.laddr.port == self.gateway.port]
        assert not clients, f"client connections: {clients}"
        for upstream in (self.main, self.second):
            kept = [each for each in held if each.raddr.port == upstream.port]
            assert len(kept) == upstream.open_connections, f"the upstream sees other connections than {kept}"
            assert len(kept) <= 20, f"{len(kept)} connections are kept"
        return True


def attempts(line: LogLine) -> list[tuple[str, str]]:
    """The attempts of a log line: backend and outcome, in order."""
    return [(each["backend"], each["outcome"]) for each in line["attempts"]]


@contextmanager
def lane(env: Mapping[str, str] | None = None) -> Iterator[Lane]:
    """A lane from the start of its gateway to its end."""
    key = new_key()
    with (
        ScriptedUpstream(send_buffer=65_536) as main,
        ScriptedUpstream() as second,
        refusing_port() as dead,
        black_hole_port() as hole,
        GatewayProcess(_documents(key, main, second, (dead, hole)), key=key, env=env) as gateway,
    ):
        yield Lane(gateway, main, second)


def _documents(key: str, main: ScriptedUpstream, second: ScriptedUpstream, ports: tuple[int, int]) -> list[Document]:
    dead, hole = (f"http://127.0.0.1:{port}" for port in ports)
    urls = {"main": main.url, "second": second.url, "dead": dead, "hole": hole}
    return [
        *(backend(name, f"{url}/v1", timeouts=_TIMEOUTS) for name, url in urls.items()),
        backend("patient", f"{main.url}/v1", timeouts=_PATIENT),
        backend("bounded", f"{main.url}/v1", timeouts=_PATIENT, maxConcurrentRequests=1),
        scenario("alone", "main"),
        scenario("patient", "patient"),
        scenario("safe", "main", "second"),
        *(scenario(name, name) for name in ("dead", "hole", "bounded")),
        *(scenario(f"{name}-safe", name, "second") for name in ("dead", "hole", "bounded")),
        scenario("hopeless", "dead", "hole", "main"),
        tenant("acme"),
        api_key("acme-key", key),
    ]
