"""Identical calls at the same time: one call of the backend, whoever leaves and whatever dies."""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import admin
from tests.support.cached import OTHER_TENANT, CachedFleet, cached_fleet
from tests.support.crowd import Caller, Crowd, Got
from tests.support.limited import body
from tests.support.scripts import DONE, LAST_CHUNK, Chat, Gate, Script, Send, error_reply, reply, stream
from tests.support.waiting import eventually

LEASE_S = 1.0
PIECES = tuple(f"<{number}>" for number in range(30))
WORDS = Chat(pieces=PIECES)
ENV = {"LLM_GATEWAY_CACHE_LEASE_S": f"{LEASE_S}s"}


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[CachedFleet]:
    """Reached through ``both``."""
    with cached_fleet(2, env=ENV) as fleet:
        yield fleet


@pytest.fixture
def both(two_gateways: CachedFleet) -> Iterator[CachedFleet]:
    """Two gateways; nothing is kept, and nothing may be left in flight afterwards."""
    fleet = two_gateways
    fleet.upstream.forget()
    for tenant in ("acme", OTHER_TENANT):
        admin.post(fleet.gateways[0], "/cache/purge", {"tenant": tenant})
    yield fleet
    assert_nothing_left(fleet)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Callers."""
    with Crowd() as found:
        yield found


def assert_nothing_left(fleet: CachedFleet) -> None:
    """No request, no attempt, no busy connection to the backend."""
    for each in fleet.gateways:
        each.assert_nothing_in_flight()
    fleet.upstream.wait_for_idle()


def gated(gate: Gate, chat: Chat = WORDS, after: int = 0, delay_s: float = 0.0) -> Script:
    """A stream that waits at a gate after some of its events, the rest of them ``delay_s`` apart."""
    whole = stream(chat.events("m", with_usage=True), delay_s=delay_s)
    at = 1 + (after * 2 if delay_s else after)
    return Script((*whole.steps[:at], gate, *whole.steps[at:]))


def join(
    fleet: CachedFleet,
    crowd: Crowd,
    count: int,
    *,
    at: int | None = None,
    key: str | None = None,
    streamed: bool = True,
) -> list[Caller]:
    """So many callers with one question, over all gateways or at one."""
    ports = [each.port for each in fleet.gateways]
    fields = body(stream=True) if streamed else body()
    places = [number % len(ports) if at is None else at for number in range(count)]
    return [crowd.call(ports[place], key or fleet.key, fields) for place in places]


def wait_inflight(fleet: CachedFleet, *counts: int) -> None:
    """Wait until each gateway has so many requests."""
    for each, count in zip(fleet.gateways, counts, strict=True):
        each.wait_for_metric("llm_gateway_inflight_requests", count, timeout_s=30)


def assert_whole(got: Got) -> None:
    """The whole answer and nothing else."""
    assert (got.status, got.is_complete) == (200, True), got
    assert tuple(got.texts) == PIECES
    assert got.events[-1] == DONE


def assert_whole_or_broken(got: Got) -> None:
    """The whole answer, or the beginning of it and an error; never anything else."""
    assert (got.status, got.is_complete) == (200, True), got
    if got.error is None:
        assert_whole(got)
    else:
        assert tuple(got.texts) == PIECES[: len(got.texts)]
        assert got.error in {"upstream_failed", "upstream_timeout"}


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_five_hundred_calls_over_two_processes_are_one(both: CachedFleet, crowd: Crowd, streamed: bool) -> None:
    """Everybody gets the same bytes; one is charged."""
    gate, before = Gate(), both.usage()
    whole = Script((gate, *reply(body=WORDS.body("m")).steps))
    both.upstream.enqueue(gated(gate) if streamed else whole)
    callers = join(both, crowd, 500, streamed=streamed)
    wait_inflight(both, 250, 250)
    gate.open()
    answers = crowd.results(callers)
    assert both.calls() == 1
    assert Counter(each.status for each in answers) == {200: 500}
    assert len({each.body for each in answers}) == 1
    assert Counter(each.cache for each in answers) == {"miss": 1, "coalesced": 499}
    if streamed:
        assert_whole(answers[0])
        first = next(each for each in answers if each.cache == "miss").first_at
        latest = max(each.first_at for each in answers) - first
        assert latest < 2.0  # five hundred callers share the cores with all else; `make soak` holds the bound
    eventually(lambda: (both.usage() - before)["requests"] == 500, what="all of them in the ledger")
    used = both.usage() - before
    assert (used["input"], used["output"], used["hits"]) == (11, 3, 499)


def test_streams_are_read_as_they_come(both: CachedFleet, crowd: Crowd) -> None:
    """In the process that makes the call and in the other, before there is an end."""
    gate = Gate()
    both.upstream.enqueue(gated(gate, after=4))
    callers = join(both, crowd, 4)
    eventually(lambda: all(len(each.got.events) == 4 for each in callers), 20, what="the first events everywhere")
    late = join(both, crowd, 2)
    eventually(lambda: all(len(each.got.events) == 4 for each in late), 20, what="the first events of late callers")
    gate.open()
    for got in crowd.results(callers + late):
        assert_whole(got)
    assert both.calls() == 1


def test_two_tenants_never_share_a_call(both: CachedFleet, crowd: Crowd) -> None:
    """Nor do a stream and a plain request."""
    gate = Gate()
    both.upstream.behaviour = gated(gate)
    callers = join(both, crowd, 4) + join(both, crowd, 4, key=both.other_key)
    wait_inflight(both, 4, 4)
    eventually(lambda: both.calls() == 2)
    gate.open()
    for got in crowd.results(callers):
        assert_whole(got)
    assert both.calls() == 2


def test_a_failure_is_told_to_all(both: CachedFleet, crowd: Crowd) -> None:
    """One call, one failure; a refusal of the backend passes with its body."""
    for status, seen in ((500, 502), (400, 400)):
        both.upstream.forget()
        gate = Gate()
        both.upstream.enqueue(Script((gate, *error_reply(status).steps)))
        callers = join(both, crowd, 6)
        wait_inflight(both, 3, 3)
        gate.open()
        answers = crowd.results(callers)
        assert Counter(each.status for each in answers) == {seen: 6}
        assert len({each.body for each in answers}) == 1
        assert both.calls() == 1


@pytest.mark.parametrize("at", [0, 1], ids=["same process", "other process"])
def test_a_call_goes_on_while_anybody_waits(both: CachedFleet, crowd: Crowd, at: int) -> None:
    """The one that began it leaves and is charged; the others get everything."""
    gate, before = Gate(), both.usage()
    both.upstream.enqueue(gated(gate, after=3))
    (leader,) = join(both, crowd, 1, at=0)
    both.upstream.wait_for_requests(1)
    followers = join(both, crowd, 3, at=at)
    eventually(lambda: all(len(each.got.events) == 3 for each in [leader, *followers]), 20)
    leader.leave()
    wait_inflight(both, 3 if at == 0 else 0, 3 if at == 1 else 0)
    gate.open()
    for got in crowd.results(followers):
        assert_whole(got)
    assert both.calls() == 1
    eventually(lambda: (both.usage() - before)["requests"] == 4)
    used = both.usage() - before
    assert (used["output"], used["hits"]) == (3, 3)


@pytest.mark.parametrize("after", [0, 3], ids=["before the first byte", "in the middle"])
def test_a_call_ends_when_nobody_waits(both: CachedFleet, crowd: Crowd, after: int) -> None:
    """The backend is told at once, as of a call that nobody shares."""
    gate = Gate()
    both.upstream.enqueue(gated(gate, after=after))
    (leader,) = join(both, crowd, 1, at=0)
    gate.wait_reached()
    followers = join(both, crowd, 2, at=0)
    wait_inflight(both, 3, 0)
    assert calls_under_way(both)
    for each in (leader, *followers):
        each.leave()
    both.upstream.wait_for_disconnect()
    gate.open()
    # Whoever follows it before others are told that it is given up gets its beginning and an error.
    eventually(lambda: not calls_under_way(both), what="the end of the call told to others")
    (again,) = join(both, crowd, 1, at=1)
    assert_whole_of_default(again.result())


def calls_under_way(fleet: CachedFleet) -> list[str]:
    """The calls that other processes could follow: the keys that say who makes them."""
    keys = fleet.command("KEYS", "lgw:1:*:cache:flight:*").split("\r\n")
    return [key for key in keys if re.search(r":flight:[0-9a-f]+$", key)]


def assert_whole_of_default(got: Got) -> None:
    """What the upstream says where nothing was scripted."""
    assert (got.status, "".join(got.texts)) == (200, "Hello from upstream")


@pytest.mark.parametrize("told", [True, False], ids=["connected to others", "alone"])
def test_an_answer_that_was_said_to_its_end_is_kept_whoever_leaves(both: CachedFleet, crowd: Crowd, told: bool) -> None:
    """Clients leave with the last event, before the backend's connection has come to its end."""
    gate, before = Gate(), both.usage()
    both.upstream.enqueue(stream(WORDS.events("m", with_usage=True), ending=[gate, Send(LAST_CHUNK)]))
    (leader,) = join(both, crowd, 1, at=0)
    others = join(both, crowd, 1, at=1) if told else []
    eventually(lambda: all(each.got.events[-1:] == [DONE] for each in (leader, *others)), 20, what="the last event")
    for each in (leader, *others):
        each.leave()
    wait_inflight(both, 0, 0)
    gate.open()
    eventually(lambda: (both.usage() - before)["output"] == 3, what="the call in the ledger")
    (again,) = join(both, crowd, 1, at=1)
    assert again.result().cache == "hit"
    assert both.calls() == 1


