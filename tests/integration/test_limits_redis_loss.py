"""Redis paused, killed and started again empty under calls: each limit does what it says, and nothing is a 500."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import Response
from tests.support.documents import new_key
from tests.support.gateway import GatewayProcess
from tests.support.limited import Fleet, Spender, body, code, fleet, limit, registry, statuses
from tests.support.relay import relay_in_thread
from tests.support.scripts import Chat, Tokens
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

QUICK = {"LLM_GATEWAY_REDIS_DEADLINE_S": "0.1", "LLM_GATEWAY_REDIS_PROBE_S": "0.2"}
SHARED_AGAIN_S = 5.0
DEGRADED = "x-llm-gateway-degraded"


def is_shared(several: Fleet, at: int = 0) -> bool:
    """Whether a call is decided by Redis again."""
    return several.ask(at=at).header(DEGRADED) is None


def lose(several: Fleet, how: str) -> None:
    """Make Redis unusable."""
    if how == "pause":
        several.valkey.pause()
    else:
        several.valkey.kill()


def find_again(several: Fleet, how: str) -> float:
    """Make it usable; how long it took until calls are decided by it."""
    started = time.monotonic()
    if how == "pause":
        several.valkey.resume()
    else:
        several.valkey.start()
    for at in range(len(several.gateways)):
        eventually(lambda at=at: is_shared(several, at), SHARED_AGAIN_S, every_s=0.1)  # type: ignore[misc]
    return time.monotonic() - started


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_limit_that_is_open_lets_pass_and_says_so(how: str) -> None:
    """In a header and a metric; the log has one line for each change, not for each request."""
    with fleet([limit("requests", 1000, "hour", onRedisLoss="open")], env=QUICK) as one:
        assert one.ask().header(DEGRADED) is None
        lose(one, how)
        answers = one.ask_many(40, callers=4)
        assert statuses(answers) == {200: 40}
        assert {answer.header(DEGRADED) for answer in answers} == {"limits"}
        assert one.gateways[0].metrics().value("llm_gateway_degraded_total", dependency="redis", policy="open") == 40
        assert find_again(one, how) < SHARED_AGAIN_S
        one.gateways[0].wait_for_log(lambda line: "limits are shared again" in str(line.get("message")))
        lines = [line["message"] for line in one.gateways[0].logs() if line.get("logger") == "gateway.limits"]
        changes = [line for line in lines if "shared" in line]
        assert len(changes) == 2, lines
        eventually(lambda: one.usage()["requests"] >= 41)


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_limit_that_closes_refuses_until_redis_is_back(how: str) -> None:
    """503 with a retry-after; a shadow limit never closes."""
    limits = [limit("requests", 1000, "hour", onRedisLoss="closed"), limit("tokens", 9, "day", mode="shadow")]
    with fleet(limits, env=QUICK) as one:
        assert one.ask().status == 200
        lose(one, how)
        answers = one.ask_many(20, callers=4)
        assert statuses(answers) == {503: 20}
        assert {code(answer) for answer in answers} == {"limits_unavailable"}
        assert all(1 <= int(answer.header("retry-after") or "") <= 5 for answer in answers)
        assert {answer.header(DEGRADED) for answer in answers} == {"limits"}
        assert one.gateways[0].metrics().value("llm_gateway_degraded_total", policy="closed") == 20
        find_again(one, how)
        assert one.ask().status == 200


def test_a_local_limit_is_shared_out_among_the_replicas_from_what_was_left() -> None:
    """Forty an hour over two replicas, ten used by each: each goes on with half of what was left."""
    with fleet([limit("requests", 40, "hour")], size=2, env=QUICK) as both:
        key = "lgw:1:fleet:{fleet}:replicas"
        eventually(lambda: both.command("ZCARD", key) == ":2\r\n")
        assert statuses(both.ask_many(2)) == {200: 2}
        wait_for_replicas(both)
        assert statuses(both.ask_many(18, callers=1)) == {200: 18}  # the last one of each knows of all but one at most
        lose(both, "kill")
        answers = both.ask_many(60)
        assert statuses(answers) == {200: 20, 429: 40}
        assert {answer.header(DEGRADED) for answer in answers} == {"limits"}
        assert {code(answer) for answer in answers if answer.status == 429} == {"rate_limit_exceeded"}


def wait_for_replicas(both: Fleet) -> None:
    """Every process counts the others time and again: wait until each has announced itself once more."""
    key = "lgw:1:fleet:{fleet}:replicas"
    scores = both.command("ZRANGE", key, "0", "-1", "WITHSCORES")
    eventually(lambda: changed_twice(both, key, scores), 15, every_s=0.2)


def changed_twice(both: Fleet, key: str, before: str) -> bool:
    """Whether every announcement is newer than ``before``."""
    old = [line for line in before.split("\r\n") if line.isdigit() and len(line) > 10]
    new = both.command("ZRANGE", key, "0", "-1", "WITHSCORES")
    return not any(each in new for each in old)


def test_places_are_kept_without_redis() -> None:
    """The calls that run keep theirs, and those that come find as many as there are."""
    with fleet([limit("concurrency", 3)], env=QUICK) as one:
        assert one.ask().status == 200
        lose(one, "kill")
        one.upstream.behaviour = Chat(delay_s=0.1)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: one.ask(body(stream=True)), range(8)))
        assert set(statuses(answers)) <= {200, 429}
        assert statuses(answers)[200] >= 3
        assert statuses(answers)[429] >= 1
        assert one.ask().status == 200


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_what_was_used_meanwhile_is_charged_once_after(how: str) -> None:
    """The ledger has every call once, whether it ended before, during or after the loss."""
    with fleet([limit("tokens", 1_000_000, "day", onRedisLoss="open")], size=2, env=QUICK) as both:
        both.upstream.behaviour = Chat(usage=Tokens(prompt=10, completion=5))
        before = statuses(both.ask_many(10))
        eventually(lambda: both.usage()["requests"] == 10)
        lose(both, how)
        during = statuses(both.ask_many(30, callers=6))
        assert (before, during) == ({200: 10}, {200: 30})
        find_again(both, how)
        lost = 10 if how == "kill" else 0  # what was in Redis when it was killed is gone, and told as such
        total = len(both.upstream.requests) - lost
        eventually(lambda: both.usage()["requests"] == total, 10, every_s=0.1)
        assert both.usage()["input"] == 10 * total
        assert sum(each.metrics().value("llm_gateway_leases_lost_total") for each in both.gateways) == 0


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_budget_holds_while_redis_comes_back_under_load(how: str) -> None:
    """Its levels are not asked before they know what was used without them."""
    most = 150
    with fleet([limit("requests", most, "day")], env=QUICK) as one:
        one.upstream.behaviour = Chat(usage=Tokens(prompt=1, completion=1))
        lose(one, how)
        answers = one.ask_many(200, callers=4)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(one.ask_many, 800, callers=8)
            find_again(one, how)
            answers += load.result()
        assert statuses(answers)[200] <= most
        eventually(lambda: one.usage()["requests"] >= statuses(answers)[200])
        assert one.usage()["requests"] <= most


def test_after_a_loss_of_data_budgets_go_on_from_what_was_seen() -> None:
    """A Redis that comes back empty does not give a tenant its budget again."""
    spender = Spender(most=50, prompt=10)
    with fleet([limit("tokens", 1000, "day", onRedisLoss="closed")], size=2, env=QUICK, maxOutputTokens=50) as both:
        both.upstream.behaviour = spender
        answers = [both.ask(body(max_tokens=50), at=turn % 2) for turn in range(8)]
        assert statuses(answers) == {200: 8}
        both.valkey.kill()
        both.valkey.start()
        refused: Response | None = None
        until = time.monotonic() + 20
        while refused is None and time.monotonic() < until:
            answer = both.ask(body(max_tokens=50), at=len(spender.reported) % 2)
            assert answer.status in {200, 429, 503}, answer
            refused = answer if answer.status == 429 else None
        assert refused is not None
        assert code(refused) == "budget_exceeded"
        assert spender.tokens <= 1000 + 100  # what was admitted between the loss and its discovery


def test_added_latency_is_bounded_and_ends_with_the_breaker() -> None:
    """Each call waits for the deadline at most, and once it is clear that Redis is away, not at all."""
    env = {"LLM_GATEWAY_REDIS_DEADLINE_S": "0.3", "LLM_GATEWAY_REDIS_FAILURES_MAX": "3"}
    with fleet([limit("requests", 100_000, "hour", onRedisLoss="open")], env=env) as one:
        assert one.ask().status == 200
        one.valkey.pause()
        seconds = []
        for _ in range(20):
            started = time.monotonic()
            assert one.ask().status == 200
            seconds.append(time.monotonic() - started)
        assert max(seconds) < 0.9
        assert sorted(seconds)[10] < 0.1


def test_without_a_redis_each_limit_follows_its_policy_from_the_start() -> None:
    """Said once at the start; one process counts alone."""
    key = new_key()
    limits = [limit("requests", 3, "hour"), limit("tokens", 5, "second", onRedisLoss="open"), limit("concurrency", 2)]
    with ScriptedUpstream() as upstream, GatewayProcess(registry(upstream.url, key, limits), key=key) as gateway:
        alone = Fleet([gateway], upstream, None, key)
        answers = alone.ask_many(6, callers=2)
        assert statuses(answers) == {200: 3, 429: 3}
        assert {answer.header(DEGRADED) for answer in answers} == {"limits"}
        assert int(next(a for a in answers if a.status == 429).header("retry-after") or "") > 60
        said = [line["message"] for line in gateway.logs() if "onRedisLoss" in str(line.get("message"))]
        assert len(said) == 1


def test_a_redis_that_is_away_at_the_start_is_found_later() -> None:
    """The gateway serves meanwhile as its limits say."""
    with fleet([limit("requests", 3, "hour")], env=QUICK) as one:
        one.valkey.kill()
        env = {"LLM_GATEWAY_REDIS_URL": one.valkey.url} | QUICK
        limits = [limit("requests", 3, "hour")]
        with GatewayProcess(registry(one.upstream.url, one.key, limits), key=one.key, env=env) as late:
            alone = Fleet([late], one.upstream, one.valkey, one.key)
            answers = alone.ask_many(6, callers=1)
            assert statuses(answers) == {200: 3, 429: 3}
            assert {answer.header(DEGRADED) for answer in answers} == {"limits"}
            one.valkey.start()
            eventually(lambda: alone.ask().header("x-ratelimit-limit-requests"), SHARED_AGAIN_S, every_s=0.1)


def test_a_full_redis_is_one_that_is_lost() -> None:
    """It turns writes away: each limit does what it says until there is room, and the ledger misses nothing."""
    with fleet([limit("requests", 1000, "hour", onRedisLoss="open")], env=QUICK) as one:
        assert one.ask().status == 200
        one.command("CONFIG", "SET", "maxmemory", "1")
        answers = one.ask_many(20, callers=4)
        assert statuses(answers) == {200: 20}
        assert {answer.header(DEGRADED) for answer in answers} == {"limits"}
        one.command("CONFIG", "SET", "maxmemory", "0")
        eventually(lambda: is_shared(one), SHARED_AGAIN_S, every_s=0.1)
        eventually(lambda: one.usage()["requests"] == len(one.upstream.requests), 10, every_s=0.1)


def test_scripts_that_were_flushed_are_brought_again() -> None:
    """No call notices."""
    with fleet([limit("requests", 6, "hour", onRedisLoss="closed")]) as one:
        assert statuses(one.ask_many(3)) == {200: 3}
        one.command("SCRIPT", "FLUSH")
        assert statuses(one.ask_many(6)) == {200: 3, 429: 3}
        eventually(lambda: one.usage()["requests"] == 6)


def test_a_slow_redis_is_not_waited_for() -> None:
    """300 ms for each answer: calls wait for the deadline at most and then not at all, and none is a 500."""
    env = {"LLM_GATEWAY_REDIS_DEADLINE_S": "0.05"}
    limits = [limit("requests", 20, "hour"), limit("tokens", 1_000_000, "day", onRedisLoss="open")]
    with fleet(limits, env=env) as one, relay_in_thread(one.valkey.port) as relay:
        assert one.ask().status == 200
        documents = registry(one.upstream.url, one.key, limits)
        settings = env | {"LLM_GATEWAY_REDIS_URL": f"redis://127.0.0.1:{relay.port}/0"}
        with GatewayProcess(documents, key=one.key, env=settings) as gateway:
            several = Fleet([gateway], one.upstream, one.valkey, one.key)
            assert several.ask().status == 200
            relay.delay_s = 0.3
            started = time.monotonic()
            answers = several.ask_many(60, callers=6)
            assert time.monotonic() - started < 5
            assert set(statuses(answers)) <= {200, 429}
            assert statuses(answers)[200] <= 20
            assert several.ask().header(DEGRADED) == "limits"
            relay.delay_s = 0.0
            eventually(lambda: is_shared(several), SHARED_AGAIN_S, every_s=0.1)
            total = len(one.upstream.requests)
            eventually(lambda: one.usage()["requests"] == total, 10, every_s=0.1)
