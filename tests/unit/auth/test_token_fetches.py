"""Whoever counts is told of each fetch of an issuer's keys."""

from __future__ import annotations

import asyncio
import json

from gateway.auth.jwks import FetchFailed, IssuerKeys, KeyOptions
from tests.support.issuer import SigningKey

ISSUER = "https://idp.example"


def test_each_fetch_is_told_of() -> None:
    """With its issuer and whether there were keys in it, also where it is not the fetch itself that failed."""
    good = json.dumps({"keys": [SigningKey("ES256", "ec").jwk()]}).encode()
    answers: list[bytes | Exception] = [good, FetchFailed("away"), b"no JSON", OSError("odd"), good]
    told: list[tuple[str, bool]] = []
    times = iter(range(0, 1_000_000, 10))

    async def fetch(_issuer: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> None:
        known = IssuerKeys(
            fetch, KeyOptions(refresh_interval_s=10), lambda: next(times), lambda issuer, ok: told.append((issuer, ok))
        )
        while answers:
            await known.of(ISSUER, "unknown", {ISSUER})

    asyncio.run(main())
    assert told == [(ISSUER, True), (ISSUER, False), (ISSUER, False), (ISSUER, False), (ISSUER, True)]
