"""An issuer's keys: which are usable and for what, when they are fetched, and what holds while they cannot be."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.auth import IssuerKeys, KeyOptions, jwks
from gateway.auth.jwks import FetchFailed, KeySet, parse_key_set
from tests.support.calls import until
from tests.support.issuer import SigningKey, rsa_private_key

ISSUER = "https://idp.example"
SERVED = frozenset({ISSUER, "https://second.example"})
EC = SigningKey("ES256", "ec")
RSA = SigningKey("RS256", "rsa")


def parsed(*entries: Any) -> KeySet:
    """The key set of these entries."""
    return parse_key_set(json.dumps({"keys": list(entries)}).encode())


# Reading


@pytest.mark.parametrize(
    ("entry", "uses"),
    [
        (RSA.jwk(), {"RS256"}),
        (RSA.jwk(alg=None), {"RS256", "RS384", "RS512"}),
        (RSA.jwk(alg="RS512"), {"RS512"}),
        (RSA.jwk(use=None, key_ops=["verify"]), {"RS256"}),
        (RSA.jwk(x5c=["MIIB"], x5t="abc", ext=True), {"RS256"}),
        (EC.jwk(), {"ES256"}),
        (EC.jwk(alg=None), {"ES256"}),
        (SigningKey("ES384").jwk(alg=None), {"ES384"}),
        (SigningKey("ES512").jwk(alg=None), {"ES512"}),
        (RSA.jwk(use="enc"), set()),
        (RSA.jwk(use=5), set()),
        (RSA.jwk(key_ops=["encrypt"]), set()),
        (RSA.jwk(key_ops="verify"), set()),
        (RSA.jwk(alg="PS256"), set()),
        (RSA.jwk(alg="HS256"), set()),
        (RSA.jwk(alg="ES256"), set()),
        (RSA.jwk(alg=["RS256"]), set()),
        (RSA.jwk(kty="EC"), set()),
        (RSA.jwk(kty=None), set()),
        (RSA.jwk(n=None), set()),
        (RSA.jwk(n="!!!!"), set()),
        (RSA.jwk(n=5), set()),
        (RSA.jwk(e="AQ"), set()),
        (RSA.jwk(e="AA"), set()),
        (RSA.jwk(e="_" * 40), set()),
        (SigningKey("RS256", "w", rsa_private_key("weak", 1024)).jwk(), set()),
        (EC.jwk(crv="P-384", alg="ES256"), set()),
        (EC.jwk(crv="P-384", alg=None), set()),
        (EC.jwk(crv="secp256k1"), set()),
        (EC.jwk(crv=["P-256"]), set()),
        (EC.jwk(x=EC.jwk()["y"]), set()),
        (EC.jwk(y=None), set()),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"}, set()),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "ed", "alg": "EdDSA"}, set()),
        ({}, set()),
        ("text", set()),
        (None, set()),
        ([], set()),
    ],
)
def test_what_a_key_may_be_used_for(entry: Any, uses: set[str]) -> None:
    """Its own word where it fits its type; else nothing, and the keys beside it do not mind."""
    keys = parsed(entry, SigningKey("ES384", "neighbour").jwk())
    kid = entry.get("kid") if isinstance(entry, dict) else None
    found = {alg for alg in ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512") if keys.find(kid, alg)}
    assert found == (uses if kid is not None else {"ES384"})
    assert keys.find("neighbour", "ES384") is not None


def test_a_private_key_that_an_issuer_published_is_read_as_public() -> None:
    """Its accident is not made worse here: what verifies is the public part."""
    private = RSA.private.private_numbers()
    keys = parsed(RSA.jwk(d="AQAB", p=str(private.p)))
    key = keys.find("rsa", "RS256")
    assert key is not None
    assert not hasattr(getattr(key, "prepared_key"), "private_numbers")  # noqa: B009  # no part of the protocol


@pytest.mark.parametrize(
    "document",
    [b"", b"{}", b"[]", b"null", b'{"keys": {}}', b'{"keys": null}', b"\xff", b"[" * 100_000, b'{"keys": ["'],
)
def test_what_is_no_key_set(document: bytes) -> None:
    """Refused as a whole; the keys before it stay."""
    with pytest.raises(FetchFailed):
        parse_key_set(document)


def test_an_empty_key_set_is_the_issuers_word() -> None:
    """It has withdrawn every key."""
    assert parsed() == KeySet()
    assert not parsed().knows(None)


def test_of_two_keys_with_one_id_the_first_counts() -> None:
    """For each algorithm; and a token that names none has no key where two would do."""
    keys = parsed(RSA.jwk(kid="same"), EC.jwk(kid="same"), SigningKey("ES256", "same").jwk())
    first = keys.find("same", "ES256")
    assert first is not None
    assert first.verify(b"data", EC.sign(b"data"))
    assert keys.find(None, "ES256") is None
    assert keys.find(None, "RS256") is not None


# Fetching


class Issuer:
    """Answers fetches as it is told to, with a clock that a test moves."""

    def __init__(self, *keys: SigningKey) -> None:
        self.fetches: list[str] = []
        self.now_s = 0.0
        self.answer: bytes | Exception = b""
        self.hold: asyncio.Event | None = None
        self.publish(*keys)
        self.known = IssuerKeys(self._fetch, KeyOptions(ttl_s=600, refresh_interval_s=10), lambda: self.now_s)

    def publish(self, *keys: SigningKey) -> None:
        """Let these be the keys."""
        self.answer = json.dumps({"keys": [key.jwk() for key in keys]}).encode()

    async def _fetch(self, issuer: str) -> bytes:
        self.fetches.append(issuer)
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def has(self, kid: str | None, algorithm: str = "ES256") -> bool:
        """Whether a token with this key would be verified now."""
        return (await self.known.of(ISSUER, kid, SERVED)).find(kid, algorithm) is not None

    async def fetched(self) -> None:
        """Wait for a fetch in the background, if there is one."""
        task = self.known._known[ISSUER].task
        if task is not None:
            await task


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine of a test."""
    asyncio.run(main())


