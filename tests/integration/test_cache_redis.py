"""The Redis of the cache away, slow, full, or another than that of the limits: a miss, in time, and counted."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from tests.support import admin
from tests.support.cached import CachedFleet, cached_fleet, result, text
from tests.support.crowd import Crowd
from tests.support.limited import body
from tests.support.scripts import Chat, Gate, Script, stream
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

DEADLINE_S = 0.2
QUICK = {
    "LLM_GATEWAY_CACHE_REDIS_DEADLINE_S": f"{DEADLINE_S}s",
    "LLM_GATEWAY_REDIS_PROBE_S": "0.2",
    "LLM_GATEWAY_CACHE_LEASE_S": "1s",
}


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Callers."""
    with Crowd() as found:
        yield found


def is_kept_again(fleet: CachedFleet) -> bool:
    """Whether answers are found again."""
    return [result(fleet.say(seed=7)) for _ in range(2)][1] == "hit"


def lanes_not_used(fleet: CachedFleet) -> list[str]:
    """What of a gateway does not use its Redis, as each line of its log names it."""
    lines = [str(line.get("message")) for line in fleet.gateways[0].logs()]
    found = [re.fullmatch(r"Redis at \S+ \((.+)\) is not used until .*", line) for line in lines]
    return sorted(each[1] for each in found if each is not None)


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_without_redis_every_call_is_made_in_time(how: str) -> None:
    """A miss that a metric tells of; a few wait for the deadline, from then on none does; and back by itself."""
    with cached_fleet(env=QUICK) as one:
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        one.valkey.pause() if how == "pause" else one.valkey.kill()
        calls, waits = one.calls(), []
        for _ in range(20):
            started = time.monotonic()
            answer = one.say()
            waits.append(time.monotonic() - started)
            assert (answer.status, result(answer), text(answer)) == (200, "miss", "Hello from upstream")
        assert one.calls() == calls + 20
        assert one.counted("unavailable") == 20
        assert sum(wait > DEADLINE_S for wait in waits) <= 10, waits
        assert one.gateways[0].metrics().value("llm_gateway_cache_redis_failures_total") > 0
        eventually(lambda: lanes_not_used(one) == ["cache", "keys and operators", "limits"], 20)
        one.valkey.resume() if how == "pause" else one.valkey.start()
        eventually(lambda: is_kept_again(one), 10, every_s=0.1)


def test_calls_are_shared_within_a_process_without_redis(crowd: Crowd) -> None:
    """There is nothing to wait for: one call for each process."""
    with cached_fleet(2, env=QUICK) as both:
        both.valkey.kill()
        gate = Gate()
        both.upstream.behaviour = Script((gate, *stream(Chat().events("m")).steps))
        callers = [crowd.call(both.gateways[number % 2].port, both.key, body(stream=True)) for number in range(20)]
        for each in both.gateways:
            each.wait_for_metric("llm_gateway_inflight_requests", 10)
        eventually(lambda: both.calls() == 2, what="a call of each process")
        gate.open()
        answers = crowd.results(callers)
        assert {(each.status, "".join(each.texts)) for each in answers} == {(200, "Hello from upstream")}
        assert both.calls() == 2


@pytest.mark.parametrize("after", [0, 2], ids=["before the first byte", "in the middle"])
def test_redis_that_dies_under_a_shared_call_harms_those_who_follow_at_most(crowd: Crowd, after: int) -> None:
    """Callers of the process that makes the call notice nothing; others try again, or end with an error."""
    with cached_fleet(2, env=QUICK) as both:
        gate = Gate()
        events = Chat().events("m")
        whole = stream(events)
        both.upstream.enqueue(Script((*whole.steps[: 1 + after], gate, *whole.steps[1 + after :])))
        near = [crowd.call(both.gateways[0].port, both.key, body(stream=True)) for _ in range(3)]
        gate.wait_reached()
        far = [crowd.call(both.gateways[1].port, both.key, body(stream=True)) for _ in range(3)]
        eventually(lambda: all(len(each.got.events) == after for each in near + far), 20)
        both.gateways[1].wait_for_metric("llm_gateway_inflight_requests", 3)
        both.valkey.kill()
        far_answers = crowd.results(far)
        gate.open()
        for got in crowd.results(near):
            assert (got.status, "".join(got.texts), got.error) == (200, "Hello from upstream", None)
        for got in far_answers:
            assert got.status == 200
            assert (got.error is None) == (after == 0)
            assert "Hello from upstream".startswith("".join(got.texts))
        assert both.calls() == (1 if after else 2)