def test_callers_that_leave_at_random_moments_disturb_nobody(both: CachedFleet, crowd: Crowd) -> None:
    """Any of them, the one that began the call among them, at both processes."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    both.upstream.behaviour = stream(WORDS.events("m"), delay_s=0.01)
    for _ in range(8):
        admin.post(both.gateways[0], "/cache/purge", {"tenant": "acme"})
        callers = join(both, crowd, 8)
        leaving = chance.sample(callers, 4)
        for each in leaving:
            each.leave(after_s=chance.uniform(0, 0.4))
        for each in callers:
            got = each.result()
            if each not in leaving:
                assert_whole(got)
            assert tuple(got.texts) == PIECES[: len(got.texts)], seed


@pytest.mark.parametrize("moment", ["before", "during", "stopped"])
def test_a_process_that_dies_releases_those_who_follow_it(crowd: Crowd, moment: str) -> None:
    """With nothing sent yet they get a whole answer of one more call; else a beginning and an error, never a splice."""
    with cached_fleet(2, env=ENV) as fleet:
        gate = Gate()
        fleet.upstream.enqueue(gated(gate, after=5 if moment == "during" else 0))
        fleet.upstream.behaviour = WORDS
        join(fleet, crowd, 1, at=0)
        gate.wait_reached()
        followers = join(fleet, crowd, 6, at=1)
        fleet.gateways[1].wait_for_metric("llm_gateway_inflight_requests", 6)
        if moment == "during":
            eventually(lambda: all(len(each.got.events) == 5 for each in followers), 20)
        if moment == "stopped":
            for pid in fleet.gateways[0].pids():
                os.kill(pid, signal.SIGSTOP)
        else:
            fleet.gateways[0].kill()
        answers = crowd.results(followers)
        gate.open()
        if moment == "stopped":
            fleet.gateways[0].kill()
        for got in answers:
            assert_whole_or_broken(got)
        assert {got.error is None for got in answers} == {moment != "during"}
        assert fleet.calls() == (1 if moment == "during" else 2)
        fleet.gateways[1].assert_nothing_in_flight()


def test_processes_killed_at_random_moments_leave_nobody_hanging(crowd: Crowd) -> None:
    """Followers of every stage; no byte is wrong."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with cached_fleet(2, env=ENV) as fleet:
        for _ in range(3):
            fleet.upstream.behaviour = stream(WORDS.events("m"), delay_s=0.02)
            admin.post(fleet.gateways[1], "/cache/purge", {"tenant": "acme"})
            before = fleet.calls()
            join(fleet, crowd, 1, at=0)
            fleet.upstream.wait_for_requests(before + 1)
            followers = join(fleet, crowd, 5, at=1)
            events = chance.randrange(len(PIECES))  # how far the first of them has come when the other process dies
            eventually(lambda: max(len(each.got.events) for each in followers) >= events, 20, what=f"{events} events")  # noqa: B023
            fleet.gateways[0].kill()
            for got in crowd.results(followers):
                assert_whole_or_broken(got)
            fleet.gateways[1].assert_nothing_in_flight()
            fleet.gateways[0].restart()


def test_a_drain_waits_for_those_who_follow_from_elsewhere(crowd: Crowd) -> None:
    """Also when the caller that began the call has left."""
    with cached_fleet(2, env=ENV) as fleet:
        gate = Gate()
        fleet.upstream.enqueue(gated(gate, after=3))
        (leader,) = join(fleet, crowd, 1, at=0)
        gate.wait_reached()
        followers = join(fleet, crowd, 2, at=1)
        eventually(lambda: all(len(each.got.events) == 3 for each in followers), 20)
        leader.leave()
        fleet.gateways[0].wait_for_metric("llm_gateway_inflight_requests", 0)
        fleet.gateways[0].signal(signal.SIGTERM)
        fleet.gateways[0].wait_for_log(lambda line: "draining" in str(line.get("message")))
        gate.open()
        for got in crowd.results(followers):
            assert_whole(got)
        assert fleet.gateways[0].wait_exit() == 0
