"""Gateways that are killed and replaced, before a Valkey whose answers stall, come late or are lost.

All gateways read one registry folder, to which tenants can be added while they run. Between them and Valkey is a relay.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import redis
import yaml

from tests.support.documents import Document, api_key, backend, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.limit_calls import DEAR, Maker
from tests.support.relay import relay_in_thread
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

FaultKind = Literal["stall", "late", "lost", "unheard", "scripts", "clients"]
"""``stall``: Valkey is stopped; ``late``: answers are held back; ``lost``: they are, and then their connections end;
``unheard``: so do commands; ``scripts`` are forgotten; ``clients`` are thrown out."""

SLOT_S: Final = 3.0
MAIN_PRICE: Final = {"inputPerMillion": "1000", "outputPerMillion": "2000"}
DEAR_PRICE: Final = {"inputPerMillion": "2000", "outputPerMillion": "5000"}
MAIN_NANO, DEAR_NANO = (1_000_000, 2_000_000), (2_000_000, 5_000_000)
"""The same in nano-USD a token, input and output."""

_PREFIX: Final = 16  # of a lease id: what the leases of one process have in common
_PROBE_KEY: Final = "test-key-of-the-probe"


class Arena:
    """``size`` gateways, a backend that counts and a Valkey; a context manager."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._stack = contextlib.ExitStack()
        self.maker = Maker()
        self.gateways: list[GatewayProcess] = []
        self.alive: dict[int, str] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            upstream = stack.enter_context(ScriptedUpstream(self.maker))
            self.valkey = stack.enter_context(Valkey())
            self.store: Any = stack.enter_context(redis.Redis(port=self.valkey.port, socket_timeout=10))
            self._relay = stack.enter_context(relay_in_thread(self.valkey.port))
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="registry-")))
            self.add("base", _base(upstream.url))
            for _ in range(self._size):
                self.gateways.append(stack.enter_context(GatewayProcess([], env=self._settings())))
            self._stack = stack.pop_all()
        for at in range(self._size):
            self.alive[at] = self._prefix_of(at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def stop_gateways(self) -> None:
        """End all gateways as a rolling update does."""
        for each in self.gateways:
            each.stop()

    def add(self, name: str, documents: Sequence[Document], secret: str = "") -> None:
        """Add objects to the registry and wait until every gateway serves the key ``secret``."""
        fresh = self._folder / f".{name}.new"
        fresh.write_text(yaml.safe_dump_all(documents, sort_keys=False))
        fresh.replace(self._folder / f"{name}.yaml")
        for each in self.gateways if secret else ():
            eventually(partial(_serves, each, secret), 15, what=f"{name} is served", every_s=0.05)

    def kill(self, at: int, after_s: float) -> None:
        """Kill a gateway in the midst of what it does."""
        time.sleep(after_s)
        self.gateways[at].kill()
        del self.alive[at]

    def replace(self, at: int) -> None:
        """Start a gateway in the place of one that was killed."""
        self.gateways[at].restart()
        self.alive[at] = self._prefix_of(at)

    def disturb(self, kind: FaultKind, after_s: float, for_s: float) -> None:
        """Let something happen to Redis for a while; all is well again when this returns."""
        time.sleep(after_s)
        relay = self._relay
        if kind == "stall":
            self.valkey.pause()
            time.sleep(for_s)
            self.valkey.resume()
        elif kind in ("late", "lost", "unheard"):
            stopped = relay.asking if kind == "unheard" else relay.flowing
            relay.do(stopped.clear)
            time.sleep(for_s)
            if kind != "late":
                relay.do(relay.cut)
            relay.do(stopped.set)
        elif kind == "scripts":
            self.store.script_flush()
        else:
            self.store.client_kill_filter(_type="normal", skipme=True)

    def is_living(self, lease_id: str) -> bool:
        """Whether a lease is of a process that lives."""
        return lease_id[:_PREFIX] in self.alive.values()

    def _settings(self) -> dict[str, str]:
        return {
            "LLM_GATEWAY_REDIS_URL": self._relay.url,
            "LLM_GATEWAY_REDIS_DEADLINE_S": "0.15",
            "LLM_GATEWAY_REDIS_PROBE_S": "0.1",
            "LLM_GATEWAY_REGISTRY": str(self._folder),
            "LLM_GATEWAY_REGISTRY_POLL_S": "0.1",
            "LLM_GATEWAY_LIMIT_SLOT_S": str(SLOT_S),
        }

    def _prefix_of(self, at: int) -> str:
        """What the lease ids of a gateway begin with: told by the event of a call that nothing limits."""
        events = "lgw:1:{probe}:events"

        def told() -> str:
            before = self.store.xlen(events)
            with self.gateways[at].client() as client:
                fields = {"model": "chat", "messages": [{"role": "user", "content": "probe|0|fail|"}]}
                client.request("/v1/chat/completions", fields, key=_PROBE_KEY)
            eventually(lambda: self.store.xlen(events) == before + 1, 2)
            return str(self.store.xrevrange(events, count=1)[0][1][b"id"][:_PREFIX].decode())

        return eventually(told, 10, what="the event of a call")


def _serves(gateway: GatewayProcess, secret: str) -> bool:
    with gateway.client() as client:
        client.send(f"GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {secret}\r\n\r\n".encode())
        return client.read_response().status == 200


def _base(url: str) -> list[Document]:
    most: dict[str, Any] = {"maxOutputTokens": 120}
    return [
        backend("main", f"{url}/v1", model="main-model", price=MAIN_PRICE, **most),
        backend("dear", f"{url}/v1", model=DEAR, price=DEAR_PRICE, **most),
        scenario("chat", "main"),
        scenario("talk", "dear", "main"),
        tenant("probe"),
        api_key("probe", _PROBE_KEY, "probe"),
    ]
