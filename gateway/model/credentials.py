"""Credentials of backends that no static header can hold: what requests are signed with, or tokens asked for with.

One value for each kind of ``spec.auth``; ``gateway.app.signing`` knows who signs with which. They are hashable, so that
backends that have the same one share what is made of it.
"""

from __future__ import annotations

from gateway.model.base import Frozen


class Credential(Frozen, frozen=True):
    """Base of each kind."""

    def __repr__(self) -> str:
        """Its kind alone: a repr ends in logs."""
        return f"{type(self).__name__}()"


class TokenFile(Credential, frozen=True):
    """A bearer token that something else renews in a file below the secrets folder."""

    name: str


class AwsKeys(Frozen, frozen=True):
    """What signs requests to AWS. With a session token they are temporary, until ``expires_at`` (Unix seconds)."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""
    expires_at: float | None = None

    def __repr__(self) -> str:
        """Nothing of them."""
        return "AwsKeys()"


class AwsCredential(Credential, frozen=True):
    """Signature Version 4: of which region and service, and with which keys."""

    region: str
    service: str
    keys: AwsKeys | None = None  # None: those that the process's surroundings give


class GoogleServiceAccount(Credential, frozen=True):
    """What access tokens of Google are asked for with; ``private_key`` is PEM."""

    email: str
    key_id: str
    private_key: str
    token_uri: str
