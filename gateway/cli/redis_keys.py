"""Keys that a command writes to Redis, where every gateway that shares it reads them, with an admin API or without.

Invariant: only the digest is written; a name that there is already is never given to another key, but for one that the
caller says is its own to replace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.lane import fail, with_lane
from gateway.clock import wall
from gateway.registry.keys import generate_key, key_digest

if TYPE_CHECKING:
    from gateway.redis.lane import RedisLane
    from gateway.registry.records import KeyRecord
    from gateway.settings import Settings

TEMPORARY_S: Final = 300.0
"""How long a temporary key opens anything."""


def keep_in_redis(document: dict[str, Any], *, replace: bool = False) -> None:
    """Write an ApiKey, as JSON values, to the Redis of the settings; ends the command where that cannot be done."""
    from gateway.settings import Settings as Given

    if Given.load().registry_source == "kubernetes":
        fail("Keys are ApiKey resources where the registry is in the cluster, and none is read from Redis.")

    async def run(lane: RedisLane, settings: Settings) -> None:
        from gateway.registry.keystore import Change, Conflict, KeyStore, StoreFull
        from gateway.registry.records import KEY, KeyRecord

        store, name = KeyStore(lane), str(document["metadata"]["name"])
        raw = await store.get(KEY + name)
        if raw is not None and not replace:
            fail(f"There is a key {name} already, or there was one.")
        revision = 1 if raw is None else _replaced(raw, name).revision + 1
        record = KeyRecord(document=document, revision=revision, created_at=wall())
        try:
            await store.write([Change(raw, record)], max_records=settings.keys_max)
        except Conflict:
            fail(f"The key {name} has just been changed by somebody else.")
        except StoreFull:
            fail(f"There are {settings.keys_max} keys and revocations: no more are made (LLM_GATEWAY_KEYS_MAX).")

    with_lane(run)


def _replaced(raw: bytes, name: str) -> KeyRecord:
    from gateway.registry.records import KeyRecord, Unreadable, decode

    try:
        record = decode(raw)
    except Unreadable:
        fail(f"The key {name} was written by another version.")
    if not isinstance(record, KeyRecord) or record.revoked_at is not None:
        fail(f"The key {name} is revoked.")
    return record


def temporary_key(tenant: str, scenarios: Sequence[str]) -> str:
    """Make a key of a tenant that ends after ``TEMPORARY_S``, in place of the one before it: no record is left over."""
    from gateway.registry.records import digest_entry, key_document

    key = generate_key()
    entry = digest_entry(key_digest(key), wall() + TEMPORARY_S)
    keep_in_redis(key_document(f"temporary.{tenant}", tenant, [entry], scenarios), replace=True)
    return key