def test_keys_are_fetched_once() -> None:
    """With the first token, for all callers that wait for them together."""

    async def main() -> None:
        issuer = Issuer(EC)
        issuer.hold = asyncio.Event()
        waiting = [asyncio.ensure_future(issuer.has("ec")) for _ in range(50)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        issuer.hold.set()
        assert all(await asyncio.gather(*waiting))
        assert await issuer.has("ec")
        assert len(issuer.fetches) == 1

    run(main)


def test_an_unknown_key_id_asks_anew_at_a_bounded_rate() -> None:
    """A rotation is seen at once where the interval is over; a thousand invented ids cost one fetch per interval."""

    async def main() -> None:
        issuer = Issuer(EC)
        assert await issuer.has("ec")
        issuer.publish(EC, SigningKey("ES256", "next"))
        assert not await issuer.has("next")
        issuer.now_s = 10.0
        assert await issuer.has("next")
        assert len(issuer.fetches) == 2
        for number in range(1000):
            issuer.now_s = 10.0 + number / 100
            assert not await issuer.has(f"invented-{number}")
        assert len(issuer.fetches) == 2
        issuer.now_s = 20.0
        assert not await issuer.has("invented")
        assert len(issuer.fetches) == 3
        assert not await issuer.has("ec", "RS256")  # a known id for another use is no reason to ask
        issuer.now_s = 30.0
        assert not await issuer.has("ec", "RS256")
        assert len(issuer.fetches) == 3

    run(main)


def test_old_keys_are_renewed_beside_the_requests() -> None:
    """Nobody waits for it; a key that was withdrawn ends then; the same keys stay the same objects."""

    async def main() -> None:
        issuer = Issuer(EC)
        before = await issuer.known.of(ISSUER, "ec", SERVED)
        issuer.now_s = 600.0
        assert await issuer.known.of(ISSUER, "ec", SERVED) is before
        await issuer.fetched()
        assert len(issuer.fetches) == 2
        assert await issuer.known.of(ISSUER, "ec", SERVED) is before
        issuer.publish(SigningKey("ES256", "next"))
        issuer.now_s = 1199.0
        assert await issuer.has("ec")
        assert len(issuer.fetches) == 2
        issuer.now_s = 1200.0
        assert await issuer.has("ec")
        await issuer.fetched()
        assert not await issuer.has("ec")
        assert await issuer.has("next")
        assert len(issuer.fetches) == 3

    run(main)


@pytest.mark.parametrize("failure", [FetchFailed("it took too long"), RuntimeError("a fault of ours"), b"no keys"])
def test_an_issuer_that_cannot_be_asked_keeps_its_keys(
    failure: Exception | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """For as long as it takes, asked once per interval; each change is told once."""
    caplog.set_level(logging.INFO, "gateway.auth")

    async def main() -> None:
        issuer = Issuer(EC)
        assert await issuer.has("ec")
        issuer.answer = failure
        for hour in range(1, 25):
            issuer.now_s = hour * 3600.0
            assert await issuer.has("ec")
            await issuer.fetched()
        assert len(issuer.fetches) == 25
        issuer.publish(EC, SigningKey("ES256", "next"))
        issuer.now_s += 10
        assert await issuer.has("next")

    run(main)
    texts = [record.getMessage() for record in caplog.records]
    assert texts[-1] == f"issuer {ISSUER} gives its keys again"
    if not isinstance(failure, RuntimeError):
        assert len(texts) == 2
        assert texts[0].endswith("; those known stay in use")


def test_an_issuer_that_never_answered_has_no_keys(caplog: pytest.LogCaptureFixture) -> None:
    """Its tokens are refused without waiting until the interval is over."""

    async def main() -> None:
        issuer = Issuer(EC)
        issuer.answer = FetchFailed("refused")
        for _ in range(20):
            assert not await issuer.has("ec")
        assert not await issuer.has(None)
        assert len(issuer.fetches) == 1
        issuer.publish(EC)
        issuer.now_s = 10.0
        assert await issuer.has("ec")

    run(main)
    assert [record.getMessage() for record in caplog.records] == [
        f"no keys from issuer {ISSUER}: refused; its tokens are refused until it gives some",
        f"issuer {ISSUER} gives its keys again",
    ]


def test_a_caller_that_leaves_ends_nothing_for_the_others() -> None:
    """The fetch belongs to nobody in particular; closing ends it."""

    async def main() -> None:
        issuer = Issuer(EC)
        issuer.hold = asyncio.Event()
        leaving, staying = (asyncio.ensure_future(issuer.has("ec")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        issuer.hold.set()
        assert await staying
        issuer.hold.clear()
        issuer.now_s = 10.0
        asked = asyncio.ensure_future(issuer.has("next"))
        await asyncio.sleep(0)
        await issuer.known.close()
        assert not await asked

    run(main)


def test_issuers_are_apart_and_forgotten_with_the_registry() -> None:
    """Each has keys, interval and fetches of its own; one that the registry no longer names takes no memory."""

    async def main() -> None:
        issuer = Issuer(EC)
        assert await issuer.has("ec")
        assert (await issuer.known.of("https://second.example", "ec", SERVED)).knows("ec")
        assert issuer.fetches == [ISSUER, "https://second.example"]
        await issuer.known.of("https://third.example", "ec", {"https://third.example"})
        assert list(issuer.known._known) == ["https://third.example"]

    run(main)


def test_keys_are_kept_for_all_issuers_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched without a token, renewed when old, asked for again after a failure; a new issuer is seen."""
    monkeypatch.setattr(jwks, "LOOK_S", 0)

    async def main() -> None:
        issuer, served = Issuer(EC), {ISSUER}
        watch = asyncio.ensure_future(issuer.known.run(lambda: served))

        async def after(fetches: list[str]) -> None:
            await until(lambda: issuer.fetches == fetches)
            await issuer.fetched()
            for _ in range(10):
                await asyncio.sleep(0)
            assert issuer.fetches == fetches

        await after([ISSUER])
        assert await issuer.has("ec")
        served.add("https://second.example")
        await after([ISSUER, "https://second.example"])
        served.discard("https://second.example")
        issuer.answer = FetchFailed("refused")
        issuer.now_s = 600.0
        await after([ISSUER, "https://second.example", ISSUER])
        issuer.now_s = 610.0
        await after([ISSUER, "https://second.example", ISSUER, ISSUER])
        assert await issuer.has("ec")
        watch.cancel()
        await issuer.known.close()

    run(main)


def test_fetches_that_nobody_waits_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of many issuers does not open as many connections at once."""
    monkeypatch.setattr(jwks, "LOOK_S", 0)

    async def main() -> None:
        issuer = Issuer(EC)
        issuer.hold = asyncio.Event()
        served = [f"https://idp-{number}.example" for number in range(100)]
        watch = asyncio.ensure_future(issuer.known.run(lambda: served))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(issuer.fetches) == jwks.FETCHES_MAX
        issuer.hold.set()
        await until(lambda: len(issuer.fetches) == 100)
        watch.cancel()
        await issuer.known.close()
        assert sorted(issuer.fetches) == sorted(served)

    run(main)


def test_nothing_is_imported_until_a_token_comes() -> None:
    """The HTTP client and the cryptography cost start-up time and memory: a gateway without tokens has neither."""
    script = (
        "import sys, gateway.app.container, gateway.auth.discovery as d;"
        "d.KeySetFetcher(d.FetchOptions());"
        "print([name for name in ('httpx', 'jose', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_signatures_are_verified_without_the_package_ecdsa() -> None:
    """python-jose requires it, and its signing leaks time (CVE-2024-23342): it is not even imported."""
    program = (
        "import json, sys\n"
        "from gateway.auth.jwks import parse_key_set\n"
        "entries, signatures = json.load(sys.stdin)\n"
        "keys = parse_key_set(json.dumps({'keys': entries}).encode()).keys\n"
        "for kid, use, signature in signatures:\n"
        "    assert keys[kid, use].verify(b'signed', bytes.fromhex(signature)), use\n"
        "assert 'cryptography' in sys.modules\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'ecdsa']\n"
    )
    pair = [EC, RSA]
    given = json.dumps(
        [[key.jwk() for key in pair], [[key.kid, key.algorithm, key.sign(b"signed").hex()] for key in pair]]
    )
    run = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
