"""Keys over the admin API: made here, shown once, kept as digests in Redis, rotated and revoked.

Invariants:
- A key is made on this side, by the system's generator, and leaves it in one answer; only its digest is kept.
- What is in the registry's files is not changed here: that is a Conflict. A revocation changes no object; it outlives
  and overrules every document that lists its digest.
- Each change is written on the state that it was decided on, or not at all, and leaves an audit line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import yaml

from gateway.app.admin_schemas import DigestView, KeyState, KeyView, MadeKey, NewKey, RevocationView, Rotation, moment
from gateway.app.key_operations import (
    CHANGED,
    Audit,
    check_key,
    in_future,
    no_key,
    rotated,
    state_of,
    without_expired,
)
from gateway.app.source import RegistryWatch
from gateway.clock import wall
from gateway.errors import (
    Conflict,
    RedisFailure,
    RedisUnanswered,
    StoreUnavailable,
)
from gateway.registry import generate_key, key_digest
from gateway.registry.accounts import ApiKeyDocument
from gateway.registry.keystore import BATCH, Change, StoreFull
from gateway.registry.keystore import Conflict as Changed
from gateway.registry.keysync import KeySync
from gateway.registry.overlay import NO_OVERLAY, Overlay
from gateway.registry.parse import ObjectId
from gateway.registry.records import (
    KEY,
    KeyRecord,
    Revocation,
    Unreadable,
    decode,
    digest_entry,
    key_document,
    rfc3339,
)


class _Found(NamedTuple):
    record: KeyRecord
    raw: bytes


class _Document(NamedTuple):
    """A key's document, and its record where the API made it."""

    document: ApiKeyDocument
    record: KeyRecord | None

    @property
    def owner(self) -> tuple[str, str]:
        """The names of the key and of its tenant."""
        return self.document.metadata.name, self.document.spec.tenant

    def lists(self, sha256: str) -> bool:
        """Whether the digest is one of its."""
        return any(each.sha256 == sha256 for each in self.document.spec.digests)


