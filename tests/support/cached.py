"""Gateways whose scenario has a cache, before one upstream and one Valkey."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.support.admin import ADMIN_ENV
from tests.support.client import Response
from tests.support.documents import Document, api_key, new_key, openai_registry, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.limited import PATH, PRICE, Fleet, body
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import Valkey

OTHER_TENANT = "beta"


class CachedFleet(Fleet):
    """See Fleet. ``other_key`` opens a second tenant."""

    other_key = ""
    documents: list[Document]

    def say(
        self, at: int = 0, *, key: str | None = None, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Response:
        """One call with these fields."""
        with self.gateways[at].client(timeout_s=30.0) as client:
            sent = {"connection": "close", **(headers or {})}
            return client.request(PATH, body(**fields), key=key or self.key, headers=sent)

    def calls(self) -> int:
        """How many calls the backend has had."""
        return len(self.upstream.requests)

    def counted(self, result: str) -> float:
        """How many calls the gateways say had this result."""
        name = "llm_gateway_cache_requests_total"
        return sum(each.metrics().value(name, result=result) for each in self.gateways)


def result(answer: Response) -> str | None:
    """What the cache did."""
    return answer.header("x-llm-gateway-cache")


def text(answer: Response) -> str:
    """The text of an answer in either form."""
    if (answer.header("content-type") or "").startswith("text/event-stream"):
        events = answer.body.split(b"\n\n")
        assert events[-2:] == [b"data: [DONE]", b""], answer.body[-200:]
        chunks = [json.loads(each.removeprefix(b"data: ")) for each in events[:-2]]
        return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk.get("choices", ()))
    return str(answer.json()["choices"][0]["message"]["content"])


def registry(url: str, keys: Sequence[str], **cache: Any) -> list[Document]:
    """Scenarios ``chat`` with a cache, ``plain`` without, and ``second`` with one, for two tenants."""
    documents = openai_registry(url, keys[0], price=PRICE)
    documents[1]["spec"]["cache"] = {"mode": "exact", **cache}
    return [
        *documents,
        scenario("plain", "main"),
        scenario("second", "main", cache={"mode": "exact"}),
        tenant(OTHER_TENANT),
        api_key("beta-key", keys[1], OTHER_TENANT),
    ]


@contextlib.contextmanager
def cached_fleet(
    size: int = 1,
    *,
    env: Mapping[str, str] | None = None,
    cache: Mapping[str, Any] | None = None,
    valkey: Valkey | None = None,
    more: Callable[[str], list[Document]] = lambda _: [],
) -> Iterator[CachedFleet]:
    """A fleet of ``size`` gateways. Redis has time to answer on a busy machine, unless ``env`` says otherwise.

    ``more`` makes further documents of the upstream's address.
    """
    keys = (new_key(), new_key())
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream())
        server = valkey or stack.enter_context(Valkey())
        settings = (
            {
                "LLM_GATEWAY_REDIS_URL": server.url,
                "LLM_GATEWAY_REDIS_DEADLINE_S": "2",
                "LLM_GATEWAY_CACHE_REDIS_DEADLINE_S": "2",
                "LLM_GATEWAY_CACHE_LOCAL_S": "0",  # so that what is done to Redis is seen at once
            }
            | ADMIN_ENV
            | dict(env or {})
        )
        held = [*registry(upstream.url, keys, **(cache or {})), *more(upstream.url)]
        gateways = [stack.enter_context(GatewayProcess(held, key=keys[0], env=settings)) for _ in range(size)]
        fleet = CachedFleet(gateways, upstream, server, keys[0])
        fleet.other_key = keys[1]
        fleet.documents = held
        yield fleet
