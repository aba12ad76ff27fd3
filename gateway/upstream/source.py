"""What a call reads an answer from, whether it comes over HTTP or from this process."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol


class Source(Protocol):
    """An answer whose head is known and whose body is read piece by piece."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    delimited: bool
    """False where only the close of the connection ends the body, so that a cut cannot be told from an end."""

    def read(self) -> Awaitable[bytes]:
        """The next body bytes; ``b""`` at the end. Raises AttemptFailed."""

    def whole(self) -> bytes | None:
        """The unread rest of the body, where it is here to its end; else None. After it ``read`` gives ``b""``."""

    def begun(self) -> None:
        """Say that the answer really began: from now on it must go on, until now it had to begin."""

    def close(self) -> None:
        """Let go of it; before the end of the body, this stops the backend. May be called again."""
