"""Authentication by JWT: what opens a tenant, what the claims must say, and what is remembered."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from typing import Any

import pytest

from gateway.model import ApiKey, KeyEntry, Principal, Tenant
from tests.support.issuer import AUDIENCE, SigningKey, claims, rsa_private_key
from tests.unit.auth.doors import ALGORITHMS, ISSUER, KEY, RSA, Door, snapshot


@pytest.fixture(scope="module")
def door() -> Door:
    """Knows one key of each kind."""
    return Door(KEY, RSA)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_opens_its_tenant(algorithm: str) -> None:
    """Each of the six algorithms; the caller is the tenant with a key that narrows nothing."""
    key = SigningKey(algorithm)
    principal = Door(key).open(key.token(claims(ISSUER)))
    assert principal.tenant.name == "acme"
    assert principal.key == ApiKey(name="oidc")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_without_alg_is_for_what_its_type_is_for(algorithm: str) -> None:
    """Many issuers leave ``alg`` out of their keys."""
    key = SigningKey(algorithm)
    assert Door(key.jwk(alg=None, use=None)).open(key.token(claims(ISSUER))).tenant.name == "acme"


def test_a_key_says_what_it_is_for(door: Door) -> None:
    """The token cannot choose another hash for a key that is published for one."""
    other = SigningKey("RS512", RSA.kid, RSA.private)
    assert "no key for it" in door.refuses(other.token(claims(ISSUER)))


def test_the_token_in_several_headers_is_one_token(door: Door) -> None:
    """As with API keys: the same twice is one, two that differ are none."""
    token = KEY.token(claims(ISSUER))
    assert door.open(token, token).tenant.name == "acme"
    assert door.refuses(token, KEY.token(claims(ISSUER, sub="other"))) == "credentials that differ"
    assert door.refuses(token, "test-0123456789abcdef") == "credentials that differ"


def test_a_token_without_key_id_is_for_the_only_key() -> None:
    """Of one that may be used so; of two it could be either, so it is neither (RFC 7517, 4.5 leaves it to us)."""
    token = KEY.token(claims(ISSUER), kid=None)
    assert Door(KEY, RSA).open(token).tenant.name == "acme"
    assert Door(KEY.jwk(kid=None)).open(token).tenant.name == "acme"
    assert "no key for it" in Door(KEY, SigningKey("ES256", "key-2")).refuses(token)


def test_api_keys_go_on(door: Door) -> None:
    """Also one with two dots, which looks like a token; and an unknown one of that form is refused as a token is."""
    for key in (b"test-0123456789abcdef", b"test.0123456789.abcdef"):
        entry = KeyEntry(principal=Principal(tenant=Tenant(name="keyed", scenarios={}), key=ApiKey(name="k")))
        registry = snapshot(keys={hashlib.sha256(key).digest(): entry})
        assert door.open(key.decode(), registry=registry).tenant.name == "keyed"
    door.refuses("test.0123456789.abcdef")
    door.refuses("test-0123456789abcdef")
    door.refuses()


def test_without_issuers_nothing_is_a_token(door: Door) -> None:
    """A gateway whose registry names no issuer reads everything as a key."""
    assert door.refuses(KEY.token(claims(ISSUER)), registry=snapshot(issuers={})) in ("malformed key", "unknown key")


# What the claims must say


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iss": "https://other.example"}, "unknown issuer"),
        ({"iss": ISSUER + "/"}, "unknown issuer"),
        ({"iss": None}, "unknown issuer"),
        ({"iss": [ISSUER]}, "unknown issuer"),
        ({"aud": "another-service"}, "no tenant"),
        ({"aud": ["another-service"]}, "no tenant"),
        ({"aud": None}, "no tenant"),
        ({"aud": {AUDIENCE: 1}}, "no tenant"),
        ({"tenant": "gamma"}, "no tenant"),
        ({"tenant": "ACME"}, "no tenant"),
        ({"tenant": None}, "no tenant"),
        ({"tenant": True}, "no tenant"),
        ({"tenant": {"acme": "acme"}}, "no tenant"),
        ({"tenant": ["acme", "beta"]}, "several tenants: acme, beta"),
        ({"exp": None}, "times"),
        ({"exp": "2100000000"}, "times"),
        ({"exp": True}, "times"),
        ({"exp": [2100000000]}, "times"),
        ({"nbf": "0"}, "times"),
        ({"nbf": 10**300}, "not valid yet"),
    ],
)
def test_claims_that_open_nothing(door: Door, change: dict[str, Any], reason: str) -> None:
    """Every claim is exactly as the registry has it, of the right type, and leads to one tenant."""
    body = claims(ISSUER) | change
    token = KEY.token({name: value for name, value in body.items() if value is not None})
    assert reason in door.refuses(token)


@pytest.mark.parametrize(
    "change",
    [
        {"aud": ["x", AUDIENCE]},
        {"tenant": ["guests", "acme"]},
        {"nbf": None},
        {"exp": 10**300},
        {"exp": 4e9, "iat": {}},
    ],
)
def test_claims_that_open(door: Door, change: dict[str, Any]) -> None:
    """Lists of audiences and of claim values; no start; an end in the far future; claims that mean nothing to us."""
    assert door.open(KEY.token(claims(ISSUER, **change))).tenant.name == "acme"


def test_times_are_kept_with_leeway(door: Door) -> None:
    """Thirty seconds at both ends, and not one more."""
    token = KEY.token(claims(ISSUER, nbf=5000, exp=6000))
    for now in (4970.0, 5000.0, 6000.0, 6029.9):
        assert door.open(token, now=now).tenant.name == "acme"
    assert door.refuses(token, now=4969.9) == "token: not valid yet"
    assert door.refuses(token, now=6030.0) == "token: expired"
    assert Door(KEY, leeway_s=0).refuses(token, now=6000.0) == "token: expired"


def test_each_tenant_says_which_audience_and_claim_are_its_own() -> None:
    """One issuer, two tenants, different rules: a claim of the one rule opens nothing under the other's audience."""
    registry = snapshot(grants={("first", "tenant", "acme"): 0, ("second", "groups", "acme"): 1})
    door = Door(KEY)
    assert door.open(KEY.token(claims(ISSUER, aud="first")), registry=registry).tenant.name == "acme"
    groups = {"tenant": None, "groups": ["staff", "acme"]}
    assert door.open(KEY.token(claims(ISSUER, aud="second", **groups)), registry=registry).tenant.name == "beta"
    door.refuses(KEY.token(claims(ISSUER, aud="second")), registry=registry)
    assert "several" in door.refuses(
        KEY.token(claims(ISSUER, aud=["first", "second"], groups="acme")), registry=registry
    )


