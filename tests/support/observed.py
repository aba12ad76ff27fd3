"""Two gateways to which everything happens that can be observed: traffic that goes well and in every way wrong.

For tests of what operators see. Callers go on until the block ends; the load is bounded by their pauses.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tests.support.admin import ADMIN_ENV, post
from tests.support.client import ConnectionEnded, RawClient, request_bytes
from tests.support.documents import Document, api_key, backend, document, new_key, scenario, tenant
from tests.support.faults import reset_mid_stream
from tests.support.gateway import GatewayProcess
from tests.support.limited import PATH, body, limit
from tests.support.scripts import Behaviour, Chat, Tokens, error_reply, json_reply
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey
from tests.support.waiting import refusing_port

PAUSE_S = 0.03
SCENARIOS = (
    *("chat", "shaky", "breaks", "shaky", "locked", "wrong", "throttled", "shaky", "queues", "busy"),
    *("rolled", "kept", "similar"),
)
BEHAVIOURS: dict[str, Behaviour] = {
    "main": Chat(usage=Tokens(prompt=40, completion=12, cached=8), delay_s=0.01),
    "breaks": reset_mid_stream(),
    "locked": error_reply(401),
    "wrong": error_reply(404),
    "throttled": error_reply(429, headers=[("retry-after", "1")]),
    "slow": Chat(delay_s=0.1),
    "embed": json_reply({"data": [{"embedding": [1.0, 0.0]}], "model": "embed"}),
}
_SPECS: dict[str, Document] = {
    "chat": {
        "targets": [{"backend": "main"}],
        "answer": {"schema": {"type": "object"}},  # which the backend does not keep to
        "shadow": {"percent": 20, "override": {"targets": [{"backend": "main"}]}},
    },
    "kept": {"targets": [{"backend": "main"}], "cache": {"mode": "exact", "ttl": "2s"}},
    "similar": {
        "targets": [{"backend": "main"}],
        "cache": {"mode": "semantic", "ttl": "2s", "embeddings": {"backend": "embed"}, "threshold": 0.9},
    },
    "busy": {"shadow": {"percent": 100, "override": {"targets": [{"backend": "queues"}]}}},  # which has no room for it
    "rolled": {
        "targets": [{"backend": "main"}],
        "canary": {
            "percent": 50,
            "sticky": "request",
            "override": {"targets": [{"backend": "dead"}]},
            "abort": {"errorRatio": 0.05, "minRequests": 10},
        },
    },
}
PRICE = {"inputPerMillion": "1000", "cachedInputPerMillion": "100", "outputPerMillion": "2000"}


class Observed:
    """The gateways, and the keys of their tenants by the tenant's name."""

    def __init__(self, gateways: list[GatewayProcess], keys: dict[str, str]) -> None:
        self.gateways = gateways
        self.keys = keys

    def change_registries(self) -> None:
        """Give one gateway a document that it refuses, and the other one more scenario."""
        refused = document("Scenario", "refused", {"targets": [{"backend": "none"}]})
        self.gateways[0].write_registry([refused], "refused.yaml")
        self.gateways[1].write_registry([scenario("extra", "main")], "extra.yaml")


@contextlib.contextmanager
def observed() -> Iterator[Observed]:
    """Two gateways under load, with a Redis that may evict and a token issuer that is away."""
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(ScriptedUpstream(each)).url for name, each in BEHAVIOURS.items()}
        dead = stack.enter_context(refusing_port())
        valkey = stack.enter_context(Valkey("maxmemory 200mb", "maxmemory-policy allkeys-lru"))
        keys = {name: new_key() for name in ("acme", "fast", "spent")}
        documents = [*_backends(urls, dead), *_scenarios(), *_tenants(keys, f"https://127.0.0.1:{dead}")]
        env = ADMIN_ENV | {
            "LLM_GATEWAY_REDIS_URL": valkey.url,
            "LLM_GATEWAY_REDIS_DEADLINE_S": "5",  # a machine that stands still for a moment is no Redis that is away
            "LLM_GATEWAY_USAGE_WATCH_S": "1",
            "LLM_GATEWAY_OIDC_REFRESH_INTERVAL_S": "1",
        }
        gateways = [stack.enter_context(GatewayProcess(documents, key=keys["acme"], env=env)) for _ in range(2)]
        soon = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        asked = {"tenant": "acme", "name": "made", "expiresAt": soon}
        keys["made"] = post(gateways[0], "/keys", asked, status=201)["key"]
        for gateway in gateways * 3:  # what is spent before anybody looks was never otherwise
            _ask(gateway, "chat", keys["spent"])
        stack.enter_context(_callers(gateways, keys))
        yield Observed(gateways, keys)


