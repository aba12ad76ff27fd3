"""A bearer token that something else renews in a file, such as an Entra token of Azure: read again while it is used.

Invariants: what was good stays in use while the file is away or holds no token; the file is looked at no more than once
a second, and never on the event loop. The token is in no log and in no text of an error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from gateway.clock import monotonic
from gateway.errors import AttemptFailed
from gateway.model import Backend
from gateway.model.credentials import TokenFile

LOOK_EVERY_S = 1.0
_TOKEN = re.compile(rb"[\x21-\x7e]{1,16384}")

ReadSecret = Callable[[str], bytes]
"""Gives the content of a file below the secrets folder; may wait. Any exception says that there is none."""


class FileToken:
    """Signs with the token of one file; see ``Signer``."""

    def __init__(self, read: ReadSecret, name: str) -> None:
        self._read = read
        self._name = name
        self._line = b""
        self._look_at = 0.0
        self._lock = asyncio.Lock()

    async def lines(self, target: str, body: bytes) -> bytes:  # noqa: ARG002  # the same for every request
        """See Signer."""
        if monotonic() >= self._look_at:
            async with self._lock:  # whoever comes meanwhile waits for what is being read
                if monotonic() >= self._look_at:
                    self._line = await asyncio.to_thread(self._look) or self._line
                    self._look_at = monotonic() + LOOK_EVERY_S
        if not self._line:
            raise AttemptFailed("unauthorized", f"the file {self._name} holds no token")
        return self._line

    def refused(self, lines: bytes) -> bool:
        """See Signer: there is something new where the file has been read anew meanwhile."""
        return lines != self._line

    def _look(self) -> bytes:
        try:
            token = self._read(self._name).strip()
        except Exception:  # noqa: BLE001  # whatever it is, there is no token to be had now
            return b""
        return b"authorization: Bearer %b\r\n" % token if _TOKEN.fullmatch(token) else b""


def file_tokens(read: ReadSecret) -> Callable[[Backend], FileToken]:
    """For backends whose credential is a ``TokenFile``; those with the same file share what was read of it."""
    known: dict[str, FileToken] = {}

    def signer_of(backend: Backend) -> FileToken:
        assert isinstance(backend.credential, TokenFile), "made for those"
        name = backend.credential.name
        if name not in known:
            known[name] = FileToken(read, name)
        return known[name]

    return signer_of
