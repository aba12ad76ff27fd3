"""Everything that can befall Redis while callers of several tenants ask without a pause.

No answer but those that the limits' policies allow, none that is another caller's, nobody waits for a Redis that is
away, and afterwards the shared levels have every call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from tests.support.gateway import GatewayProcess
from tests.support.limited import Fleet, registry
from tests.support.load import Load, Party, parties, say_again
from tests.support.metrics import Scrape
from tests.support.relay import relay_in_thread
from tests.support.upstream import ScriptedUpstream
from tests.support.valkey import SERVICE, Valkey, service
from tests.support.waiting import eventually

DEADLINE_S, PROBE_S, FAILURES_MAX = 0.1, 0.2, 3
SETTINGS = {
    "LLM_GATEWAY_REDIS_DEADLINE_S": str(DEADLINE_S),
    "LLM_GATEWAY_REDIS_PROBE_S": str(PROBE_S),
    "LLM_GATEWAY_REDIS_FAILURES_MAX": str(FAILURES_MAX),
    "LLM_GATEWAY_REDIS_CONNECT_TIMEOUT_S": "0.5",
    "LLM_GATEWAY_REDIS_CHECK_S": "0.5",
}
CALLERS = 5
"""Of each of the four tenants."""

ENOUGH = 60
"""Answers of each tenant before, during and after."""

SHARED_AGAIN_S = 5.0
"""How long after its recovery Redis is used again."""

SECONDS_MAX = 5.0
"""A bound for any call that a busy machine keeps too; how little is waited for is counted in commands."""


@dataclass
class Fault:
    """What befalls Redis, and what is to be expected of it."""

    url: str
    begin: Callable[[], object]
    end: Callable[[], object]
    holds_data: Callable[[], Valkey]
    loses_writes: bool = False
    opens_breaker: bool = True
    says: str = "Redis may have lost limits"
    forgets: int = 0  # calls of a tenant that may be missing afterwards


@contextmanager
def killed() -> Iterator[Fault]:
    """It is killed, and later started again with nothing in it."""
    with Valkey() as valkey:
        yield Fault(valkey.url, valkey.kill, valkey.start, lambda: valkey, loses_writes=True)


@contextmanager
def paused() -> Iterator[Fault]:
    """It is stopped with its connections open, and goes on later."""
    with Valkey() as valkey:
        yield Fault(valkey.url, valkey.pause, valkey.resume, lambda: valkey)


@contextmanager
def slowed() -> Iterator[Fault]:
    """Each answer takes 300 ms."""
    with Valkey() as valkey, relay_in_thread(valkey.port) as relay:
        take = partial(setattr, relay, "delay_s")
        yield Fault(relay.url, partial(take, 0.3), partial(take, 0.0), lambda: valkey)


@contextmanager
def full() -> Iterator[Fault]:
    """It is out of memory: it answers at once, but takes no writes."""
    with Valkey() as valkey:
        bound = partial(valkey.command, "CONFIG", "SET", "maxmemory")
        yield Fault(valkey.url, partial(bound, "1"), partial(bound, "0"), lambda: valkey, opens_breaker=False)


@contextmanager
def restarted() -> Iterator[Fault]:
    """It is another process at once, with nothing in it."""
    with Valkey() as valkey:

        def restart() -> None:
            valkey.kill()
            valkey.start()

        yield Fault(valkey.url, restart, valkey.start, lambda: valkey, loses_writes=True)


@contextmanager
def failed_over() -> Iterator[Fault]:
    """The primary is killed, and Sentinel promotes its replica."""
    with service() as (primary, replica, sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
        yield Fault(url, primary.kill, primary.start, lambda: replica, loses_writes=True)


@contextmanager
def failed_over_while_stopped() -> Iterator[Fault]:
    """The primary stops with its connections open, and Sentinel promotes its replica."""
    with service() as (primary, replica, sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
        yield Fault(url, primary.pause, primary.resume, lambda: replica, loses_writes=True)


@contextmanager
def promoted_behind() -> Iterator[Fault]:
    """A replica takes over that has not got the last writes."""
    with (
        Valkey() as primary,
        relay_in_thread(primary.port) as replication,
        Valkey(f"replicaof 127.0.0.1 {replication.port}") as replica,
        relay_in_thread(primary.port) as front,
    ):
        eventually(lambda: "master_link_status:up" in replica.command("INFO", "replication"), 10.0)

        def promote() -> None:
            replication.flowing.clear()
            behind = offset(primary)
            eventually(lambda: offset(primary) > behind + 100_000, 10.0)
            primary.kill()
            replica.command("REPLICAOF", "NO", "ONE")
            front.target_port = replica.port

        yield Fault(front.url, promote, primary.start, lambda: replica, loses_writes=True)


def offset(server: Valkey) -> int:
    """How many bytes of writes a server has made."""
    found = re.search(r"master_repl_offset:(\d+)", server.command("INFO", "replication"))
    assert found
    return int(found[1])


@contextmanager
def flushed() -> Iterator[Fault]:
    """Somebody empties it: that shows with the first answer, too late for the calls that are asked for meanwhile."""
    with Valkey() as valkey:
        flush = partial(valkey.command, "FLUSHALL")
        says = "were lost in Redis"
        yield Fault(valkey.url, flush, flush, lambda: valkey, loses_writes=True, says=says, forgets=CALLERS)


@contextmanager
def gateway_on(url: str) -> Iterator[tuple[Fleet, tuple[Party, ...]]]:
    """A gateway with the tenants of a load."""
    tenants = parties()
    with ScriptedUpstream(say_again) as upstream:
        documents = registry(upstream.url, tenants[0].key, [])[:2]
        for each in tenants:
            documents += each.documents()
        env = SETTINGS | {"LLM_GATEWAY_REDIS_URL": url}
        with GatewayProcess(documents, key=tenants[0].key, env=env) as gateway:
            yield Fleet([gateway], upstream, None, tenants[0].key), tenants


def used(load: Load, party: Party) -> int:
    """How many requests the shared levels have of a tenant, by the headers of one more call."""
    answer = load.ask(party)
    assert not answer.is_degraded, answer
    return party.amount - int(answer.response.header("x-ratelimit-remaining-requests") or "")


def commands(scrape: Scrape) -> float:
    """How many commands to Redis were written without an answer in time; a probe of an open breaker is one."""
    return scrape.value("llm_gateway_redis_failures_total", reason="unanswered")


def assert_nobody_waits(load: Load, one: GatewayProcess, *, probes: bool) -> None:
    """While calls go on, nothing is written to Redis but the lone probes of the breaker."""
    time.sleep(2 * DEADLINE_S)  # what was written before the breaker opened has failed by then
    started, before = time.monotonic(), commands(one.metrics())
    load.wait_for(ENOUGH, since=started, degraded=True)
    written, seconds = commands(one.metrics()) - before, time.monotonic() - started
    # A probe comes after half of PROBE_S at the soonest; with each new connection the server is looked at too.
    # Without a breaker they are answered, but for a moment in which a busy machine does not let the server run.
    assert written <= ((seconds / (PROBE_S / 2) + 2) * 4 if probes else ENOUGH)


def assert_counted_as_answered(one: GatewayProcess, tenants: Sequence[Party]) -> None:
    """The metric has every degraded answer under its policy."""
    scrape = one.metrics()
    for each in tenants[1:]:
        seen = sum(answer.is_degraded for answer in each.answers)
        assert scrape.value("llm_gateway_degraded_total", dependency="redis", policy=each.policy or "") == seen
    assert scrape.value("llm_gateway_leases_lost_total") == 0


def assert_levels_have_every_call(load: Load, *, under: int, over: int) -> None:
    """The shared levels count again: at most ``under`` calls are missing, and at most ``over`` are counted twice."""

    def exact(party: Party) -> bool:
        seen = used(load, party)  # its own call is in it, and in ``served``
        assert party.served - under <= seen <= party.served + over, (party.name, seen, party.served)
        return True

    for each in load.parties[1:]:
        eventually(partial(exact, each), 10, every_s=0.1)


def assert_ledger_has_every_call(several: Fleet, tenants: Sequence[Party], since: float) -> None:
    """Of calls that began after ``since`` each is there; none is there twice."""

    def exact(party: Party) -> bool:
        least = sum(answer.status == 200 for answer in party.since(since))
        seen = several.usage(party.name)["requests"]
        assert least <= seen <= party.served, (party.name, least, seen, party.served)
        return True

    for each in tenants:
        eventually(partial(exact, each), 10, every_s=0.1)


def assert_said_once(one: GatewayProcess) -> None:
    """A change of state is one line; nothing is an error of the gateway."""
    lines = one.logs()
    said = [line["message"] for line in lines if line.get("logger") == "gateway.limits" and "shared" in line["message"]]
    assert len(said) <= 6, said
    assert len([text for text in said if "again" in text]) == len([text for text in said if "not shared" in text]), said
    assert not [line for line in lines if line["level"] in {"error", "critical"} and line.get("event") != "request"]
    assert not one.stray_output()


@pytest.mark.parametrize("kind", [killed, paused, slowed, full])
def test_a_loss_under_load(kind: Callable[[], AbstractContextManager[Fault]]) -> None:
    """Each policy holds while it lasts, calls wait for nothing once it is clear, and it ends by itself."""
    with kind() as fault, gateway_on(fault.url) as (several, tenants):
        one = several.gateways[0]
        with Load(several.gateways, tenants, CALLERS) as load:
            load.wait_for(ENOUGH, degraded=False)
            fault.begin()
            began = time.monotonic()
            load.wait_for(1, since=began, degraded=True)
            if fault.opens_breaker:
                one.wait_for_metric("llm_gateway_redis_unavailable_servers", 1)
            lost = time.monotonic()
            assert_nobody_waits(load, one, probes=fault.opens_breaker)
            until = time.monotonic()
            fault.end()
            ended = time.monotonic()
            load.wait_for(1, since=ended, degraded=False, timeout_s=SHARED_AGAIN_S)
            load.wait_for(ENOUGH, since=time.monotonic(), degraded=False)
            load.stop()
            for each in tenants[1:]:
                assert all(answer.is_degraded for answer in each.since(lost, until))
            assert_all_is_well(several, load, fault, began)


@pytest.mark.parametrize("kind", [restarted, failed_over, failed_over_while_stopped, promoted_behind, flushed])
def test_another_server_under_load(kind: Callable[[], AbstractContextManager[Fault]]) -> None:
    """It is found without a word, and no call that was counted before is forgotten."""
    with kind() as fault, gateway_on(fault.url) as (several, tenants):
        one = several.gateways[0]
        with Load(several.gateways, tenants, CALLERS) as load:
            load.wait_for(ENOUGH, degraded=False)
            fault.begin()
            began = time.monotonic()
            one.wait_for_log(lambda line: fault.says in str(line.get("message")), 30)
            load.wait_for(ENOUGH, since=time.monotonic(), degraded=False)
            load.stop()
            assert_all_is_well(several, load, fault, began)


def assert_all_is_well(several: Fleet, load: Load, fault: Fault, began: float) -> None:
    """What holds after every fault, which ``began`` then."""
    tenants, one = load.parties, several.gateways[0]
    assert max(answer.ended - answer.began for each in tenants for answer in each.answers) < SECONDS_MAX
    assert_counted_as_answered(one, tenants)
    assert_levels_have_every_call(load, under=fault.forgets, over=2 * CALLERS if fault.loses_writes else 0)
    assert len(several.upstream.requests) == sum(each.served for each in tenants)
    ledger = Fleet([], several.upstream, fault.holds_data(), "")
    assert_ledger_has_every_call(ledger, tenants, began if fault.loses_writes else 0.0)
    assert_said_once(one)