def test_a_full_redis_keeps_nothing_and_refuses_nobody() -> None:
    """With the policy that limits need; what cannot be kept is counted."""
    with (
        Valkey("maxmemory-policy noeviction") as cache,
        cached_fleet(env=QUICK | {"LLM_GATEWAY_CACHE_REDIS_URL": cache.url}) as one,
    ):
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        cache.command("CONFIG", "SET", "maxmemory", "1")  # less than it has: full from now on
        assert cache.command("SET", "more", "x").startswith("-OOM")
        answers = [one.say(seed=number) for number in range(10)]
        assert Counter(each.status for each in answers) == {200: 10}
        assert {result(each) for each in answers} == {"miss"}
        assert one.counted("unavailable") == 10
        assert result(one.say()) == "hit"


def test_a_redis_of_its_own_keeps_all_of_the_cache() -> None:
    """Limits and usage are on the other; a purge finds the right one."""
    with Valkey() as cache, cached_fleet(env={"LLM_GATEWAY_CACHE_REDIS_URL": cache.url}) as one:
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        eventually(lambda: one.usage()["requests"] == 2)
        assert ":cache:" not in one.command("KEYS", "*")
        kept = cache.command("KEYS", "*")
        assert ":cache:answer:" in kept
        assert ":usage:" not in kept
        admin.post(one.gateways[0], "/cache/purge", {"tenant": "acme"})
        assert result(one.say()) == "miss"


def test_the_password_of_its_own_redis_is_read_again(tmp_path: Path) -> None:
    """Whichever changes first, file or server: calls go on, and answers are found again."""
    file = tmp_path / "password"
    file.write_text("first")
    env = QUICK | {"LLM_GATEWAY_CACHE_REDIS_CREDENTIALS_FILE": str(file), "LLM_GATEWAY_REDIS_CHECK_S": "0.1s"}
    with (
        Valkey("requirepass first") as cache,
        cached_fleet(env=env | {"LLM_GATEWAY_CACHE_REDIS_URL": cache.url}) as one,
    ):
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        with redis_py.Redis.from_url(cache.url, password="first", decode_responses=True) as operator:
            file.write_text("second")
            one.gateways[0].wait_for_log(
                lambda line: "does not take the changed credentials" in str(line.get("message"))
            )
            assert result(one.say()) == "hit", "the connection that is there goes on"
            operator.config_set("requirepass", "second")
            operator.client_kill_filter(_type="normal", skipme=True)
            eventually(lambda: is_kept_again(one), 10, every_s=0.1)
            operator.config_set("requirepass", "third")
            operator.client_kill_filter(_type="normal", skipme=True)
            eventually(lambda: result(one.say()) == "miss", 10, every_s=0.1)
            file.write_text("third")
            eventually(lambda: is_kept_again(one), 10, every_s=0.1)


def test_what_redis_loses_or_spoils_is_a_miss() -> None:
    """Evicted answers, evicted marks after a purge, bytes that are none of ours."""
    with cached_fleet() as one:
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        (answer,) = keys(one, "lgw:1:{acme}:cache:answer:*")
        marks = "lgw:1:{acme}:cache:marks"
        one.command("DEL", answer)
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        one.command("DEL", marks)
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        one.command("SET", answer, "spoilt")
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        mark = one.command("HGET", marks, "e").split("\r\n")[1]
        one.command("SET", answer, f"{mark}..\nspoilt")
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        one.command("DEL", marks)
        one.command("SET", marks, "of another kind")
        assert [(result(each), each.status) for each in (one.say(), one.say())] == [("miss", 200)] * 2
        one.gateways[0].wait_for_log(lambda line: "the cache cannot be used" in str(line.get("message")))


def keys(fleet: CachedFleet, pattern: str) -> list[str]:
    """The names of keys."""
    return [line for line in fleet.command("KEYS", pattern).split("\r\n") if line.startswith("lgw:")]


def test_nothing_is_left_in_redis_but_what_expires() -> None:
    """Answers, what was said, who makes a call: each has an end."""
    with cached_fleet(env=QUICK) as one:
        for streamed in (False, True):
            assert result(one.say(stream=streamed, seed=int(streamed))) == "miss"
        for each in keys(one, "lgw:1:{acme}:cache:*"):
            assert int(one.command("PTTL", each).strip().lstrip(":")) != -1, each
        eventually(lambda: not keys(one, "lgw:1:{acme}:cache:flight:*"), 20, every_s=0.1)
