"""What is said of a call to other processes, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.cache import wire
from gateway.cache.flight import Head
from gateway.cache.key import Way
from gateway.cache.remote import Saying
from gateway.cache.scripts import load_scripts
from gateway.cache.store import Store
from gateway.model import CachePolicy

WAY = Way(tenant="acme", scenario="chat", policy=CachePolicy(), digest=b"d", flight=b"f", stream=True)
BEGIN = wire.begin(Head(status=200, content_type=b"text/event-stream"))


class Lane:
    """Remembers what was said, write by write; nobody answers."""

    def __init__(self) -> None:
        self.said: list[list[bytes]] = []

    def run(self, _: object, keys: Sequence[bytes], args: Sequence[Any]) -> asyncio.Future[Any]:
        """One write."""
        self.said.append(list(args[4:]))
        return asyncio.get_running_loop().create_future()

    def send(self, *_: object) -> asyncio.Future[Any]:
        """Nothing is sent but scripts."""
        raise AssertionError


def test_the_first_bytes_are_said_at_once_with_how_the_answer_begins() -> None:
    """In one write: nobody elsewhere waits for a second one, or is left with a beginning that nothing follows."""

    async def main() -> None:
        lane = Lane()
        saying = Saying(Store(lane, load_scripts(), lease_ms=1000, entry_bytes_max=1000), WAY, b"id")
        saying.say(BEGIN)
        saying.say(wire.data(b"one"))
        assert lane.said == [[BEGIN, wire.data(b"one")]]
        saying.say(wire.data(b"two"))
        assert len(lane.said) == 1
        saying.end(wire.END)
        assert lane.said[1:] == [[wire.data(b"two"), wire.END]]

    asyncio.run(main())
