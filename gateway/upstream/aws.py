"""Signs requests of backends whose credential is a key of AWS, or the role that the process has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

from gateway.clock import wall
from gateway.dialects.openai.request import host_of
from gateway.model import Backend
from gateway.model.credentials import AwsCredential, AwsKeys
from gateway.upstream.sigv4 import RequestSigner

LARGE_BYTES: Final = 1_048_576
"""From where on a body is digested in a thread."""

GiveKeys = Callable[[], Awaitable[AwsKeys]]
"""The keys of the process's role as they are now. Raises AttemptFailed (unauthorized)."""


class AwsSigner:
    """Signs for one backend; see ``Signer``. Keys that change get a signer of their own."""

    def __init__(self, backend: Backend, credential: AwsCredential, role_keys: GiveKeys) -> None:
        assert backend.origin is not None, "nothing in process is signed"
        self._credential = credential
        self._host = host_of(backend.origin)
        self._role_keys = role_keys
        self._keys: AwsKeys | None = None
        self._signer: RequestSigner | None = None

    async def lines(self, target: str, body: bytes) -> bytes:
        """See Signer."""
        keys = self._credential.keys or await self._role_keys()
        signer = self._signer
        if signer is None or keys is not self._keys:
            credential = self._credential
            signer = self._signer = RequestSigner(keys, credential.region, credential.service, self._host)
            self._keys = keys
        # The body of a request with images takes milliseconds, which other requests should not wait for.
        digest = _digest(body) if len(body) < LARGE_BYTES else await asyncio.to_thread(_digest, body)
        return signer.lines(target, digest, wall())

    def refused(self, lines: bytes) -> bool:  # noqa: ARG002  # they say nothing of their keys
        """See Signer: the same keys would sign once more."""
        return False


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()


def aws_signers(role_keys: GiveKeys) -> Callable[[Backend], AwsSigner]:
    """For backends whose credential is an ``AwsCredential``."""

    def signer_of(backend: Backend) -> AwsSigner:
        assert isinstance(backend.credential, AwsCredential), "made for those"
        return AwsSigner(backend, backend.credential, role_keys)

    return signer_of
