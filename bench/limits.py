"""The gateway with limits on: its registry, the Valkey that it shares, and the proof that what was measured had both.

The Valkey runs beside the load, where nothing is counted. A call that was decided without it, or that the ledger does
not know, would be a cheaper one than what is measured: then the bench fails.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import redis

from bench import process, wire
from bench.candidates import Candidate, Launch, Running, gateway_launch, gateway_version, registry
from gateway.redis.embedded import EmbeddedUnavailable, EmbeddedValkey
from gateway.redis.names import tenant_key
from tests.support.documents import Document, api_key, new_key, scenario, tenant
from tests.support.metrics import Scrape
from tests.support.waiting import eventually

LIMITED, USED_UP = "limited", "used-up"
KEPT = "kept"
"""A scenario whose answers are kept, on the backend of the plain one."""

LIMITED_KEY, USED_UP_KEY = new_key(), new_key()

_MANY = 10**12
_RATE = 10**10
_REFUSED = 429
_MISSED_MAX = 4  # the first call, or the first ones of a server that was late
_DEADLINE_S = "1"  # a server that waits for its core must not turn a measured call into another one

LIMITS: tuple[Document, ...] = (
    {"unit": "requests", "per": "minute", "amount": _RATE},
    {"unit": "tokens", "per": "minute", "amount": _RATE, "burst": 2 * _RATE},
    {"unit": "concurrency", "amount": 100_000},
    {"unit": "tokens", "per": "day", "amount": _MANY},
    {"unit": "cost", "per": "month", "amount": "9000000"},
)
"""One of each kind, far above what any bench uses."""

NOTHING_LEFT: tuple[Document, ...] = ({"unit": "requests", "per": "month", "amount": 1}, *LIMITS[1:])
"""As many limits, one of which refuses every further call after the first, whatever the hour."""


def limited_registry(upstream_port: int) -> list[Document]:
    """The bench's registry with a cache and two more tenants: one with generous limits, one that will have used one up.

    Backends have an output limit, so that budgets know the worst case.
    """
    return [
        *registry(upstream_port, maxOutputTokens=4096),
        tenant(LIMITED, limits=list(LIMITS)),
        api_key("limited-key", LIMITED_KEY, LIMITED),
        tenant(USED_UP, limits=list(NOTHING_LEFT)),
        api_key("used-up-key", USED_UP_KEY, USED_UP),
        scenario(KEPT, f"backend-{wire.PLAIN}", cache={"mode": "exact", "ttl": "1h"}),
    ]


@contextlib.contextmanager
def valkey(cores: set[int]) -> Iterator[str]:
    """A fresh server on some cores; its URL. Raises Malfunction where it cannot be had."""
    try:
        with process.pinned(cores):
            server = EmbeddedValkey.start()
    except EmbeddedUnavailable as problem:
        raise process.Malfunction(str(problem)) from None
    try:
        yield server.url
    finally:
        server.stop()


def limited(redis_url: str) -> Candidate:
    """The gateway with limits on and this Redis."""
    return Candidate("gateway with limits", gateway_version, functools.partial(_launch, redis_url))


def _launch(redis_url: str, folder: Path, port: int, upstream_port: int) -> Launch:
    settings = {
        "LLM_GATEWAY_REDIS_URL": redis_url,
        "LLM_GATEWAY_REDIS_DEADLINE_S": _DEADLINE_S,
        "LLM_GATEWAY_CACHE_REDIS_DEADLINE_S": _DEADLINE_S,
    }
    return gateway_launch(folder, port, limited_registry(upstream_port), settings)


def use_up(each: Running) -> None:
    """Make the calls after which the tenant ``USED_UP`` has nothing left."""
    eventually(lambda: status(each.port, USED_UP_KEY) == _REFUSED, what="a refusal")
    if (admitted := status(each.port, LIMITED_KEY)) != 200:
        raise process.Malfunction(f"{each.name}: a call within its limits was answered with {admitted}")


def status(port: int, key: str) -> int:
    """The status of one plain call."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", wire.chat_body(wire.PLAIN), headers)
        return connection.getresponse().status


def check(each: Running, redis_url: str) -> None:
    """Raises Malfunction unless Redis decided every call so far and the ledger has every admitted one."""

    def sound() -> bool:
        problem = shortfall(_scrape(each), ledger_requests(redis_url))
        assert not problem, problem
        return True

    try:
        eventually(sound, every_s=0.2)  # the last calls are settled a moment after they were answered
    except AssertionError as problem:
        raise process.Malfunction(f"{each.name}: {problem}") from None


def shortfall(scrape: Scrape, in_ledger: int) -> str:
    """What is wrong with what was measured; empty where nothing is."""
    if (missed := _missed(scrape)) > _MISSED_MAX:
        return f"{missed:.0f} calls of the scenario with a cache were not answered by it"
    if alone := scrape.value("llm_gateway_degraded_total"):
        return f"{alone:.0f} limits were decided without Redis"
    admitted = scrape.value("llm_gateway_requests_total", tenant=LIMITED, code="200")
    if not 0 < admitted <= in_ledger:
        return f"{admitted:.0f} calls were answered, the ledger has {in_ledger}"
    return ""


def _missed(scrape: Scrape) -> float:
    name = "llm_gateway_cache_requests_total"
    return scrape.value(name) - sum(scrape.value(name, result=result) for result in ("hit", "coalesced"))


def _scrape(each: Running) -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{each.ready_port}/metrics", timeout=10) as answer:
        return Scrape(answer.read().decode())


def ledger_requests(redis_url: str) -> int:
    """How many calls of the tenant ``LIMITED`` the ledger has, of all days."""
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        counts: dict[bytes, bytes] = {}
        for day in client.scan_iter(match=tenant_key(LIMITED, "usage", "*")):
            counts |= {day + name: value for name, value in client.hgetall(day).items()}
    return sum(int(value) for name, value in counts.items() if name.endswith(b"|requests"))
