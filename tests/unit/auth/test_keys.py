"""Authentication by key: one refusal for every reason."""

from __future__ import annotations

import hashlib
import ipaddress

import pytest

from gateway.auth import authenticate, read_credentials
from gateway.errors import AuthenticationFailed
from gateway.model import ApiKey, Credentials, IPNetwork, KeyEntry, Principal, Snapshot, Tenant

KEY = b"test-0123456789abcdef"
NOW = 1_760_000_000.0


def snapshot(
    *,
    expires_at: float | None = None,
    key_disabled: bool = False,
    tenant_disabled: bool = False,
    allow: tuple[IPNetwork, ...] | None = None,
    key: bytes = KEY,
) -> Snapshot:
    """A registry with one key."""
    tenant = Tenant(name="acme", scenarios={}, disabled=tenant_disabled, ip_allow_list=allow)
    principal = Principal(tenant=tenant, key=ApiKey(name="acme-key", disabled=key_disabled))
    return Snapshot(
        generation=1,
        hash="",
        loaded_at=NOW,
        keys={hashlib.sha256(key).digest(): KeyEntry(principal=principal, expires_at=expires_at)},
        tenants={},
        scenarios={},
        backends={},
        object_counts={},
    )


def presented(*keys: bytes, client_ip: str = "10.1.2.3") -> Credentials:
    """Credentials as the edge found them."""
    return read_credentials(keys, client_ip)


def refusal(registry: Snapshot, credentials: Credentials, now: float = NOW) -> AuthenticationFailed:
    """The refusal, which must be one."""
    with pytest.raises(AuthenticationFailed) as caught:
        authenticate(registry, credentials, now)
    return caught.value


def test_a_known_key_opens() -> None:
    """By the digest of the whole string; the same key in several headers is one key."""
    assert authenticate(snapshot(), presented(KEY), NOW).tenant.name == "acme"
    assert authenticate(snapshot(), presented(KEY, KEY, KEY), NOW).key.name == "acme-key"


@pytest.mark.parametrize(
    "keys",
    [
        (),
        (b"",),
        (KEY[:-1],),
        (KEY + b"x",),
        (KEY.upper(),),
        (b"k" * 15,),
        (b"k" * 257,),
        (KEY + b"\n",),
        (b" " + KEY,),
        (KEY + "ä".encode(),),
        (b"\xff" * 20,),
        (KEY, b""),
        (KEY, KEY + b"x"),
        (KEY + b"x", KEY),
    ],
)
def test_anything_else_is_refused(keys: tuple[bytes, ...]) -> None:
    """Missing, malformed, unknown, or two that differ."""
    assert refusal(snapshot(), presented(*keys)).message == "Incorrect API key provided."


@pytest.mark.parametrize("key", [b"k" * 16, b"k" * 256, b"A.b_c-9" * 4])
def test_any_key_of_the_accepted_form_may_be_known(key: bytes) -> None:
    """Prefix and checksum are never required."""
    assert authenticate(snapshot(key=key), presented(key), NOW).tenant.name == "acme"


def test_a_key_ends_at_its_time() -> None:
    """Good before, refused from that second on."""
    registry = snapshot(expires_at=NOW)
    authenticate(registry, presented(KEY), NOW - 0.001)
    assert refusal(registry, presented(KEY), NOW).detail == "expired key acme-key"


@pytest.mark.parametrize("registry", [snapshot(key_disabled=True), snapshot(tenant_disabled=True)])
def test_the_on_call_switch(registry: Snapshot) -> None:
    """A disabled key or tenant is refused like an unknown one."""
    assert refusal(registry, presented(KEY)).message == refusal(registry, presented()).message


@pytest.mark.parametrize(
    ("client_ip", "allowed"),
    [("10.1.2.3", True), ("11.0.0.1", False), ("::ffff:10.1.2.3", True), ("fd00::1", True), ("", False), ("x", False)],
)
def test_addresses(client_ip: str, allowed: bool) -> None:
    """Only from the networks of the list; an IPv4 address in IPv6 form is the same address."""
    registry = snapshot(allow=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")))
    credentials = presented(KEY, client_ip=client_ip)
    if allowed:
        authenticate(registry, credentials, NOW)
    else:
        refusal(registry, credentials)


def test_an_empty_list_allows_nobody() -> None:
    """Nowhere is not everywhere."""
    refusal(snapshot(allow=()), presented(KEY))
