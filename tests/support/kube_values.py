"""What the simulated API server is made of: its values, and the rules of patches and selectors."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp.web

Object = dict[str, Any]
Key = tuple[str, str]

PLURALS = {
    "Backend": "backends",
    "Scenario": "scenarios",
    "Prompt": "prompts",
    "Tenant": "tenants",
    "ApiKey": "apikeys",
    "Secret": "secrets",
    "Lease": "leases",
    "EndpointSlice": "endpointslices",
}
GROUP_VERSIONS = {
    "secrets": "v1",
    "leases": "coordination.k8s.io/v1",
    "endpointslices": "discovery.k8s.io/v1",
}
OURS = "llmgateway.dev/v1alpha1"


@dataclass
class Seen:
    """One request as the server got it."""

    method: str
    path: str
    action: str
    plural: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    at: float = field(default_factory=time.monotonic)


@dataclass
class Fault:
    status: int
    plural: str | None
    action: str | None
    times: int | None
    reason: str
    hang: bool
    headers: dict[str, str]

    def fits(self, seen: Seen) -> bool:
        return self.plural in (None, seen.plural) and self.action in (None, seen.action)


@dataclass
class Watcher:
    plural: str
    namespace: str | None
    selector: str
    queue: asyncio.Queue[bytes | None]
    stalled: bool = False


def status(code: int, reason: str, message: str) -> Object:
    """The body of a failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def refused(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> aiohttp.web.StreamResponse:
    """An answer with a failure."""
    return aiohttp.web.json_response(status(code, reason, message), status=code, headers=headers)


def line(event: Object) -> bytes:
    """One event of a watch."""
    return json.dumps(event).encode() + b"\n"


def without_version(item: Object) -> Object:
    """An object but for its version."""
    metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
    return {**item, "metadata": metadata}


def selected(item: Object, selector: str) -> bool:
    """Whether the labels fit a selector of one label."""
    labels = item["metadata"].get("labels", {})
    name, _, value = selector.partition("=")
    return not selector or (labels.get(name) == value if value else name in labels)


def conflict(body: Object, item: Object) -> aiohttp.web.StreamResponse | None:
    """A refusal where the body is of an older version than the object."""
    wanted = body.get("metadata", {}).get("resourceVersion")
    if wanted in (None, item["metadata"]["resourceVersion"]):
        return None
    return refused(409, "Conflict", "the object has been modified")


def merged(before: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def applied(before: Object, last: Object, wanted: Object) -> Object:
    """Server-side apply for maps, with lists as atoms: what this manager no longer says is gone."""
    result = dict(before)
    for name in last.keys() - wanted.keys():
        result.pop(name, None)
    for name, value in wanted.items():
        if isinstance(value, dict):
            inner, old = result.get(name), last.get(name)
            result[name] = applied(
                inner if isinstance(inner, dict) else {}, old if isinstance(old, dict) else {}, value
            )
        else:
            result[name] = value
    return result
