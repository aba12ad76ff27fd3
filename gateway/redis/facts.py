"""What a server says of itself, and what of that endangers limits.

The fields of INFO are those of https://valkey.io/commands/info/ . A user without the right to INFO costs these warnings
and nothing else. Nothing is asked here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.redis.observer import Notice, Observer

SECTIONS: Final = ("server", "memory", "replication")
"""The sections of INFO that are asked for, one command each: servers before Redis 7 take one section only."""

_log = logging.getLogger("gateway.redis")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A server at one moment; an empty text is what it did not say."""

    run_id: str = ""
    role: str = ""
    replication_id: str = ""
    former_replication_id: str = ""
    used_bytes: int = 0
    maxmemory_bytes: int = 0
    policy: str = ""

    @property
    def may_evict(self) -> bool:
        """Whether the server may drop keys of ours for want of memory."""
        return self.maxmemory_bytes > 0 and self.policy not in {"", "noeviction"}


def read_facts(answers: Iterable[object]) -> Facts:
    """The facts in answers to INFO; what is no text (an error) is passed over."""
    found: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, bytes):
            for line in answer.decode("utf-8", "replace").splitlines():
                name, _, value = line.partition(":")
                found[name] = value
    return Facts(
        run_id=found.get("run_id", ""),
        role=found.get("role", ""),
        replication_id=found.get("master_replid", ""),
        former_replication_id=found.get("master_replid2", ""),
        used_bytes=_number(found.get("used_memory", "")),
        maxmemory_bytes=_number(found.get("maxmemory", "")),
        policy=found.get("maxmemory_policy", ""),
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


class Watch:
    """Compares what a server says with what it said before; each change is one log line and one notice."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._last = Facts()
        self._is_full = False

    def see(self, facts: Facts, name: str) -> bool:
        """Take note of the facts of the server called ``name``; True where it may have lost writes since the last."""
        last, self._last = self._last, facts
        if facts.used_bytes < facts.maxmemory_bytes or not facts.maxmemory_bytes:
            self._is_full = False
        if facts.may_evict != last.may_evict:
            self._observer.evicting(1 if facts.may_evict else -1)
        if facts.may_evict and (facts.policy, True) != (last.policy, last.may_evict):
            text = "Redis at %s may evict keys (maxmemory-policy %s), so that limits may be forgotten: set noeviction"
            self._say("eviction_policy", text, name, facts.policy)
        if not last.run_id or not facts.run_id:
            return False
        if facts.role != "master":  # a former primary has the history of its successor
            return False
        if last.replication_id not in {facts.replication_id, ""} and facts.former_replication_id == last.replication_id:
            text = "Redis at %s was promoted from a replica: writes of the last moments may be lost"
            self._say("promoted", text, name)
            return True
        if facts.run_id != last.run_id:
            text = "Redis at %s is another process than before: what it kept in memory only is lost"
            self._say("restarted", text, name)
            return True
        return False

    def end(self) -> None:
        """Nobody looks at the server any more, so that nothing endangers what is kept there."""
        self.see(Facts(), "")

    def turned_away_full(self, name: str) -> None:
        """The server answered a write with OOM."""
        if not self._is_full:
            self._is_full = True
            text = "Redis at %s is out of memory and refuses writes: limits follow their onRedisLoss"
            self._say("full", text, name)

    def _say(self, what: Notice, text: str, *values: str) -> None:
        self._observer.noticed(what)
        _log.warning(text, *values)
