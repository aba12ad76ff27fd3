"""What the admin API says of keys, and what it makes of a document; with a store in memory that always answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app.admin_keys import AdminKeys
from gateway.app.admin_schemas import NewKey, Rotation
from gateway.app.source import FolderWatch
from gateway.clock import wall
from gateway.errors import Conflict, RedisUnanswered, RedisUnavailable, StoreUnavailable
from gateway.redis.script import Script
from gateway.registry import key_digest
from gateway.registry.keystore import KeyStore
from gateway.registry.keysync import KeySync
from gateway.registry.records import KeyRecord, digest_entry, encode, key_document, rfc3339
from gateway.settings import Settings
from tests.support.documents import echo_registry, tenant

FILE_KEY = "k" * 20


class Store:
    """A lane before a hash in memory; ``failure`` is what it answers writes with, after doing them if ``done``."""

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.failure: Exception | None = None
        self.done = False

    def send(self, *parts: bytes | str | int) -> asyncio.Future[Any]:
        """HGET and HSCAN."""
        if parts[0] == "HGET":
            field = parts[2]
            return _answered(self.fields.get(field if isinstance(field, bytes) else str(field).encode()))
        return _answered([b"0", [part for pair in self.fields.items() for part in pair]])

    def run(self, script: Script, keys: object, args: Any) -> asyncio.Future[Any]:
        """A write."""
        if self.failure is None or self.done:
            for record_id, _, wanted in zip(args[2::3], args[3::3], args[4::3], strict=True):
                self.fields[record_id.encode()] = wanted
            self.fields[b"head"] = args[0].encode()
        return _answered([b"written", b""]) if self.failure is None else _answered(self.failure)


def _answered(value: object) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class Office:
    """The operations over a registry with tenants acme and other."""

    def __init__(self, folder: Path) -> None:
        (folder / "all.yaml").write_text(yaml.safe_dump_all([*echo_registry(FILE_KEY), tenant("other")]))
        self.registry = FolderWatch(Settings.load(registry=folder))
        self.registry.load()
        self.store = Store()
        self.sync = KeySync(KeyStore(self.store), self.registry.lay_over, poll_s=1.0)
        self.audit: list[tuple[str, Mapping[str, str]]] = []
        self.keys = AdminKeys(self.registry, self.sync, lambda *line: self.audit.append(line), keys_max=100)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """An office of this test's own."""
    return Office(tmp_path)


def test_grace_ends_every_key_in_use_and_never_prolongs_one(office: Office) -> None:
    """A key that would have ended sooner still does; a second rotation does not begin the grace of the first anew."""

    async def main() -> None:
        soon = rfc3339(wall() + 60)
        await office.keys.create(NewKey.model_validate({"tenant": "acme", "name": "k", "expiresAt": soon}))
        await office.keys.rotate("k", Rotation.model_validate({"grace": "1h"}))
        await office.keys.rotate("k", Rotation.model_validate({"grace": "2h"}))
        first, second, third = office.keys.get("k").digests
        assert first.expires_at == soon
        assert second.expires_at is not None
        assert second.expires_at > soon
        assert third.expires_at is None
        await office.keys.rotate("k", Rotation.model_validate({"grace": "0s"}))
        assert len(office.keys.get("k").digests) == 1

    asyncio.run(main())


def test_a_key_has_at_most_sixteen_digests(office: Office) -> None:
    """As its document; the refusal says what to wait for."""

    async def main() -> None:
        await office.keys.create(NewKey(tenant="acme", name="k"))
        for _ in range(15):
            await office.keys.rotate("k", Rotation())
        with pytest.raises(Conflict, match="16 digests"):
            await office.keys.rotate("k", Rotation())

    asyncio.run(main())


def test_an_export_leaves_out_what_opens_nothing(office: Office) -> None:
    """Revoked keys and expired digests; what is left is what the registry takes."""

    async def main() -> None:
        await office.keys.create(NewKey(tenant="acme", name="good", limits=[{"unit": "concurrency", "amount": 3}]))
        await office.keys.create(NewKey(tenant="acme", name="bad"))
        await office.keys.revoke("bad")
        entries = [digest_entry(key_digest("a"), 1.0), digest_entry(key_digest("b"), None)]
        half = KeyRecord(document=key_document("half", "acme", entries), revision=1, created_at=1.0)
        over = KeyRecord(document=key_document("over", "acme", entries[:1]), revision=1, created_at=1.0)
        for record in (half, over):
            office.store.fields[record.id.encode()] = encode(record)
        office.store.fields[b"head"] = b"new"
        assert await office.sync.look()
        documents = {each["metadata"]["name"]: each for each in yaml.safe_load_all(office.keys.export())}
        assert documents.keys() == {"good", "half"}
        assert documents["good"]["spec"]["limits"] == [{"unit": "concurrency", "amount": 3}]
        assert documents["half"]["spec"]["digests"] == [{"sha256": key_digest("b").hex()}]
        states = {view.name: view.state for view in office.keys.all()}
        assert states == {"acme-key": "live", "good": "live", "bad": "revoked", "half": "live", "over": "expired"}

    asyncio.run(main())


def test_a_key_of_another_version_is_shown_and_can_be_revoked(office: Office) -> None:
    """Its document is not understood here; its digests are."""

    async def main() -> None:
        document = key_document("new", "acme", [digest_entry(key_digest("x"), None)])
        record = KeyRecord(document=document | {"novelty": 1}, revision=1, created_at=1.0)
        office.store.fields |= {record.id.encode(): encode(record), b"head": b"new"}
        assert await office.sync.look()
        assert [(view.name, view.state) for view in office.keys.all("acme")][1] == ("new", "unresolved")
        assert (await office.keys.revoke("new")).state == "revoked"
        assert [each.sha256 for each in office.keys.revocations()] == [key_digest("x").hex()]

    asyncio.run(main())


def test_a_change_that_was_not_made_is_told_apart_from_one_that_may_have_been(office: Office) -> None:
    """The text says which; only the second leaves an audit line, and what was written is found by the next look."""

    async def main() -> None:
        office.store.failure = RedisUnavailable("breaker")
        with pytest.raises(StoreUnavailable, match="Nothing was changed"):
            await office.keys.create(NewKey(tenant="acme", name="k"))
        assert office.audit == []
        office.store.failure, office.store.done = RedisUnanswered("late"), True
        with pytest.raises(StoreUnavailable, match="may have been made"):
            await office.keys.create(NewKey(tenant="acme", name="k"))
        assert office.audit == [("change.unanswered", {"record": "key/k"})]
        assert "k" not in {view.name for view in office.keys.all()}
        assert await office.sync.look()
        assert office.keys.get("k").state == "live"

    asyncio.run(main())


def test_states_are_told_apart(office: Office, tmp_path: Path) -> None:
    """A tenant that is disabled, and one that is gone."""

    async def main() -> None:
        await office.keys.create(NewKey(tenant="other", name="k"))
        for documents, state in (
            ([*echo_registry(FILE_KEY), tenant("other", disabled=True)], "disabled"),
            (echo_registry(FILE_KEY), "unresolved"),
            ([*echo_registry(FILE_KEY), tenant("other")], "live"),
        ):
            (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
            office.registry.refresh()
            assert office.keys.get("k").state == state

    asyncio.run(main())
