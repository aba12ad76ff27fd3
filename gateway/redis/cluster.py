"""Redis Cluster: which node a command goes to (https://valkey.io/topics/cluster-spec/).

Invariants: the slot of a command is that of the first of its parts that is a key of ``names``; a command is sent on
only after the node it was at said that it did not execute it (MOVED, ASK). One link per primary; a node that fails
hurts its own slots only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.errors import RedisFailure, RedisUnavailable
from gateway.redis.command import REDIRECTS_MAX, Command, pack
from gateway.redis.config import Address
from gateway.redis.link import Destination, Link, LinkEvents
from gateway.redis.names import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.redis.command import ErrorReply
    from gateway.redis.config import RedisConfig
    from gateway.redis.dial import Dialer

SLOTS: Final = 16384
NODES_MAX: Final = 1000
"""The most nodes that a cluster is meant to have (Cluster Specification, "Main properties")."""
REFRESH_LEAST_S: Final = 0.2
"""Between two looks at who serves what."""

_log = logging.getLogger("gateway.redis")


def slot_of(key: bytes) -> int:
    """The slot of a key: CRC-16/XMODEM of its hash tag, where it has one, else of all of it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Range(msgspec.Struct, frozen=True):
    """Consecutive slots, the primary that serves them, and its replicas."""

    first: int
    last: int
    primary: Address
    replicas: frozenset[Address] = frozenset()


def read_ranges(answer: Any, asked: Address) -> list[Range]:
    """The answer to CLUSTER SLOTS; a node without a name is at the host that was asked. Raises ValueError."""
    ranges: list[Range] = []
    try:
        for first, last, *nodes in answer:
            primary, *replicas = [Address(node[0].decode() if node[0] else asked.host, int(node[1])) for node in nodes]
            if not 0 <= first <= last < SLOTS:
                raise ValueError("a slot out of range")
            ranges.append(Range(first, last, primary, frozenset(replicas)))
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"not an answer to CLUSTER SLOTS: {error}") from None
    return ranges


class ClusterRoute:
    """The links to the nodes of a cluster, and which of them a command takes."""

    def __init__(self, config: RedisConfig, dialer: Dialer, events: LinkEvents) -> None:
        self._config = config
        self._dialer = dialer
        self._events = LinkEvents(events.observer, self._changed)
        self._on_change = events.on_change
        self._events.redirect = self._redirect
        self._links: dict[Address, Link] = {}
        self._owners: list[Address | None] = [None] * SLOTS
        self._ranges: list[Range] = []
        self._awake = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Whether commands are tried at any node."""
        return not self._links or any(link.available for link in self._links.values())

    @property
    def servers_unavailable(self) -> int:
        """How many nodes are not used now."""
        return sum(not link.available for link in self._links.values())

    def start(self) -> None:
        """Begin to connect."""
        if self._task is None:
            for address in self._config.server.addresses:
                self._link_to(address)
            self._task = asyncio.get_running_loop().create_task(self._run(), name="redis cluster")

    async def close(self) -> None:
        """End every link."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._closing)

    def submit(self, command: Command, parts: Iterable[bytes | str | int]) -> None:
        """Send a command to the node of its key; one without a key to any node that is there."""
        for part in parts:
            if isinstance(part, bytes) and part.startswith(PREFIX):
                command.slot = slot_of(part)
                break
        link = self._link_of(command.slot)
        if link is None:
            self._events.observer.failed("unavailable", 1)
            command.fail(RedisUnavailable("no node of the Redis cluster is known"))
        else:
            link.submit(command)

    def _link_of(self, slot: int) -> Link | None:
        owner = self._owners[slot] if slot >= 0 else None
        if owner is not None:
            return self._links.get(owner)
        links = self._links.values()  # any node says where a slot is
        return next((link for link in links if link.available), next(iter(links), None))

    def _link_to(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            if len(self._links) >= NODES_MAX:
                raise ValueError(f"more than {NODES_MAX} nodes")
            destination = Destination(address, needs_primary=False)
            link = self._links[address] = Link(self._config, self._dialer, destination, self._events)
            link.start()
        return link

    def _changed(self, is_available: bool) -> None:
        self._awake.set()
        self._on_change(is_available)

    def _redirect(self, command: Command, error: ErrorReply) -> bool:
        """Send a command on if a node said where to; whether that was done."""
        if error.code not in {"MOVED", "ASK"} or command.redirects >= REDIRECTS_MAX or command.future.done():
            return False
        try:
            _, slot, node = str(error).split(" ")
            host, _, port = node.rpartition(":")
            link = self._link_to(Address(host or self._config.server.addresses[0].host, int(port)))
            if error.code == "MOVED":
                self._owners[int(slot)] = Address(host or self._config.server.addresses[0].host, int(port))
                self._awake.set()
            else:
                link.submit(Command(asyncio.get_running_loop().create_future(), pack("ASKING")))
        except (ValueError, IndexError):
            return False
        command.redirects += 1
        command.due = 0.0  # another node has the whole deadline
        link.submit(command)
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_LEAST_S if self._ranges else self._config.deadline_s)
            self._awake.clear()
            try:
                await self._refresh()
            except (RedisFailure, ValueError) as failure:
                _log.debug("the slots of the Redis cluster are not known: %s", failure)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.check_s):
                    await self._awake.wait()

    async def _refresh(self) -> None:
        """Ask a node who serves what. Raises RedisFailure, ValueError."""
        address = next((each for each, link in self._links.items() if link.available), None)
        if address is None:
            return
        command = Command(asyncio.get_running_loop().create_future(), pack("CLUSTER", "SLOTS"))
        self._links[address].submit(command)
        ranges = read_ranges(await command.future, address)
        if ranges and ranges != self._ranges:
            self._adopt(ranges)

    def _adopt(self, ranges: Sequence[Range]) -> None:
        self._tell_promotions(ranges)
        self._ranges = list(ranges)
        owners: list[Address | None] = [None] * SLOTS
        for each in ranges:
            self._link_to(each.primary)
            owners[each.first : each.last + 1] = [each.primary] * (each.last - each.first + 1)
        self._owners = owners
        primaries = {each.primary for each in ranges}
        for address in [each for each in self._links if each not in primaries]:
            link = self._links.pop(address)
            task = asyncio.get_running_loop().create_task(link.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            if not link.available:
                self._on_change(True)  # one less that is not used

    def _tell_promotions(self, ranges: Iterable[Range]) -> None:
        replicas_of = {each.primary: each.replicas for each in self._ranges}
        for each in {each.primary: each for each in ranges}.values():
            former = self._owners[each.first]
            if former is not None and each.primary in replicas_of.get(former, ()):
                self._events.observer.noticed("promoted")
                text = "Redis at %s was promoted from a replica of %s: writes of the last moments may be lost"
                _log.warning(text, each.primary, former)
