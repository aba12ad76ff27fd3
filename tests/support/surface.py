"""A registry with one of everything that a caller can meet: keys, tenants, scenarios and backends of every kind.

All backends that are not in process lead to one scripted upstream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.documents import (
    Document,
    api_key,
    backend,
    document,
    echo_backend,
    new_key,
    scenario,
    tenant,
)
from tests.support.gateway import GatewayProcess
from tests.support.upstream import ScriptedUpstream

MESSAGES = [{"role": "user", "content": "Good morning"}]
PRICE = {"inputPerMillion": "2", "cachedInputPerMillion": "0.5", "outputPerMillion": "8"}
UPSTREAM_SECRET = "the-credential-of-the-backends"
PROMPT = "You are {persona}. Answer in {language}; keep {{braces}}."


@dataclass(frozen=True)
class Keys:
    """The keys of the registry, by what is special about them."""

    main: str = field(default_factory=new_key)
    narrowed: str = field(default_factory=new_key)
    expired: str = field(default_factory=new_key)
    rotated: str = field(default_factory=new_key)
    disabled: str = field(default_factory=new_key)
    of_disabled_tenant: str = field(default_factory=new_key)
    guest: str = field(default_factory=new_key)
    fenced: str = field(default_factory=new_key)


def chat_body(model: str = "chat", **fields: Any) -> dict[str, Any]:
    """A chat request as a mapping."""
    return {"model": model, "messages": MESSAGES} | fields


@dataclass(frozen=True)
class Surface:
    """A gateway on the registry below, its upstream and the keys."""

    gateway: GatewayProcess
    upstream: ScriptedUpstream
    keys: Keys


@contextmanager
def surface(**settings: str) -> Iterator[Surface]:
    """Start one; ``settings`` are names without the prefix, such as ``expose_backend="true"``."""
    keys = Keys()
    env = {f"LLM_GATEWAY_{name.upper()}": value for name, value in settings.items()}
    env["LLM_GATEWAY_SECRET_SURFACE"] = UPSTREAM_SECRET
    with (
        ScriptedUpstream() as upstream,
        GatewayProcess(surface_registry(upstream.url, keys), key=keys.main, env=env) as gateway,
    ):
        yield Surface(gateway, upstream, keys)


def surface_registry(url: str, keys: Keys) -> list[Document]:
    """The documents, for an upstream at ``url``."""
    credential = {"auth": {"type": "bearer", "secret": {"env": "LLM_GATEWAY_SECRET_SURFACE"}}}
    return [
        backend("main", f"{url}/v1", model="upstream-model", headers={"x-team": "llm"}, **credential),
        backend("spare", f"{url}/spare/v1", model="spare-model", **credential),
        backend("impatient", f"{url}/v1", timeouts={"firstByte": "300ms"}, **credential),
        backend("priced", f"{url}/v1", price=PRICE, **credential),
        backend("narrow", f"{url}/v1", maxConcurrentRequests=1, **credential),
        echo_backend("echo"),
        document("Prompt", "greet.v1", {"inputVars": ["persona", "language"], "template": PROMPT}),
        *_scenarios(),
        tenant("acme"),
        tenant("guests", scenarios=["chat", "echo"]),
        tenant("fenced", ipAllowList=["10.0.0.0/8", "2001:db8::/32"]),
        tenant("closed", disabled=True),
        *_keys(keys),
    ]


def _scenarios() -> list[Document]:
    return [
        scenario("chat", "main", aliases=["gpt-4o"]),
        scenario("echo", "echo"),
        scenario("pair", "main", "spare"),
        scenario("impatient", "impatient"),
        scenario("priced", "priced"),
        scenario("doubled", "echo", parameters={"overrides": {"n": 2}}),
        scenario("narrow", "narrow"),
        scenario("off", "main", disabled=True),
        scenario("of-others", "main", access={"tenants": ["guests"]}),
        scenario("prompted", "main", prompt="greet.v1"),
        scenario(
            "tuned",
            "main",
            parameters={
                "defaults": {"temperature": 0.3, "stop": ["END"]},
                "overrides": {"seed": 7, "service_tier": "flex"},
                "maxOutputTokens": 100,
            },
        ),
    ]


def _keys(keys: Keys) -> list[Document]:
    past, future = "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
    return [
        api_key("main-key", keys.main),
        api_key("narrowed-key", keys.narrowed, scenarios=["echo"]),
        api_key("expired-key", keys.expired, digests=[_digest(keys.expired, past)]),
        api_key("rotated-key", keys.rotated, digests=[_digest(new_key(), past), _digest(keys.rotated, future)]),
        api_key("disabled-key", keys.disabled, disabled=True),
        api_key("closed-key", keys.of_disabled_tenant, "closed"),
        api_key("guest-key", keys.guest, "guests"),
        api_key("fenced-key", keys.fenced, "fenced"),
    ]


def _digest(key: str, expires_at: str) -> Document:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "expiresAt": expires_at}
