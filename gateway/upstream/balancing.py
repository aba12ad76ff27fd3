"""The endpoints of one Service: each with a pool of its own, the next call to the one with the fewest in flight.

An endpoint that is not listed any more leaves: it gets no new call, its idle connections are closed at once, and those
that carry an answer when that ends. One that cannot be connected to is avoided for a while, so that an empty, dead one
does not draw every call; another one is tried within the same attempt, since nothing has been sent.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Sequence
from typing import Final, Protocol

from gateway.clock import monotonic
from gateway.errors import AttemptFailed
from gateway.model import Endpoint, Origin, Service, Timeouts
from gateway.upstream.connection import Connection
from gateway.upstream.limits import UpstreamLimits
from gateway.upstream.pool import Pool

SCANNED_MAX: Final = 32
"""Up to so many endpoints all are compared; of more, two at random, which comes close to the best at a fixed cost."""

TRIED_MAX: Final = 3
"""Endpoints that one attempt tries to connect to."""

AVOIDED_S: Final = 5.0
"""How long an endpoint that could not be connected to gets calls only where there is no other."""


class Endpoints(Protocol):
    """Who knows the endpoints of Services."""

    def ready(self, service: Service) -> tuple[Endpoint, ...]:
        """Those that take new calls; the same tuple for as long as they are the same."""

    def knows(self, namespace: str) -> bool:
        """Whether anything has been heard of a namespace."""


class Member:
    """One endpoint with its connections."""

    __slots__ = ("avoided_until", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.avoided_until = 0.0

    @property
    def load(self) -> int:
        """Calls under way, those that are still connecting included."""
        return len(self.pool.busy) + self.pool.connecting


def least_loaded(members: Sequence[Member]) -> Member:
    """The member with the fewest calls; of several, one at random. There is at least one."""
    if len(members) == 1:
        return members[0]
    seen = members if len(members) <= SCANNED_MAX else random.sample(members, 2)
    least = min(member.load for member in seen)
    return random.choice([member for member in seen if member.load == least])  # noqa: S311  # no secret


class ServicePool:
    """The connections to one Service's endpoints; used as a ``Pool`` is."""

    def __init__(
        self, origin: Origin, endpoints: Endpoints, limits: UpstreamLimits, tls: ssl.SSLContext | None
    ) -> None:
        assert origin.service is not None
        self._origin = origin
        self._service = origin.service
        self._endpoints = endpoints
        self._limits = limits
        self._tls = tls
        self._listed: tuple[Endpoint, ...] = ()
        self._members: dict[Endpoint, Member] = {}
        self._all: list[Member] = []
        self._avoided_until = 0.0  # the last of all members
        self._leaving: dict[Endpoint, Member] = {}
        self._owners: dict[Connection, Pool] = {}

    # -- as a pool -----------------------------------------------------------------------------------------------

    def take_idle(self, now: float) -> Connection | None:
        """An idle connection to the endpoint whose turn it is; None if it has none."""
        candidates = self._candidates(now)
        if not candidates:
            return None
        pool = least_loaded(candidates).pool
        connection = pool.take_idle(now)
        if connection is not None:
            self._owners[connection] = pool
        return connection

    async def connect(self, timeout_s: float) -> Connection:
        """A new connection to the endpoint whose turn it is, or to another one. Raises AttemptFailed."""
        deadline = monotonic() + timeout_s
        candidates = self._candidates(monotonic())
        failure = self._nobody()
        for tries_left in range(min(TRIED_MAX, len(candidates)), 0, -1):
            share_s = (deadline - monotonic()) / tries_left
            if share_s <= 0.0:
                break
            member = least_loaded(candidates)
            try:
                connection = await member.pool.connect(share_s)
            except AttemptFailed as error:
                failure = error
                if error.not_ready:
                    member.avoided_until = self._avoided_until = monotonic() + AVOIDED_S
                candidates = [each for each in candidates if each is not member]
            else:
                self._owners[connection] = member.pool
                return connection
        raise failure

    def give_back(self, connection: Connection) -> None:
        """End the connection's exchange."""
        self._owners.pop(connection).give_back(connection)

    def watch(self, connection: Connection, timeouts: Timeouts, since: float) -> None:
        """An exchange was started: its deadlines may be nearer than those known so far."""
        self._owners[connection].watch(connection, timeouts, since)

    def sweep(self, now: float) -> None:
        """Fail exchanges past their deadline, close idle connections, forget endpoints that have left."""
        self._follow()
        for member in self._members.values():
            member.pool.sweep(now)
        for endpoint, member in list(self._leaving.items()):
            member.pool.sweep(now)
            if not member.load:
                member.pool.close()
                del self._leaving[endpoint]

    def close(self) -> None:
        """Close every connection, busy ones too."""
        for member in (*self._members.values(), *self._leaving.values()):
            member.pool.close()

    @property
    def is_used(self) -> bool:
        """Whether there is any connection."""
        return any(each.pool.is_used for each in (*self._members.values(), *self._leaving.values()))

    @property
    def open_connections(self) -> int:
        """Busy and idle ones."""
        return sum(each.pool.open_connections for each in (*self._members.values(), *self._leaving.values()))

    # -- who is there --------------------------------------------------------------------------------------------

    def _candidates(self, now: float) -> list[Member]:
        """The members that may get a call: those not avoided, or all where every one is."""
        self._follow()
        if now >= self._avoided_until:
            return self._all
        return [member for member in self._all if member.avoided_until <= now] or self._all

    def _follow(self) -> None:
        """Take over who is listed now."""
        listed = self._endpoints.ready(self._service)
        if listed is self._listed:
            return
        self._listed = listed
        for endpoint in self._members.keys() - set(listed):
            member = self._leaving[endpoint] = self._members.pop(endpoint)
            member.pool.retire()
        for endpoint in listed:
            if endpoint not in self._members:
                known = self._leaving.pop(endpoint) if endpoint in self._leaving else None
                member = self._members[endpoint] = known or self._new_member(endpoint)
                member.pool.revive()
                member.avoided_until = 0.0
        self._all = list(self._members.values())

    def _new_member(self, endpoint: Endpoint) -> Member:
        origin = Origin(scheme=self._origin.scheme, host=self._origin.host, port=endpoint.port)
        return Member(Pool(origin, self._limits, self._tls, endpoint.addresses))

    def _nobody(self) -> AttemptFailed:
        where = f"{self._service.namespace}/{self._service.name}"
        known = self._endpoints.knows(self._service.namespace)
        text = f"no endpoint of {where} is ready" if known else f"the endpoints of {where} are not known"
        failure = AttemptFailed("connect_error", text)
        failure.not_ready = True
        return failure
