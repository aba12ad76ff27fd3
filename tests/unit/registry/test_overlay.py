"""Keys and revocations of the admin API over a snapshot of files."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Snapshot
from gateway.registry.overlay import NO_OVERLAY, Overlay, Overlayer, make_overlay
from gateway.registry.records import KeyRecord, Record, Revocation, by_id, digest_entry, key_document
from tests.unit.registry.folders import DIGEST, Folder, api_key, echo, scenario, tenant

IN_FILES, MADE, OTHER = bytes.fromhex(DIGEST), bytes.fromhex("cd" * 32), bytes.fromhex("ef" * 32)


def record(name: str = "made", digest: bytes = MADE, of_tenant: str = "acme", **more: Any) -> KeyRecord:
    """A key that the admin API made."""
    document = key_document(
        name, of_tenant, [digest_entry(digest, more.pop("expires_at", None))], more.pop("scenarios", None)
    )
    return KeyRecord(document=document, revision=1, created_at=1.0, **more)


def revocation(digest: bytes) -> Revocation:
    """A digest that opens nothing."""
    return Revocation(sha256=digest.hex(), revoked_at=1.0)


def overlay_of(*records: Record) -> Overlay:
    """An overlay of these records."""
    return make_overlay(by_id(records))


def overlaid(snapshot: Snapshot, overlay: Overlay) -> Snapshot:
    """What is served of both by somebody who saw nothing before."""
    return Overlayer().apply(snapshot, overlay)


def names(snapshot: Snapshot) -> dict[bytes, str]:
    """The name of the key that each digest opens."""
    return {digest: entry.principal.key.name for digest, entry in snapshot.keys.items()}


def files(folder: Folder, *more: Any) -> Snapshot:
    """A registry with tenant acme and the key acme-ci."""
    folder.write("base.yaml", echo(), scenario(target="echo"), tenant(), api_key(), *more)
    return folder.good()


def test_without_an_overlay_the_snapshot_of_the_files_serves_itself(folder: Folder) -> None:
    """Whoever never uses the admin API pays nothing and sees nothing of it."""
    snapshot = files(folder)
    assert overlaid(snapshot, NO_OVERLAY) is snapshot
    assert overlaid(snapshot, overlay_of(revocation(OTHER))) is snapshot


def test_a_made_key_opens_its_tenant_and_keeps_its_expiry_and_scenarios(folder: Folder) -> None:
    """As a key of the files would; everything else of the snapshot stays."""
    snapshot = files(folder)
    served = overlaid(snapshot, overlay_of(record(expires_at=2e9, scenarios=["chat"])))
    entry = served.keys[MADE]
    assert entry.principal.tenant is snapshot.tenants["acme"]
    assert (entry.principal.key.name, entry.expires_at) == ("made", 2e9)
    assert entry.principal.key.scenarios == frozenset({"chat"})
    assert names(served) == {IN_FILES: "acme-ci", MADE: "made"}
    assert (served.generation, served.hash) == (snapshot.generation, snapshot.hash)


def test_a_revoked_digest_opens_nothing_whoever_lists_it(folder: Folder) -> None:
    """A document of the files, a record, or both."""
    exported = api_key("made", digests=[{"sha256": MADE.hex()}])
    snapshot = files(folder, exported)
    everything = overlay_of(record(), record("twin", OTHER), revocation(MADE), revocation(IN_FILES), revocation(OTHER))
    assert names(overlaid(snapshot, everything)) == {}


def test_a_revoked_key_opens_nothing_even_without_its_revocations(folder: Folder) -> None:
    """The record alone is enough."""
    assert names(overlaid(files(folder), overlay_of(record(revoked_at=2.0)))) == {IN_FILES: "acme-ci"}


def test_what_files_say_of_a_name_wins(folder: Folder) -> None:
    """An exported key is governed where it went: a digest taken out there works no more."""
    exported = api_key("made", digests=[{"sha256": OTHER.hex()}])
    assert names(overlaid(files(folder, exported), overlay_of(record()))) == {IN_FILES: "acme-ci", OTHER: "made"}


def test_what_files_say_of_a_digest_wins(folder: Folder) -> None:
    """A record that lists a digest of another key of the files does not take it over."""
    assert names(overlaid(files(folder), overlay_of(record(digest=IN_FILES)))) == {IN_FILES: "acme-ci"}


def test_a_key_waits_for_its_tenant(folder: Folder) -> None:
    """It opens nothing while the tenant is missing, and heals when it appears."""
    overlay = overlay_of(record(of_tenant="later"))
    assert MADE not in overlaid(files(folder), overlay).keys
    folder.write("later.yaml", tenant("later"))
    assert MADE in overlaid(folder.good(), overlay).keys


def test_a_document_that_this_version_refuses_opens_nothing_and_is_named(folder: Folder) -> None:
    """One bad record takes nothing from the others."""
    bad = KeyRecord(document={**record("bad", OTHER).document, "novelty": 1}, revision=1, created_at=1.0)
    overlay = overlay_of(bad, record())
    assert overlay.keys["bad"].problems == (("novelty", "is not a known field"),)
    assert names(overlaid(files(folder), overlay)) == {IN_FILES: "acme-ci", MADE: "made"}


def test_an_entry_that_is_the_same_stays_the_same_object(folder: Folder) -> None:
    """Whatever is kept by principal lives on across reloads of either kind."""
    snapshot = files(folder)
    overlayer = Overlayer()
    first = overlayer.apply(snapshot, overlay_of(record()))
    again = overlayer.apply(snapshot, overlay_of(record(), record("more", OTHER)))
    assert again.keys[MADE] is first.keys[MADE]
    assert again.keys[IN_FILES] is snapshot.keys[IN_FILES]


def test_documents_that_did_not_change_are_not_read_again() -> None:
    """A change of one key among ten thousand costs the reading of one."""
    before = overlay_of(record(), record("more", OTHER))
    after = make_overlay(by_id([record(), record("more", OTHER, revoked_at=3.0)]), before)
    assert after.keys["made"] is before.keys["made"]
    assert after.keys["more"] is not before.keys["more"]


CHANGES = st.lists(st.sampled_from(["file+", "file-", "make", "revoke made", "revoke file", "rotate"]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.randoms(use_true_random=False))
def test_the_order_of_reloads_does_not_matter(tmp_path_factory: Any, changes: list[str], random: Any) -> None:
    """Whatever the interleaving of loads of files and overlay, what is served is what both say at the end."""
    folder = Folder(tmp_path_factory.mktemp("registry"))
    snapshot, overlay, overlayer = files(folder), NO_OVERLAY, Overlayer()
    for change in changes:
        if change == "file+":
            folder.write("more.yaml", api_key("made", digests=[{"sha256": MADE.hex()}]))
        elif change == "file-":
            folder.write("more.yaml", "")
        else:
            added: dict[str, list[Record]] = {
                "make": [record()],
                "revoke made": [record(revoked_at=2.0), revocation(MADE)],
                "revoke file": [revocation(IN_FILES)],
                "rotate": [record(digest=OTHER)],
            }
            overlay = make_overlay({**overlay.records, **by_id(added[change])}, overlay)
        if random.random() < 0.5:
            snapshot = folder.good()
        overlayer.apply(snapshot, overlay)
    snapshot = folder.good()
    assert overlayer.apply(snapshot, overlay) == overlaid(snapshot, make_overlay(overlay.records))
