"""Requests that a client has sent behind the one that is being answered (pipelining, RFC 9112, section 9.3.2).

Invariant: what waits is bounded in number and in memory, by the connection and not by the request, since nobody has
looked at its credentials yet. Which request comes next, and what happens to one that does not fit, is ``protocol``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

    from gateway.edge.exchange import Exchange

WAITING_MAX: Final = 8
"""Requests that may wait; clients that pipeline at all send a few."""

WAITING_BYTES_MAX: Final = 65536
"""Memory that they may take together, heads and bodies."""

REQUEST_BYTES: Final = 2048  # about what a waiting request takes beside the bytes of its fields and its body
FIELD_BYTES: Final = 160  # about what a header field takes beside its bytes


class Pipelined(list["tuple[Exchange, HTTPScope]"]):
    """The waiting requests, the first to be answered first; the body of the last one may still be arriving.

    A list, so that asking whether anything waits costs a request nothing.
    """

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        super().__init__()
        self.held_bytes = 0

    def add(self, exchange: Exchange, scope: HTTPScope) -> bool:
        """Let a request wait whose head has come; false, and it does not, where there is no room."""
        size = _head_bytes(scope)
        if len(self) >= WAITING_MAX or self.held_bytes + size > WAITING_BYTES_MAX:
            return False
        self.held_bytes += size
        self.append((exchange, scope))
        return True

    def hold(self, size: int) -> bool:
        """Count ``size`` further bytes of the last one's body; false where that is too much."""
        self.held_bytes += size
        return self.held_bytes <= WAITING_BYTES_MAX

    def take(self) -> tuple[Exchange, HTTPScope]:
        """The first one, whose turn it is."""
        exchange, scope = self.pop(0)
        self.held_bytes -= _head_bytes(scope) + exchange.buffered_bytes
        return exchange, scope

    def drop(self, exchange: Exchange | None) -> None:
        """Forget the last one where it is ``exchange``."""
        if self and self[-1][0] is exchange:
            self.pop()

    def clear(self) -> None:
        """Forget all of them."""
        super().clear()
        self.held_bytes = 0


def _head_bytes(scope: HTTPScope) -> int:
    fields = sum(len(name) + len(value) + FIELD_BYTES for name, value in scope["headers"])
    return REQUEST_BYTES + 2 * len(scope["raw_path"]) + len(scope["query_string"]) + fields