def _backends(urls: dict[str, str], dead: int) -> Iterator[Document]:
    yield backend("main", f"{urls['main']}/v1", model="large", price=PRICE)
    yield backend("dead", f"http://127.0.0.1:{dead}/v1", model="gone")
    for name in ("breaks", "locked", "wrong", "throttled", "embed"):
        yield backend(name, f"{urls[name]}/v1", model=f"{name}-model")
    yield backend("queues", f"{urls['slow']}/v1", maxConcurrentRequests=1, queue={"max": 50, "wait": "10s"})
    yield backend("busy", f"{urls['slow']}/v1", maxConcurrentRequests=1)


def _scenarios() -> Iterator[Document]:
    for name in sorted(set(SCENARIOS)):
        yield scenario(name, *{"shaky": ("dead", "main")}.get(name, (name,)), **_SPECS.get(name, {}))


def _tenants(keys: dict[str, str], issuer: str) -> Iterator[Document]:
    oidc = {"issuer": issuer, "audience": "llm-gateway", "claim": "tenant", "value": "acme"}
    yield tenant("acme", limits=[limit("tokens", 100_000_000, "day")], oidc=oidc)
    yield tenant(
        "fast", limits=[limit("requests", 2, "second"), limit("requests", 1, "second", mode="shadow", name="would")]
    )
    yield tenant("spent", limits=[limit("requests", 2, "day")])
    for name, key in keys.items():
        yield api_key(f"{name}-key", key, name)


@contextlib.contextmanager
def _callers(gateways: list[GatewayProcess], keys: dict[str, str]) -> Iterator[None]:
    over = threading.Event()
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            turn = number
            while not over.is_set():
                _one_turn(gateways[turn % 2], keys, turn)
                turn += 1
                time.sleep(PAUSE_S)
        except BaseException as failure:  # noqa: BLE001  # of a thread: raised below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
    if failures:
        raise failures[0]


def _one_turn(gateway: GatewayProcess, keys: dict[str, str], turn: int) -> None:
    """One call; which scenario, tenant and form of it goes by the turn."""
    model = SCENARIOS[turn // 2 % len(SCENARIOS)] if turn % 3 else "chat"
    key = list(keys.values())[turn % len(keys)] if model == "chat" else keys["acme"]
    match turn % 40:
        case 11:
            key = new_key()
        case 21:
            model = "nothing-of-this-name"
        case 31:
            _leave(gateway, key)
            return
        case 39:
            _send_nonsense(gateway)
            return
        case _:
            pass
    _ask(
        gateway,
        model,
        key,
        f"question {turn}" if model == "similar" else "hi",
        stream=model == "breaks" or turn % 2 == 0,
    )


def _ask(gateway: GatewayProcess, model: str, key: str, text: str = "hi", *, stream: bool = False) -> None:
    """One call, whatever becomes of it."""
    with gateway.client(timeout_s=20.0) as client, contextlib.suppress(ConnectionEnded):
        client.request(PATH, body(model, text, stream=stream), key=key, headers={"connection": "close"})


def _leave(gateway: GatewayProcess, key: str) -> None:
    """Ask for a stream and leave with its head."""
    with gateway.client() as client:
        client.send(request_bytes(PATH, body("queues", stream=True), key=key))
        client.read_head()
        client.reset()


def _send_nonsense(gateway: GatewayProcess) -> None:
    with RawClient("127.0.0.1", gateway.port) as client:
        client.send(b"nonsense\r\n\r\n")
        client.read_to_end()
