"""What the admin API leaves in Redis: keys and revocations, as records that can only grow. Pure.

Invariant: a record is never deleted, only replaced by a later revision, and a revocation is final. So two sets of
records always merge to the same set, in any order: what a replica remembers and the store has lost is put back, and
nothing that was revoked can come to life again. No record holds a key, only digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any, NamedTuple

import msgspec

from gateway.model import Frozen
from gateway.registry.base import API_VERSION

KEY = "key/"
REVOKED = "revoked/"


class KeyRecord(Frozen, frozen=True, tag="key", tag_field="type", rename="camel", omit_defaults=True):
    """A key that the admin API made. ``document`` is its ApiKey as JSON; times are Unix seconds."""

    document: dict[str, Any]
    revision: int
    created_at: float
    revoked_at: float | None = None

    @property
    def id(self) -> str:
        """What the store knows it by."""
        return KEY + self.name

    @property
    def name(self) -> str:
        """The name of the key."""
        return str(self.document["metadata"]["name"])

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests that it lists, as hexadecimal digits."""
        return tuple(str(digest["sha256"]) for digest in self.document["spec"]["digests"])


class Revocation(Frozen, frozen=True, tag="revocation", tag_field="type", rename="camel", omit_defaults=True):
    """A digest that opens nothing any more, whoever lists it. ``revoked_at`` is in Unix seconds."""

    sha256: str
    revoked_at: float
    key: str = ""  # whose it was, where that is known
    tenant: str = ""
    revision: int = 1

    @property
    def id(self) -> str:
        """What the store knows it by."""
        return REVOKED + self.sha256


Record = KeyRecord | Revocation


class Unreadable(ValueError):
    """A record that this version cannot read."""


def encode(record: Record) -> bytes:
    """Return the record as the store holds it: the same bytes for the same record."""
    return msgspec.json.encode(record, order="deterministic")


def decode(content: bytes) -> Record:
    """Read a record; fields that this version does not know are ignored. Raises Unreadable."""
    try:
        record: Record = msgspec.json.decode(content, type=Record)
        _ = record.id, record.digests if isinstance(record, KeyRecord) else bytes.fromhex(record.sha256)
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise Unreadable(type(error).__name__) from None
    return record


class Merged(NamedTuple):
    """The union of two sets of records, and the ids of those that the second one lacks or has in an older form."""

    records: dict[str, Record]
    owed: tuple[str, ...]


def merge(ours: Mapping[str, Record], theirs: Mapping[str, Record]) -> Merged:
    """Return what both know together, and what has to be given to them."""
    records = dict(theirs)
    for object_id, record in ours.items():
        other = records.get(object_id)
        if other is not record:
            records[object_id] = record if other is None or other == record else _later(record, other)
    owed = tuple(sorted(object_id for object_id, record in records.items() if not _same(theirs.get(object_id), record)))
    return Merged(records, owed)


def _same(one: Record | None, other: Record) -> bool:
    return one is other or one == other


def _later(one: Record, other: Record) -> Record:
    """Pick the later of two forms of a record; of two that a lost write made equally late, any, but always the same."""
    return max(one, other, key=lambda record: (_is_final(record), record.revision, encode(record)))


def _is_final(record: Record) -> bool:
    return isinstance(record, Revocation) or record.revoked_at is not None


def key_document(
    name: str,
    tenant: str,
    digests: Sequence[Mapping[str, str]],
    scenarios: Sequence[str] | None = None,
    limits: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return an ApiKey as JSON values, without the fields that say nothing."""
    spec: dict[str, Any] = {"tenant": tenant, "digests": [dict(digest) for digest in digests]}
    if scenarios is not None:
        spec["scenarios"] = list(scenarios)
    if limits:
        spec["limits"] = [dict(limit) for limit in limits]
    return {"apiVersion": API_VERSION, "kind": "ApiKey", "metadata": {"name": name}, "spec": spec}


def digest_entry(digest: bytes, expires_at: float | None) -> dict[str, str]:
    """Return one item of ``spec.digests``; ``expires_at`` is in Unix seconds."""
    entry = {"sha256": digest.hex()}
    return entry if expires_at is None else entry | {"expiresAt": rfc3339(expires_at)}


def rfc3339(unix_s: float) -> str:
    """Return a time as documents write it, in whole seconds, rounded up."""
    return datetime.fromtimestamp(ceil(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def by_id(records: Iterable[Record]) -> dict[str, Record]:
    """Return the records by what the store knows them by."""
    return {record.id: record for record in records}