class AdminKeys:
    """The operations on keys. ``sync`` is None without a Redis: then keys are shown and not changed."""

    def __init__(self, registry: RegistryWatch, sync: KeySync | None, audit: Audit, *, keys_max: int) -> None:
        self._registry = registry
        self._sync = sync
        self._audit = audit
        self._keys_max = keys_max

    # -- showing -------------------------------------------------------------------------------------------------

    def all(self, tenant: str | None = None) -> list[KeyView]:
        """Every key of the files and of the API, by name; may run in another thread."""
        unread = [_unread_view(key.record) for key in self._overlay.keys.values() if key.document is None]
        views = [*unread, *(self._view(*each) for _, each in self._documents())]
        return sorted((view for view in views if tenant in (None, view.tenant)), key=lambda view: view.name)

    def get(self, name: str) -> KeyView:
        """One key. Raises NotFound."""
        document, record = self._in_service(name), None
        key = self._overlay.keys.get(name)
        if document is None and key is not None:
            document, record = key.document, key.record
        if document is None and record is not None:
            return _unread_view(record)
        if document is None:
            raise no_key(name)
        return self._view(document, record)

    def revocations(self) -> list[RevocationView]:
        """Every revocation, the latest first."""
        found = self._overlay.revoked.values()
        return [_revocation_view(each) for each in sorted(found, key=lambda each: (-each.revoked_at, each.sha256))]

    def export(self) -> str:
        """The keys of the API that are not revoked as YAML documents, without digests that have expired."""
        documents = []
        for _, key in sorted(self._overlay.keys.items()):
            document = without_expired(key.record.document, wall())
            if key.record.revoked_at is None and document["spec"]["digests"]:
                documents.append(document)
        return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True) if documents else ""

    # -- changing ------------------------------------------------------------------------------------------------

    async def create(self, new: NewKey) -> MadeKey:
        """Make a key. Raises InvalidRequest, Conflict, StoreUnavailable."""
        key = generate_key()
        digest = key_digest(key)
        name = new.name or f"{new.tenant[:50]}-{digest.hex()[:8]}"
        entry = digest_entry(digest, in_future(new.expires_at))
        document = key_document(name, new.tenant, [entry], new.scenarios, new.limits)
        check_key(document, self._registry.snapshot)
        if self._in_files(name):
            raise Conflict(f"The key {name} is in the registry's files.")
        record = KeyRecord(document=document, revision=1, created_at=wall())
        await self._write([Change(None, record)], f"There is a key {name} already, or there was one.", self._keys_max)
        self._audit("key.create", {"tenant": new.tenant, "key": name, "sha256": digest.hex()})
        return self._made(name, key, digest)

    async def rotate(self, name: str, rotation: Rotation) -> MadeKey:
        """Make a new key that works beside the one in use, for the grace. Raises NotFound, Conflict, ..."""
        record, raw = await self._mine(name)
        if self._in_files(name):
            raise Conflict(f"The key {name} is in the registry's files, too: rotate it there.")
        if record.revoked_at is not None:
            raise Conflict(f"The key {name} is revoked.")
        key = generate_key()
        digest, now = key_digest(key), wall()
        document = rotated(record.document, digest_entry(digest, in_future(rotation.expires_at)), now, rotation.grace)
        check_key(document, self._registry.snapshot)
        fresh = msgspec.structs.replace(record, document=document, revision=record.revision + 1)
        await self._write([Change(raw, fresh)], CHANGED.format(name=name))
        facts = {"tenant": document["spec"]["tenant"], "key": name, "sha256": digest.hex()}
        self._audit("key.rotate", facts | {"grace_s": f"{rotation.grace:g}"})
        return self._made(name, key, digest)

    async def revoke(self, name: str) -> KeyView:
        """Refuse a key for good. Raises NotFound, Conflict, StoreUnavailable; doing it again changes nothing."""
        try:
            await self._revoke(name)
        except Conflict:  # of a change that this replica has not heard of yet, or one that stays
            await self._store.look()
            await self._revoke(name)
        return self.get(name)

    async def _revoke(self, name: str) -> None:
        record, raw = await self._mine(name)
        if record.revoked_at is not None:
            await self._store.look()
            return
        now, tenant = wall(), str(record.document["spec"]["tenant"])
        revoked = msgspec.structs.replace(record, revision=record.revision + 1, revoked_at=now)
        digests = [Revocation(sha256=each, revoked_at=now, key=name, tenant=tenant) for each in record.digests]
        known = self._store.overlay.records
        changes = [Change(raw, revoked), *(Change(None, each) for each in digests if each.id not in known)]
        await self._write(changes, CHANGED.format(name=name))
        self._audit("key.revoke", {"tenant": tenant, "key": name, "sha256": ",".join(record.digests)})

    async def revoke_digest(self, sha256: str) -> RevocationView:
        """Refuse a digest for good, whichever document lists it; doing it again changes nothing."""
        digest = bytes.fromhex(sha256)
        known = self._overlay.revoked.get(digest)
        if known is not None:
            return _revocation_view(known)
        names = next((each.owner for _, each in self._documents() if each.lists(digest.hex())), ("", ""))
        revocation = Revocation(sha256=digest.hex(), revoked_at=wall(), key=names[0], tenant=names[1])
        await self._write([Change(None, revocation)], "The digest has just been revoked by somebody else.")
        self._audit("digest.revoke", {"tenant": names[1], "key": names[0], "sha256": digest.hex()})
        return _revocation_view(revocation)

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def _overlay(self) -> Overlay:
        return NO_OVERLAY if self._sync is None else self._sync.overlay

    @property
    def _store(self) -> KeySync:
        if self._sync is None:
            raise StoreUnavailable("Keys are kept in Redis, and none is configured: LLM_GATEWAY_REDIS_URL.")
        return self._sync

    def _in_files(self, name: str) -> bool:
        return self._registry.state.holds("ApiKey", name)

    async def _mine(self, name: str) -> _Found:
        """The record of a key that the API made, as the store has it. Raises NotFound, Conflict, StoreUnavailable."""
        raw = await self._asked(name)
        if raw is None and self._in_files(name):
            raise Conflict(f"The key {name} is in the registry's files: change it there, or revoke its digest.")
        if raw is None:
            raise no_key(name)
        try:
            record = decode(raw)
        except Unreadable:
            raise Conflict(f"The key {name} was written by another version.") from None
        assert isinstance(record, KeyRecord)
        return _Found(record, raw)

    async def _asked(self, name: str) -> bytes | None:
        try:
            return await self._store.store.get(KEY + name)
        except RedisFailure as error:
            raise _unavailable(error, "Nothing was changed.") from None

    async def _write(self, changes: list[Change], conflict: str, most: int = 0) -> None:
        assert len(changes) <= BATCH
        try:
            await self._store.write(changes, max_records=most)
        except Changed:
            raise Conflict(conflict) from None
        except StoreFull:
            raise Conflict(f"There are {most} keys and revocations: no more are made (LLM_GATEWAY_KEYS_MAX).") from None
        except RedisUnanswered as error:
            for change in changes:
                self._audit("change.unanswered", {"record": change.wanted.id})
            raise _unavailable(error, "The change may have been made: look before you repeat it.") from None
        except RedisFailure as error:
            raise _unavailable(error, "Nothing was changed.") from None

    def _made(self, name: str, key: str, digest: bytes) -> MadeKey:
        details = self.get(name)
        ends = next((each.expires_at for each in details.digests if each.sha256 == digest.hex()), None)
        return MadeKey(key=key, sha256=digest.hex(), expires_at=ends, details=details)

    def _documents(self) -> Iterator[tuple[str, _Document]]:
        """Each key by its name; what files say of a name wins."""
        live = self._registry.state.live
        for name, key in self._overlay.keys.items():
            if key.document is not None and ObjectId("ApiKey", name) not in live:
                yield name, _Document(key.document, key.record)
        for object_id, item in live.items():
            document = item.candidate.document
            if object_id.kind == "ApiKey" and isinstance(document, ApiKeyDocument):
                yield object_id.name, _Document(document, None)

    def _in_service(self, name: str) -> ApiKeyDocument | None:
        """The document of a key of the files."""
        item = self._registry.state.live.get(ObjectId("ApiKey", name))
        document = None if item is None else item.candidate.document
        return document if isinstance(document, ApiKeyDocument) else None

    def _view(self, document: ApiKeyDocument, record: KeyRecord | None) -> KeyView:
        spec, revoked = document.spec, self._overlay.revoked
        digests = [
            DigestView(
                sha256=each.sha256, expires_at=moment(each.expires_at), revoked=bytes.fromhex(each.sha256) in revoked
            )
            for each in spec.digests
        ]
        return KeyView(
            name=document.metadata.name,
            tenant=spec.tenant,
            source="files" if record is None else "api",
            state=self._state(document, record),
            digests=digests,
            scenarios=spec.scenarios,
            limits=[limit.effective_name for limit in spec.limits],
            created_at=None if record is None else moment(record.created_at),
            revoked_at=None if record is None else moment(record.revoked_at),
        )

    def _state(self, document: ApiKeyDocument, record: KeyRecord | None) -> KeyState:
        ended = record is not None and record.revoked_at is not None
        revoked = self._overlay.revoked
        return state_of(
            document.spec,
            self._registry.snapshot,
            revoked=lambda sha256: ended or bytes.fromhex(sha256) in revoked,
        )


def _unread_view(record: KeyRecord) -> KeyView:
    """A key that another version wrote in a form that this one refuses; it opens nothing here."""
    return KeyView(
        name=record.name,
        tenant=str(record.document["spec"].get("tenant")),
        source="api",
        state="unresolved" if record.revoked_at is None else "revoked",
        digests=[DigestView(sha256=each, revoked=record.revoked_at is not None) for each in record.digests],
        created_at=moment(record.created_at),
        revoked_at=moment(record.revoked_at),
    )


def _revocation_view(each: Revocation) -> RevocationView:
    return RevocationView(sha256=each.sha256, revoked_at=rfc3339(each.revoked_at), key=each.key, tenant=each.tenant)


def _unavailable(error: RedisFailure, advice: str) -> StoreUnavailable:
    text = f"Redis did not answer as it should ({type(error).__name__}). {advice}"
    return StoreUnavailable(text, detail=str(error), retry_after_s=1.0)
