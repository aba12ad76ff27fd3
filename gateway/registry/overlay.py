"""Keys and revocations of the admin API, laid over the snapshot of the files. Pure.

Invariants:
- The result depends on the files' snapshot and the records alone, not on which of them changed last.
- A revoked digest opens nothing, whichever document lists it.
- What files say of a key wins over a record of the same name, and so does what they say of a digest.
- A request pays nothing: the result is a snapshot like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from msgspec.structs import replace

from gateway.errors import Overloaded
from gateway.model import Frozen, KeyEntry, Scenario, Snapshot, Tenant
from gateway.registry.accounts import ApiKeyDocument
from gateway.registry.check import validate
from gateway.registry.compile import compile_key
from gateway.registry.documents import FieldErrors, Kind
from gateway.registry.records import KEY, KeyRecord, Record, Revocation
from gateway.registry.scope import Scope


class OverlayKey(Frozen, frozen=True):
    """A record with its document; ``document`` is None where this version refuses it, for ``problems``."""

    record: KeyRecord
    tenant: str
    document: ApiKeyDocument | None
    problems: tuple[tuple[str, str], ...] = ()


class Overlay(Frozen, frozen=True):
    """What the admin API has made: keys by name, revocations by digest."""

    records: Mapping[str, Record] = MappingProxyType({})
    keys: Mapping[str, OverlayKey] = MappingProxyType({})
    revoked: Mapping[bytes, Revocation] = MappingProxyType({})


NO_OVERLAY = Overlay()


class UnknownKeys(Mapping[bytes, KeyEntry]):
    """Stands for the index of keys as long as nobody knows which of them open: every look-up is refused."""

    def __init__(self, detail: str) -> None:
        self._detail = detail

    def __getitem__(self, digest: bytes) -> KeyEntry:
        """Raise Overloaded."""
        raise Overloaded(
            "The gateway is starting.",
            detail=self._detail,
            retry_after_s=1.0,
        )

    def __iter__(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def __len__(self) -> int:
        """None."""
        return 0


UNKNOWN_KEYS = UnknownKeys("the keys of the admin API are not known yet: Redis has not answered")


def make_overlay(records: Mapping[str, Record], before: Overlay = NO_OVERLAY) -> Overlay:
    """Read the documents of the records; those of ``before`` that are the same are not read again."""
    keys: dict[str, OverlayKey] = {}
    revoked: dict[bytes, Revocation] = {}
    for record_id, record in records.items():
        if isinstance(record, Revocation):
            revoked[bytes.fromhex(record.sha256)] = record
        else:
            name = record_id.removeprefix(KEY)
            known = before.keys.get(name)
            same = known is not None and (known.record is record or known.record == record)
            keys[name] = known if known is not None and same else _read(record)
    return Overlay(
        records=MappingProxyType(dict(records)), keys=MappingProxyType(keys), revoked=MappingProxyType(revoked)
    )


def _read(record: KeyRecord) -> OverlayKey:
    document, errors = validate(ApiKeyDocument, record.document)
    tenant = str(record.document["spec"].get("tenant"))
    return OverlayKey(record=record, tenant=tenant, document=document, problems=tuple(errors))


class Overlayer:
    """Lays overlays over snapshots, and remembers what it compiled: a change of one key costs one key."""

    def __init__(self) -> None:
        self._served: Mapping[bytes, KeyEntry] = {}
        self._compiled: dict[str, _Compiled] = {}

    def apply(self, files: Snapshot, overlay: Overlay) -> Snapshot:
        """Return the files' snapshot with the overlay's keys added and every revoked digest left out.

        An entry that is the same as in the result before stays the same object. Where the overlay changes nothing the
        snapshot comes back as it is.
        """
        before, revoked = self._served, overlay.revoked
        keys = {digest: entry for digest, entry in files.keys.items() if digest not in revoked}
        changed = len(keys) != len(files.keys)
        for digest, entry in self._entries(files, overlay):
            if digest not in revoked and digest not in keys:
                last = before.get(digest)
                keys[digest] = entry if last is entry or last is None or last != entry else last
                changed = True
        self._served = MappingProxyType(keys) if changed else files.keys
        return replace(files, keys=self._served) if changed else files

    def _entries(self, files: Snapshot, overlay: Overlay) -> Iterator[tuple[bytes, KeyEntry]]:
        governed = {entry.principal.key.name for entry in files.keys.values()}
        scope, tenants, before = scope_of(files), files.tenants, self._compiled
        compiled: dict[str, _Compiled] = {}
        for name, key in overlay.keys.items():
            if name in governed or key.record.revoked_at is not None or key.document is None:
                continue
            tenant = tenants.get(key.tenant)
            known = before.get(name)
            if known is None or known.key is not key or known.tenant is not tenant:
                known = _Compiled(key, tenant, tuple(_compiled_entries(key.document, scope)))
            compiled[name] = known
        self._compiled = compiled
        for name in sorted(compiled):  # of two keys with one digest it is always the same that has it
            yield from compiled[name].entries


class _Compiled(NamedTuple):
    key: OverlayKey
    tenant: Tenant | None
    entries: tuple[tuple[bytes, KeyEntry], ...]


def _compiled_entries(document: ApiKeyDocument, scope: Scope) -> Iterator[tuple[bytes, KeyEntry]]:
    """Compile a key; nothing while its tenant is missing. A scenario that is missing only narrows it."""
    try:
        compiled = compile_key(document, scope, lenient=True)
    except FieldErrors:
        return
    for digest, expires_at in compiled.expiries:
        yield digest, KeyEntry(principal=compiled.principal, expires_at=expires_at)


def scope_of(snapshot: Snapshot) -> Scope:
    """Return what a key may refer to: the tenants and scenarios that serve."""

    def why_missing(kind: Kind, name: str) -> str:
        return f"there is no {kind} `{name}`"

    def visible(_tenant: str, _asked: object) -> Mapping[str, Scenario]:
        return {}  # asked for tenants only, which are compiled already

    return Scope(
        backends=snapshot.backends,
        prompts={},
        scenarios=snapshot.scenarios,
        tenants=snapshot.tenants,
        tenant_names=frozenset(snapshot.tenants),
        why_missing=why_missing,
        visible=visible,
    )
