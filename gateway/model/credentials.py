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
