"""Names of keys: one slot per tenant, nothing shared by accident."""

from __future__ import annotations

from gateway.redis import names
from gateway.redis.cluster import slot_of


def test_all_keys_of_a_tenant_lie_in_one_slot() -> None:
    """So that one script may touch them all on a cluster."""
    keys = [
        names.levels("acme"),
        names.lease("acme", "0192"),
        names.slots("acme", "t:concurrency"),
        names.usage("acme", "2026-11-22"),
        names.events("acme"),
    ]
    assert len({slot_of(key) for key in keys}) == 1
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(names.PREFIX) for key in keys)
    assert names.usage("acme", "2026-11-22") == b"lgw:1:{acme}:usage:2026-11-22"


def test_a_tenant_called_fleet_is_not_the_fleet() -> None:
    """A tenant may have any DNS label as its name."""
    assert names.tenant_key("fleet", "replicas") != names.fleet_key("replicas") == names.replicas()
    assert names.tenant_key("a", "lease") != names.tenant_key("b", "lease")
