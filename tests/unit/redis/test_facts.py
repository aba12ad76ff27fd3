"""What a server says of itself, and what of it is worth a warning."""

from __future__ import annotations

import logging

import msgspec
import pytest

from gateway.redis.facts import Facts, Watch, read_facts
from gateway.redis.observer import NoObserver, Notice

PRIMARY = Facts(run_id="r1", role="master", replication_id="i1")


class Noted(NoObserver):
    """Remembers notices."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.evicting_servers = 0

    def evicting(self, change: int) -> None:
        self.evicting_servers += change

    def noticed(self, what: Notice) -> None:
        self.notices.append(what)


def test_facts_are_read_from_info() -> None:
    """Refusals and unknown lines are passed over."""
    answers = [
        b"# Server\r\nrun_id:abc\r\nsomething\r\n",
        RuntimeError("NOPERM"),
        b"maxmemory:100\r\nused_memory:40\r\nmaxmemory_policy:allkeys-lru\r\n",
        b"role:slave\r\nmaster_replid:x\r\nmaster_replid2:y\r\n",
    ]
    facts = read_facts(answers)
    assert facts == Facts(
        run_id="abc",
        role="slave",
        replication_id="x",
        former_replication_id="y",
        used_bytes=40,
        maxmemory_bytes=100,
        policy="allkeys-lru",
    )
    assert facts.may_evict
    assert read_facts([]) == Facts()


@pytest.mark.parametrize(
    ("later", "notices"),
    [
        ({}, []),
        ({"run_id": "r2"}, ["restarted"]),
        ({"run_id": "r2", "replication_id": "i2"}, ["restarted"]),
        ({"run_id": "r2", "replication_id": "i2", "former_replication_id": "i1"}, ["promoted"]),
        ({"run_id": ""}, []),
        ({"role": "slave", "replication_id": "i2", "former_replication_id": "i1"}, []),
        ({"maxmemory_bytes": 10, "policy": "volatile-ttl"}, ["eviction_policy"]),
        ({"maxmemory_bytes": 0, "policy": "allkeys-lru"}, []),
        ({"maxmemory_bytes": 10, "policy": "noeviction"}, []),
    ],
)
def test_changes_are_said_once(
    later: dict[str, object], notices: list[Notice], caplog: pytest.LogCaptureFixture
) -> None:
    """One log line and one notice for each change, however often the server is looked at."""
    noted = Noted()
    watch = Watch(noted)
    with caplog.at_level(logging.WARNING, "gateway.redis"):
        for facts in [PRIMARY, PRIMARY, msgspec.structs.replace(PRIMARY, **later)]:
            watch.see(facts, "here")
            watch.see(facts, "here")
    assert noted.notices == notices
    assert len(caplog.records) == len(notices)


def test_a_full_server_is_said_again_only_after_it_had_room() -> None:
    """Every write is refused meanwhile; one line says so."""
    noted = Noted()
    watch = Watch(noted)
    full = msgspec.structs.replace(PRIMARY, used_bytes=11, maxmemory_bytes=10, policy="noeviction")
    for _ in range(3):
        watch.turned_away_full("here")
        watch.see(full, "here")
    assert noted.notices == ["full"]
    watch.see(msgspec.structs.replace(full, used_bytes=9), "here")
    watch.turned_away_full("here")
    assert noted.notices == ["full", "full"]


def test_a_server_that_may_evict_is_counted_until_it_may_not() -> None:
    """Once, however often it is looked at and whatever its policy becomes; not after the lane has ended."""
    noted = Noted()
    watch = Watch(noted)
    evicting = msgspec.structs.replace(PRIMARY, maxmemory_bytes=10, policy="allkeys-lru")
    seen = []
    for facts in (PRIMARY, evicting, evicting, msgspec.structs.replace(evicting, policy="volatile-ttl"), PRIMARY):
        watch.see(facts, "here")
        seen.append(noted.evicting_servers)
    assert seen == [0, 1, 1, 1, 0]
    watch.see(evicting, "here")
    watch.end()
    assert noted.evicting_servers == 0
