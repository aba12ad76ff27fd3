"""Registry documents for tests, as plain dicts with only what a test says.

A test changes a document with ordinary dict operations; ``openai_registry`` is the smallest registry that serves.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

Document = dict[str, Any]

API_VERSION = "llmgateway.dev/v1alpha1"


def document(kind: str, name: str, spec: Document) -> Document:
    """A document of any kind."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def backend(name: str, url: str, **spec: Any) -> Document:
    """An ``openai`` backend at ``url`` (with its path, e.g. ``/v1``) without a credential."""
    return document("Backend", name, {"provider": "openai", "url": url, "auth": {"type": "none"}} | spec)


def echo_backend(name: str = "echo", **spec: Any) -> Document:
    """An in-process backend."""
    return document("Backend", name, {"provider": "echo"} | spec)


def scenario(name: str, *backends: str, **spec: Any) -> Document:
    """A scenario for every tenant; the first backend is its target, the others its fallbacks in order."""
    plan: Document = {"targets": [{"backend": backends[0], "weight": 1}], "access": {"tenants": ["*"]}}
    if backends[1:]:
        plan["fallbacks"] = list(backends[1:])
    return document("Scenario", name, plan | spec)


def tenant(name: str = "acme", **spec: Any) -> Document:
    """A tenant that may use every scenario."""
    return document("Tenant", name, {"scenarios": ["*"]} | spec)


def api_key(name: str, key: str, of_tenant: str = "acme", **spec: Any) -> Document:
    """The document that accepts ``key`` for a tenant."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return document("ApiKey", name, {"tenant": of_tenant, "digests": [{"sha256": digest}]} | spec)


def new_key() -> str:
    """A random key of the accepted alphabet that the gateway did not make: only its digest has to be known."""
    return f"test-{secrets.token_hex(24)}"


def openai_registry(url: str, key: str, *, model: str = "upstream-model", **spec: Any) -> list[Document]:
    """One scenario ``chat`` on one backend ``main`` at ``url`` + ``/v1``, tenant ``acme`` with ``key``.

    ``spec`` goes into the backend.
    """
    return [
        backend("main", f"{url}/v1", model=model, **spec),
        scenario("chat", "main"),
        tenant("acme"),
        api_key("acme-key", key),
    ]


def echo_registry(key: str, **spec: Any) -> list[Document]:
    """One scenario ``chat`` on the echo backend, tenant ``acme`` with ``key``."""
    return [echo_backend("main", **spec), scenario("chat", "main"), tenant("acme"), api_key("acme-key", key)]
