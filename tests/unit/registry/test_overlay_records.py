"""Records of keys and revocations: what two sets of them make together, in whatever order they meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.records import (
    KeyRecord,
    Record,
    Revocation,
    Unreadable,
    by_id,
    decode,
    digest_entry,
    encode,
    key_document,
    merge,
    rfc3339,
)

ONE, OTHER = bytes.fromhex("ab" * 32), bytes.fromhex("cd" * 32)


def key(name: str = "ci", revision: int = 1, revoked_at: float | None = None, digest: bytes = ONE) -> KeyRecord:
    """A record of a key of tenant acme."""
    document = key_document(name, "acme", [digest_entry(digest, None)])
    return KeyRecord(document=document, revision=revision, created_at=1.0, revoked_at=revoked_at)


RECORDS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(
        key,
        revision=st.integers(1, 3),
        revoked_at=st.sampled_from([None, None, 5.0, 6.0]),
        digest=st.sampled_from([ONE, OTHER]),
    ),
).map(
    lambda found: by_id(
        KeyRecord(
            document=key_document(name, "acme", record.document["spec"]["digests"]),
            revision=record.revision,
            created_at=1.0,
            revoked_at=record.revoked_at,
        )
        for name, record in found.items()
    )
)


@given(RECORDS, RECORDS, RECORDS)
def test_replicas_agree_in_whatever_order_they_hear(
    a: dict[str, Record], b: dict[str, Record], c: dict[str, Record]
) -> None:
    """Merging is commutative, associative and idempotent."""
    both = merge(a, b).records
    assert both == merge(b, a).records
    assert merge(both, both).records == both
    assert merge(both, c).records == merge(a, merge(b, c).records).records


@given(RECORDS, RECORDS)
def test_nothing_is_lost_and_nothing_comes_back_to_life(a: dict[str, Record], b: dict[str, Record]) -> None:
    """Every record of either side is there; what one side has revoked is revoked."""
    merged = merge(a, b).records
    assert merged.keys() == a.keys() | b.keys()
    for side in (a, b):
        for object_id, record in side.items():
            after = merged[object_id]
            assert isinstance(record, KeyRecord)
            assert isinstance(after, KeyRecord)
            assert record.revoked_at is None or after.revoked_at is not None


@given(RECORDS, RECORDS)
def test_what_the_store_lacks_is_named(ours: dict[str, Record], theirs: dict[str, Record]) -> None:
    """Giving the owed records to the other side makes it the union; nothing else is owed."""
    merged = merge(ours, theirs)
    after = dict(theirs) | {object_id: merged.records[object_id] for object_id in merged.owed}
    assert after == merged.records
    assert all(theirs.get(object_id) != merged.records[object_id] for object_id in merged.owed)


def test_a_revocation_overrules_a_later_rotation() -> None:
    """A replica that had not heard of the revocation rotates the key: it stays revoked."""
    revoked, rotated = key(revision=2, revoked_at=9.0), key(revision=7, digest=OTHER)
    assert merge(by_id([rotated]), by_id([revoked])).records == by_id([revoked])


@pytest.mark.parametrize("record", [key(), key(revoked_at=2.5), Revocation(sha256="ab" * 32, revoked_at=3.0)])
def test_a_record_comes_back_as_it_was_and_the_same_bytes_are_written(record: Record) -> None:
    """Writes compare bytes, so that there must be one form only."""
    assert decode(encode(record)) == record
    assert encode(decode(encode(record))) == encode(record)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"type":"key"}',
        b'{"type":"key","document":{},"revision":1,"createdAt":1}',
        b'{"type":"key","document":{"metadata":{"name":"x"},"spec":[]},"revision":1,"createdAt":1}',
        b'{"type":"revocation","sha256":"xyz","revokedAt":1}',
        b'{"type":"something-new","revision":1}',
        b"\xff",
    ],
)
def test_what_is_no_record_is_unreadable(content: bytes) -> None:
    """Whatever lies in Redis, reading it ends in a record or in one exception, which quotes nothing."""
    with pytest.raises(Unreadable):
        decode(content)


def test_fields_of_a_later_version_are_ignored() -> None:
    """Two releases run side by side during a rollout."""
    later = encode(key()).removesuffix(b"}") + b',"somethingNew":[1,2]}'
    assert decode(later) == key()


def test_a_time_is_written_in_whole_seconds_and_never_too_early() -> None:
    """A key works at least as long as was said."""
    assert rfc3339(1_700_000_000.2) == "2023-11-14T22:13:21Z"
