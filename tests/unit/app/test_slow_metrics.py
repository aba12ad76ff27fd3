"""When keys end, as the metrics tell it."""

from __future__ import annotations

import hashlib

from gateway.app.slow_metrics import first_ends
from gateway.model import ApiKey, KeyEntry, Principal, Tenant


def entry(tenant: str, key: str, end: float | None, *, disabled: bool = False) -> tuple[bytes, KeyEntry]:
    """One digest of a key."""
    digest = hashlib.sha256(f"{tenant} {key} {end}".encode()).digest()
    principal = Principal(tenant=Tenant(name=tenant, scenarios={}), key=ApiKey(name=key, disabled=disabled))
    return digest, KeyEntry(principal=principal, expires_at=end)


def test_the_first_key_of_a_tenant_counts() -> None:
    """A key without an end never does."""
    keys = dict([entry("a", "one", 300.0), entry("a", "two", 200.0), entry("a", "three", None), entry("b", "x", None)])
    assert first_ends(keys, since=0.0) == {"a": 200.0}


def test_a_key_ends_with_the_last_of_its_digests() -> None:
    """While it rotates, the end of the old one is no event."""
    rotated = dict([entry("a", "one", 100.0), entry("a", "one", 900.0)])
    assert first_ends(rotated, since=0.0) == {"a": 900.0}
    assert first_ends(dict([entry("a", "one", 100.0), entry("a", "one", None)]), since=0.0) == {}


def test_what_ended_long_ago_or_is_disabled_is_left_out() -> None:
    """Nobody waits for it."""
    keys = dict([entry("a", "old", 100.0), entry("a", "off", 400.0, disabled=True), entry("a", "next", 500.0)])
    assert first_ends(keys, since=100.0) == {"a": 500.0}
    assert first_ends(keys, since=99.0) == {"a": 100.0}
