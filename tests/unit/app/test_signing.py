"""The maker of signers is chosen by the kind of credential that a backend has."""

from __future__ import annotations

import asyncio

import pytest

from gateway.app.signing import Signers
from gateway.model import Backend, Credential, Origin


class Key(Credential, frozen=True):
    """A kind."""

    secret: str


class Other(Credential, frozen=True):
    """Another kind."""


class Signing:
    """A signer that tells what it was made for."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def lines(self, target: str, body: bytes) -> bytes:
        """A line."""
        return b"x-signed: " + self.backend.name.encode() + b"\r\n"

    def refused(self, lines: bytes) -> bool:
        """Nothing else could be made."""
        return False


def backend(credential: Credential | None) -> Backend:
    """One with this credential."""
    return Backend(name="a", provider="openai", origin=Origin(scheme="http", host="h", port=80), credential=credential)


def test_each_kind_of_credential_has_its_maker() -> None:
    """And a backend without one is not signed for."""
    signers = Signers({Key: Signing})
    made = signers(backend(Key(secret="s")))
    assert isinstance(made, Signing)
    assert signers(backend(None)) is None
    with pytest.raises(KeyError):
        signers(backend(Other()))


def test_what_makers_do_in_the_background_ends() -> None:
    """Each is closed."""
    closed = []

    async def close() -> None:
        closed.append(True)

    asyncio.run(Signers({}, (close, close)).close())
    assert closed == [True, True]


def test_a_credential_shows_nothing_of_itself() -> None:
    """Its repr ends in logs, alone and within a backend."""
    key = Key(secret="hush")
    assert "hush" not in f"{key!r} {key} {[key]} {backend(key)!r}"
    assert len({key, Key(secret="hush")}) == 1
