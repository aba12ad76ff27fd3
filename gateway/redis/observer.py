"""What a lane tells of itself; telemetry is a sibling of this package, so app connects the two."""

from __future__ import annotations

from typing import Literal, Protocol

Failure = Literal["unavailable", "unanswered"]
"""How a command failed: certainly not executed, or perhaps executed."""

Notice = Literal["full", "eviction_policy", "promoted", "restarted", "replica", "credentials"]
"""What a server was seen to be or do that endangers limits: it turns writes away for want of memory; its
``maxmemory-policy`` may drop keys; a replica was promoted, so that the last writes may be lost; it is another process
than before; it is only a replica; it does not take our credentials."""


class Observer(Protocol):
    """Counts; called on the event loop and never waits."""

    def answered(self, seconds: float) -> None:
        """Commands that were written together were answered, the oldest of them after so many seconds."""

    def failed(self, how: Failure, count: int) -> None:
        """So many commands failed."""

    def unavailable(self, servers: int) -> None:
        """So many servers are not used now, because they did not answer."""

    def evicting(self, change: int) -> None:
        """So many servers more, or fewer, may evict keys of ours."""

    def noticed(self, what: Notice) -> None:
        """Something endangers limits; said once for each time it begins."""


class NoObserver:
    """Counts nothing."""

    def answered(self, seconds: float) -> None:
        """See Observer."""

    def failed(self, how: Failure, count: int) -> None:
        """See Observer."""

    def unavailable(self, servers: int) -> None:
        """See Observer."""

    def evicting(self, change: int) -> None:
        """See Observer."""

    def noticed(self, what: Notice) -> None:
        """See Observer."""
