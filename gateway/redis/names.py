"""The names of all keys in Redis: one place, one version prefix, one hash tag per tenant.

Invariant: every key of a tenant carries the hash tag ``{tenant}``, so that all keys of a call lie in one slot of a
Redis Cluster and one script may touch them (https://valkey.io/topics/cluster-spec/, "Hash tags"); no key is made by
other means, so that a release with another layout can run beside this one under another prefix.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = b"lgw:1:"
"""What every key begins with; its number is the version of the layout."""

FLEET: Final = "fleet"
"""The hash tag of what belongs to no tenant; told apart from a tenant of that name by its place in the key."""


def tenant_key(tenant: str, *parts: str) -> bytes:
    """A key of ``tenant``: ``lgw:1:{acme}:part:part``. Tenants are DNS labels, so their name cannot end the tag."""
    return f"lgw:1:{{{tenant}}}:{':'.join(parts)}".encode()


def fleet_key(*parts: str) -> bytes:
    """A key that all replicas share and no tenant owns: ``lgw:1:fleet:{fleet}:part:part``."""
    return f"lgw:1:fleet:{{{FLEET}}}:{':'.join(parts)}".encode()


def levels(tenant: str) -> bytes:
    """Hash: the state of every limit of the tenant and of its keys."""
    return tenant_key(tenant, "levels")


def lease(tenant: str, lease_id: str) -> bytes:
    """The record of one lease."""
    return tenant_key(tenant, "lease", lease_id)


def slots(tenant: str, limit_id: str) -> bytes:
    """Sorted set: lease id -> expiry in milliseconds of the server's clock, for one concurrency limit."""
    return tenant_key(tenant, "slots", limit_id)


def usage(tenant: str, day: str) -> bytes:
    """Hash: what was used on one UTC day (``2026-11-22``)."""
    return tenant_key(tenant, "usage", day)


def events(tenant: str) -> bytes:
    """Capped stream: one event per settled call."""
    return tenant_key(tenant, "events")


def replicas() -> bytes:
    """Sorted set: replica id -> when it was last known alive, milliseconds of the server's clock."""
    return fleet_key("replicas")


def load(process: str) -> bytes:
    """What is under way in one process, by its id among the replicas; it expires."""
    return fleet_key("load", process)


def export(tenant: str) -> bytes:
    """Hash: how far each group of readers of the tenant's events has come."""
    return tenant_key(tenant, "export")


def tenants() -> bytes:
    """Sorted set: tenant -> when it was last in a registry that serves, Unix seconds."""
    return fleet_key("tenants")


def usage_watch() -> bytes:
    """The replica that looks after the export of usage, until it expires."""
    return fleet_key("usage-watch")


def keys() -> bytes:
    """Hash: the records of keys and revocations made through the admin API, and ``head``, which names their state."""
    return fleet_key("keys")


def rollout(scenario: str, content: str) -> bytes:
    """Hash: what all replicas saw of a scenario's canary; ``content`` names what the registry says of the scenario."""
    return fleet_key("rollout", scenario, content)


def cache_marks(tenant: str) -> bytes:
    """Hash: the epoch of the tenant's kept answers, and what was purged."""
    return tenant_key(tenant, "cache", "marks")


def cache_answer(tenant: str, digest: str) -> bytes:
    """A kept answer."""
    return tenant_key(tenant, "cache", "answer", digest)


def cache_questions(tenant: str, bucket: str) -> bytes:
    """Capped stream: vectors of questions that differ in nothing else, and the answers that are kept for them."""
    return tenant_key(tenant, "cache", "questions", bucket)


def cache_flight(tenant: str, digest: str, *parts: str) -> bytes:
    """Of a call in flight: who makes it; with further parts what was said of its answer, and who waits."""
    return tenant_key(tenant, "cache", "flight", digest, *parts)


def conversation(tenant: str, response_id: str) -> bytes:
    """Hash: one turn of a conversation, by the id of its answer."""
    return tenant_key(tenant, "conversation", response_id)
