"""What a call reads an answer from, whether it comes over HTTP or from this process.

Bytes are taken, not awaited: ``take`` gives what is there, and only who finds nothing waits for ``arrival``. So a piece
of a stream costs one suspension of one task, however many hands it passes through.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol


class Takeable(Protocol):
    """Bytes that arrive piece by piece."""

    __slots__ = ()

    @abstractmethod
    def take(self) -> bytes | None:
        """The bytes that have arrived; ``b""`` at the end, None where nothing is there yet. Raises AttemptFailed."""

    @abstractmethod
    def arrival(self) -> Awaitable[None]:
        """To be awaited once after ``take`` gave None, before it is called again."""

    async def read(self) -> bytes:
        """The next bytes, waited for; ``b""`` at the end. Raises AttemptFailed."""
        while (data := self.take()) is None:
            await self.arrival()
        return data


class Source(Takeable, Protocol):
    """An answer whose head is known and whose body is taken piece by piece."""

    __slots__ = ()

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    delimited: bool
    """False where only the close of the connection ends the body, so that a cut cannot be told from an end."""

    def listen(self, listener: Callable[[bool], None] | None) -> bool:
        """Have ``listener`` called whenever ``take`` has something to say, instead of waiting for ``arrival``.

        It is called once for all that is there, with True when it is the last, and must not raise. None ends it. False
        where that cannot be had.
        """

    def whole(self) -> bytes | None:
        """The rest of the body, where it is here to its end; else None. After it ``take`` gives ``b""``."""

    def begun(self) -> None:
        """Say that the answer really began: from now on it must go on, until now it had to begin."""

    def close(self) -> None:
        """Let go of it; before the end of the body, this stops the backend. May be called again."""
