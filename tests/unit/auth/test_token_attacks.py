"""Tokens that must not open anything: forged, confused, oversized, malformed or random."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.issuer import SigningKey, claims, encoded, forge
from tests.unit.auth.doors import ISSUER, KEY, RSA, Door


@pytest.fixture(scope="module")
def door() -> Door:
    """Knows one key of each kind."""
    return Door(KEY, RSA)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 5])
@pytest.mark.parametrize("signature", [b"", b"x"])
def test_no_algorithm(door: Door, alg: object, signature: bytes) -> None:
    """``alg: none`` with and without a signature, in every spelling, and no ``alg`` at all."""
    door.refuses(forge({"alg": alg, "kid": KEY.kid}, claims(ISSUER), lambda _: signature))
    door.refuses(forge({"kid": KEY.kid}, claims(ISSUER), lambda _: signature))


def public_forms() -> list[bytes]:
    """What everybody can read of the RSA key: as PEM, as JWK, its modulus."""
    pem = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return [pem, pem.strip(), json.dumps(RSA.jwk()).encode(), RSA.jwk()["n"].encode(), b""]


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("secret", public_forms(), ids=["pem", "stripped-pem", "jwk", "modulus", "nothing"])
def test_a_public_key_is_no_shared_secret(door: Door, digest: str, secret: bytes) -> None:
    """HS256 and its siblings, keyed with the public key."""
    header = {"alg": f"HS{digest[3:]}", "kid": RSA.kid}
    token = forge(header, claims(ISSUER), lambda data: hmac.digest(secret, data, digest))
    assert door.refuses(token) == "token: algorithm not allowed"


@pytest.mark.parametrize("algorithm", ["PS256", "ES256K", "EdDSA", "RS1", "rs256", "RSA1_5", "A128KW", "dir", "RS256 "])
def test_only_six_algorithms(door: Door, algorithm: str) -> None:
    """Whatever else a token may name, even with a signature that would hold."""
    assert door.refuses(RSA.token(claims(ISSUER), alg=algorithm)) == "token: algorithm not allowed"


def test_a_wrong_key_type(door: Door) -> None:
    """An EC signature under the id of an RSA key and the other way round, with either name for the algorithm."""
    for signer, named in ((KEY, RSA), (RSA, KEY)):
        for algorithm in (KEY.algorithm, RSA.algorithm):
            reason = door.refuses(signer.token(claims(ISSUER), alg=algorithm, kid=named.kid))
            assert reason in (f"token: {ISSUER} has no key for it", "token: wrong signature")
    curve = SigningKey("ES384", KEY.kid)
    assert "no key for it" in door.refuses(curve.token(claims(ISSUER)))


def test_a_wrong_signature(door: Door) -> None:
    """Another key's, a changed payload, a changed header, one cut short, one of zeros, one that is too long."""
    stranger = SigningKey("ES256")
    assert door.refuses(stranger.token(claims(ISSUER))) == "token: wrong signature"
    head, body, signature = KEY.token(claims(ISSUER, tenant="beta")).split(".")
    other_body = encoded(json.dumps(claims(ISSUER)).encode()).decode()
    other_head = encoded(json.dumps({"alg": "ES256", "kid": KEY.kid, "x": 1}).encode()).decode()
    zeros = encoded(bytes(64)).decode()
    for token in (
        f"{head}.{other_body}.{signature}",
        f"{other_head}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}",
        f"{head}.{body}.{signature}AAAA",
        f"{head}.{body}.{zeros}",
        RSA.token(claims(ISSUER))[:-8] + "AAAAAAAA",
    ):
        assert door.refuses(token) == "token: wrong signature"


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk", "x5c"])
def test_a_token_brings_no_key(door: Door, member: str) -> None:
    """Refused before anything is fetched, even where the signature would hold."""
    value: Any = {"jwk": KEY.jwk(), "x5c": ["MIIB"]}.get(member, "https://evil.example/keys")
    before = door.fetches
    assert door.refuses(KEY.token(claims(ISSUER), **{member: value})) == "token: brings its own key"
    stranger = SigningKey("ES256", "stranger")
    assert door.refuses(stranger.token(claims(ISSUER), **{member: stranger.jwk()})) == "token: brings its own key"
    assert door.fetches == before


