"""The format of API keys."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.keys import KEY_PATTERN, KEY_PREFIX, api_key_document, checksum_ok, generate_key, key_digest
from tests.unit.registry.folders import Folder, tenant

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_new_key_is_recognisable_random_and_checked() -> None:
    """A key has the prefix, at least 160 random bits, a checksum, and the characters that may be presented."""
    keys = {generate_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert key.startswith(KEY_PREFIX)
        assert KEY_PATTERN.fullmatch(key)
        assert checksum_ok(key)
    random_chars = len(next(iter(keys))) - len(KEY_PREFIX) - 6
    assert 62**random_chars >= 2**160


@given(st.integers(0, 41), st.sampled_from(_BASE62))
def test_a_typo_is_told_apart(position: int, char: str) -> None:
    """One wrong character is always seen, without asking anybody."""
    key = generate_key()
    typo = key[:position] + char + key[position + 1 :]
    assert checksum_ok(typo) == (typo == key)


@given(st.text(max_size=60))
def test_other_text_is_no_key(text: str) -> None:
    """Nothing but a key passes the checksum, and no text is an error."""
    assert not checksum_ok(text)


def test_swapped_and_cut_keys_are_told_apart() -> None:
    """A key that lost its end or its prefix is not one."""
    key = generate_key()
    assert not checksum_ok(key[:-1])
    assert not checksum_ok(key + "0")
    assert not checksum_ok("xgw_" + key[4:])


def test_digest_is_the_sha256_of_the_whole_key() -> None:
    """The digest covers prefix and checksum; text and bytes agree."""
    key = generate_key()
    assert key_digest(key) == key_digest(key.encode()) == hashlib.sha256(key.encode()).digest()


def test_the_document_loads_and_holds_no_key(folder: Folder) -> None:
    """The document that is made for a key is one that the registry loads, and the key is not in it."""
    key = generate_key()
    text = api_key_document(
        "acme-1", "acme", key_digest(key), expires_at=1_800_000_000.0, scenarios=[], schema="../schemas/apikey.json"
    )
    assert key not in text
    folder.write("tenant.yaml", tenant())
    folder.write("local/key.yaml", text)
    entry = folder.good().keys[key_digest(key)]
    assert entry.principal.tenant.name == "acme"
    assert entry.principal.key.scenarios == frozenset()
    assert entry.expires_at == 1_800_000_000.0
