"""Heads that a client repeats: read once per connection, recognised byte for byte after that.

Clients send the same head with every request of a connection, but for the length of the body. To parse and check it
anew each time would cost more than all that follows.

Invariant: a head is recognised only where its bytes are those of one that llhttp has read and ``wire`` has checked, but
for the digits of its content-length; so it means what that one meant. Only a request that came alone, in one piece and
with its whole body is recognised at all: everything else is parsed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

DIGITS_MAX: Final = 8
TRIES: Final = 4
"""Heads of a connection that are learned for nothing before no more are: some clients never send the same twice."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,%d})\r\n" % DIGITS_MAX, re.IGNORECASE)
_CHANGING: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"connection"))
"""Fields that say more about the message or the connection than its length."""


class KnownHead:
    """One head. ``derived`` is for the application: whatever it makes of the head and of nothing else."""

    __slots__ = ("_digits", "_length_at", "_prefix", "_scope", "_suffix", "derived")

    def __init__(self, prefix: bytes, digits: bytes, suffix: bytes, scope: HTTPScope) -> None:
        self._prefix = prefix
        self._digits = digits
        self._suffix = suffix
        self._scope = scope.copy()
        self._length_at = [name for name, _ in scope["headers"]].index(b"content-length")
        self.derived: Any = None

    def body_at(self, data: bytes) -> int:
        """Where the body begins, if ``data`` is one whole request with this head and nothing else; else 0."""
        if not data.startswith(self._prefix):
            return 0
        start = len(self._prefix)
        end = data.find(b"\r", start, start + DIGITS_MAX + 1)
        if end < 0 or not data.startswith(self._suffix, end):
            return 0
        digits = data[start:end]
        body_at = end + len(self._suffix)
        if not digits.isdigit() or len(data) - body_at != int(digits):
            return 0
        if digits != self._digits:
            self._renumber(digits)
        return body_at

    def _renumber(self, digits: bytes) -> None:
        fields = list(self._scope["headers"])
        fields[self._length_at] = (b"content-length", digits)
        self._scope["headers"] = fields
        self._digits = digits

    def scope(self) -> HTTPScope:
        """The ASGI scope of the request that was recognised last, but for its extensions."""
        return self._scope.copy()


def learn(data: bytes, scope: HTTPScope) -> KnownHead | None:
    """The head of a request that was parsed from ``data``, which it began; None where it is not fit to be recognised.

    ``scope`` is what it was parsed to, as a POST; that it be HTTP/1.1 and kept alive is for the caller to see to.
    """
    if not data.startswith(b"POST "):
        return None
    end = data.find(b"\r\n\r\n") + 4
    names = [name for name, _ in scope["headers"]]
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    found = _LENGTH.search(data, 0, end)
    if found is None or lengths != [found[1]] or not _CHANGING.isdisjoint(names) or len(data) - end != int(found[1]):
        return None
    return KnownHead(data[: found.start(1)], found[1], data[found.end(1) : end], scope)