def test_extensions_that_must_be_understood(door: Door) -> None:
    """None is (RFC 7515, 4.1.11), such as the unencoded payload of RFC 7797."""
    assert "critical" in door.refuses(KEY.token(claims(ISSUER), crit=["b64"], b64=False))


def test_an_oversized_token(door: Door) -> None:
    """Refused by its length alone, at 8 KiB by default."""
    reason = "token: too large"
    padding = "x" * 6000
    token = KEY.token(claims(ISSUER, padding=padding))
    assert len(token) > 8192 - 10
    assert door.refuses(token + "A" * (8193 - len(token))) == reason
    assert door.refuses("a" * 30000 + ".b.c") == reason
    assert Door(KEY, max_token_bytes=100).refuses(KEY.token(claims(ISSUER))) == reason
    assert Door(KEY, max_token_bytes=16384).open(token).tenant.name == "acme"


@pytest.mark.parametrize(
    "token",
    [
        "a.b.c",
        "..",
        "a..b",
        "eyJhbGciOiJFUzI1NiJ9.e30.",
        "eyJhbGciOiJFUzI1NiJ9.e30=.AAAA",
        "eyJhbGciOiJFUzI1NiJ9.e3+0.AAAA",
        "eyJhbGciOiJFUzI1NiJ9.e30.AAAA\n",
        " eyJhbGciOiJFUzI1NiJ9.e30.AAAA",
        "eyJhbGciOiJFUzI1NiJ9.e30.A",
        "eyJhbGciOiJFUzI1NiJ9.e30.ÄÄÄÄ",
    ],
)
def test_what_has_no_form(door: Door, token: str) -> None:
    """Parts that are missing, empty or no base64url."""
    door.refuses(token)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b'{"alg":"ES256",}',
        b"\xff\xfe",
        b'{"alg":NaN}',
        b'{"a":' * 1500 + b"1" + b"}" * 1500,
        b"[" * 5900,
        b'{"exp":1e999}',
        b'{"exp":' + b"9" * 5000 + b"}",
    ],
)
def test_parts_that_are_no_json_object(door: Door, part: bytes) -> None:
    """As header or as payload, nested too deep or with numbers too large: refused, and never an error of ours."""
    assert "token: " in door.refuses(forge(part or b" ", claims(ISSUER), KEY.sign))
    assert "token: " in door.refuses(KEY.token(part or b" "))


def test_key_ids_are_texts(door: Door) -> None:
    """Or missing; an unknown one has no key."""
    for kid in (5, ["key-1"], {"key-1": 1}, True):
        assert door.refuses(KEY.token(claims(ISSUER), kid=kid)) == "token: malformed key id"
    for unknown in ("", "key-2", "../key-1", "key-1\x00", "k" * 3000):
        assert "no key for it" in door.refuses(KEY.token(claims(ISSUER), kid=unknown))


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 255, 256, 257, 512, 4000])
@pytest.mark.parametrize("fill", [0, 1, 255])
def test_signatures_of_every_length(door: Door, length: int, fill: int) -> None:
    """Zeros, small and huge numbers: for both kinds of keys a wrong signature and nothing else."""
    for key in (KEY, RSA):
        token = forge({"alg": key.algorithm, "kid": key.kid}, claims(ISSUER), lambda _: bytes([fill]) * length)
        assert door.refuses(token) == "token: wrong signature"


@settings(max_examples=300, deadline=None)
@given(
    head=st.one_of(st.binary(max_size=40), st.dictionaries(st.text(max_size=4), st.text(max_size=4)), st.just(None)),
    payload=st.one_of(st.binary(max_size=40), st.dictionaries(st.text(max_size=4), st.integers()), st.just(None)),
    signature=st.one_of(st.binary(min_size=1, max_size=200), st.just(bytes(64))),
)
def test_nothing_at_random_opens_or_breaks(door: Door, head: Any, payload: Any, signature: bytes) -> None:
    """Any header, payload and signature, and good ones with a wrong rest: a refusal, never another exception."""
    good_head = {"alg": "ES256", "kid": KEY.kid}
    door.refuses(forge(good_head if head is None else head, payload or claims(ISSUER), lambda _: signature))
