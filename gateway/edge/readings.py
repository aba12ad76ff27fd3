"""Bodies that were answered by what is kept, with the requests that they are: what is asked again is not read again.

A body means the same whoever sends it; it is kept under its tenant all the same, so that nobody's answer is any sooner
for what another has asked. Bounded in number, size and time: memory is no place for what nobody asks for any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.model import ChatRequest

BODY_BYTES_MAX: Final = 4096
READINGS_MAX: Final = 1024
KEPT_S: Final = 60.0


class Readings:
    """Requests by tenant and body, those that were kept first leave first. ``now`` is in monotonic seconds."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bytes], tuple[ChatRequest, float]] = {}

    def find(self, tenant: str, body: bytes, now: float) -> ChatRequest | None:
        """The request that a body is; None where it has to be read."""
        if not self._kept or len(body) > BODY_BYTES_MAX:
            return None
        found = self._kept.get((tenant, body))
        return found[0] if found is not None and now < found[1] else None

    def keep(self, tenant: str, body: bytes, request: ChatRequest, now: float) -> None:
        """A body that is likely to come again."""
        if len(body) > BODY_BYTES_MAX:
            return
        self._kept.pop((tenant, body), None)
        self._kept[tenant, body] = request, now + KEPT_S
        while len(self._kept) > READINGS_MAX or now >= next(iter(self._kept.values()))[1]:
            del self._kept[next(iter(self._kept))]
