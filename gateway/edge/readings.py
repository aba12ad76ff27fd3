"""Bodies that were answered by what is kept, with the requests that they are: what is asked again is not read again.

A body means the same whoever sends it; it is kept under its tenant all the same, so that nobody's answer is any sooner
for what another has asked. Bounded in number and size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.model import ChatRequest

BODY_BYTES_MAX: Final = 4096
READINGS_MAX: Final = 1024


class Readings:
    """Requests by tenant and body, those that were kept first leave first."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bytes], ChatRequest] = {}

    def find(self, tenant: str, body: bytes) -> ChatRequest | None:
        """The request that a body is; None where it has to be read."""
        if not self._kept or len(body) > BODY_BYTES_MAX:
            return None
        return self._kept.get((tenant, body))

    def keep(self, tenant: str, body: bytes, request: ChatRequest) -> None:
        """A body that is likely to come again."""
        if len(body) > BODY_BYTES_MAX or (tenant, body) in self._kept:
            return
        self._kept[tenant, body] = request
        if len(self._kept) > READINGS_MAX:
            del self._kept[next(iter(self._kept))]
