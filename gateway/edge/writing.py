"""The writing half of a client connection: a client that reads slowly is waited for, one that reads nothing is told of.

It decides nothing: who waits is ``exchange``, who cuts is ``protocol``.
"""

from __future__ import annotations

import asyncio


class WritingHalf(asyncio.Protocol):
    """What the transport says of how fast the client reads."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.write_paused = False
        self._writable: asyncio.Event | None = None
        self._waiting_bytes = -1  # for the client, as of the last look; -1: none yet
        self._waiting_since = 0.0  # and no byte of them has gone

    def pause_writing(self) -> None:
        """The client reads too slowly: ``send`` waits."""
        self.write_paused = True
        self.watch_anew()

    def resume_writing(self) -> None:
        """It has caught up, or is gone."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def drained(self) -> None:
        """Return when the client has read enough, or is gone."""
        if self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            await self._writable.wait()

    def watch_anew(self) -> None:
        """Forget what was seen waiting: it is not what waits from now on, though it may be as many bytes."""
        self._waiting_bytes = -1

    def taken_nothing_for(self, now: float) -> float:
        """Seconds for which the client has taken none of what waits for it, between the looks that this method takes.

        0 where nothing waits.
        """
        waiting_bytes = self.transport.get_write_buffer_size()
        if waiting_bytes != self._waiting_bytes:
            self._waiting_bytes, self._waiting_since = waiting_bytes, now
        return now - self._waiting_since if waiting_bytes else 0.0