def test_the_tenant_has_its_say_as_for_keys(door: Door) -> None:
    """Disabled, or fenced to other addresses."""
    token = KEY.token(claims(ISSUER))
    assert "disabled" in door.refuses(token, registry=snapshot(Tenant(name="acme", scenarios={}, disabled=True)))
    far, near = (ipaddress.ip_network(each) for each in ("192.0.2.0/24", "10.0.0.0/8"))
    fenced = Tenant(name="acme", scenarios={}, ip_allow_list=(far,))
    assert "address" in door.refuses(token, registry=snapshot(fenced))
    assert door.open(token, registry=snapshot(Tenant(name="acme", scenarios={}, ip_allow_list=(near,))))


# What is remembered


def test_a_verified_signature_is_remembered_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time costs no cryptography; time, tenant and the issuer's keys are looked at all the same."""
    door = Door(KEY)
    token = KEY.token(claims(ISSUER, nbf=5000, exp=6000))
    door.open(token, now=5500.0)
    key = asyncio.run(door.keys.of(ISSUER, KEY.kid, {ISSUER})).find(KEY.kid, "ES256")
    assert key is not None
    monkeypatch.setattr(type(key), "verify", lambda *_: pytest.fail("verified again"))
    door.open(token, now=5500.0)
    assert door.refuses(token, now=7000.0) == "token: expired"
    assert "disabled" in door.refuses(
        token, now=5500.0, registry=snapshot(Tenant(name="acme", scenarios={}, disabled=True))
    )
    monkeypatch.undo()
    door.published = [SigningKey("ES256", "key-2").jwk()]
    door.now_s += 601
    door.refuses(KEY.token(claims(ISSUER), kid="asks-for-the-keys"))
    assert "no key for it" in door.refuses(token, now=5500.0)


def test_what_is_remembered_is_bounded() -> None:
    """Only tokens that were good, and only so many; zero remembers none."""
    for most in (0, 3):
        door = Door(KEY, max_verified=most)
        for number in range(6):
            door.open(KEY.token(claims(ISSUER, sub=str(number))))
            door.refuses(SigningKey("ES256").token(claims(ISSUER, sub=str(number))))
        assert len(door.tokens._verified) == most


def test_weak_keys_verify_nothing() -> None:
    """RSA below 2048 bits (RFC 7518, 3.3)."""
    weak = SigningKey("RS256", "weak", rsa_private_key("weak", 1024))
    assert "no key for it" in Door(weak).refuses(weak.token(claims(ISSUER)))
