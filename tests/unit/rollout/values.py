"""Scenarios with a canary, callers and finished requests for the tests of rollouts."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.model import (
    Abort,
    ApiKey,
    Backend,
    Canary,
    ChatRequest,
    Principal,
    Scenario,
    Shadow,
    Snapshot,
    Target,
    Tenant,
)
from gateway.telemetry import RequestRecord

NEW = Backend(name="new", provider="openai", origin=None)
ABORT = Abort(error_ratio=0.05, first_token_p95_s=1.0, min_requests=50)
WEAK: Any = {"percent": 100.0, "rollout": "r1", "abort": ABORT}


def canary(**fields: Any) -> Canary:
    """The canary of the scenario ``chat``, for everybody unless ``fields`` say otherwise."""
    variant = Scenario(name="chat", targets=(Target(backend=NEW, weight=1),), variant="canary")
    return Canary(**({"scenario": variant} | WEAK | fields))


def scenario(**fields: Any) -> Scenario:
    """The scenario ``chat`` with that canary."""
    return Scenario(name="chat", canary=canary(**fields))


def shadow(percent: float = 100.0) -> Shadow:
    """A shadow of the scenario ``chat``."""
    return Shadow(scenario=Scenario(name="chat", variant="shadow"), percent=percent)


def principal(key: str = "acme-key", tenant: str = "acme") -> Principal:
    """A caller."""
    return Principal(tenant=Tenant(name=tenant, scenarios={}), key=ApiKey(name=key))


def request(**fields: Any) -> ChatRequest:
    """A request; ``body_bytes`` aside, ``fields`` are those of its body."""
    size = fields.pop("body_bytes", 100)
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in {"messages": [{}], **fields}.items()}
    return ChatRequest(model="chat", fields=raw, body_bytes=size)


def record(status: int = 200, **fields: Any) -> RequestRecord:
    """A finished request of the canary that reached its backend."""
    attempts = fields.pop("attempts", [("new", "ok", 0.1, "")])
    return RequestRecord(
        scenario="chat",
        **({"status": status, "variant": "canary", "rollout": "r1", "attempts": attempts, "finished_at": 1.0} | fields),
    )


def snapshot(*scenarios: Scenario) -> Snapshot:
    """A registry with these scenarios."""
    named = {each.name: each for each in scenarios}
    return Snapshot(
        generation=1, hash="", loaded_at=0.0, keys={}, tenants={}, scenarios=named, backends={}, object_counts={}
    )
