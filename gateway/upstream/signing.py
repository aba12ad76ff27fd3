"""Credentials that a static header cannot hold: made for each request, or renewed while the process runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.model import Backend


class Signer(Protocol):
    """Signs the requests of one backend."""

    async def lines(self, target: str, body: bytes) -> bytes:
        """The header lines, each with CRLF, that let a POST of ``body`` to ``target`` in; they are never logged.

        ``target`` is path and query. Raises AttemptFailed (unauthorized) where there is no credential to be had.
        """

    def refused(self, lines: bytes) -> bool:
        """The backend answered 401 to a request with these lines: whether it is worth to ask once more with new ones.

        Never where nothing new could be made, so that a credential that is wrong is not asked for again and again.
        """


SignerOf = Callable[[Backend], Signer | None]
"""Who signs the requests of a backend; None where its headers hold all that is needed. Must not wait."""


def no_signer(backend: Backend) -> None:  # as a SignerOf
    """For a process that signs nothing."""
