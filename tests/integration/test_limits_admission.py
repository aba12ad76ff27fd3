"""Limits through real gateways that share a real Valkey: what is admitted, in all, by all of them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.support.client import Response
from tests.support.documents import api_key, backend, new_key, scenario
from tests.support.limited import Spender, body, code, fleet, limit, spend_up, statuses
from tests.support.scripts import Chat, Gate, Script
from tests.support.waiting import eventually

OUTPUT = {"outputPerMillion": "1"}
RATE_NAMES = [f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")]


def test_several_gateways_together_admit_the_amount_and_not_one_more() -> None:
    """Sixty callers at once over three processes; a bucket of 20 that refills too slowly to matter."""
    with fleet([limit("requests", 20, "hour")], size=3) as several:
        answers = several.ask_many(60)
        assert statuses(answers) == {200: 20, 429: 40}
        assert len(several.upstream.requests) == 20
        assert {code(answer) for answer in answers if answer.status == 429} == {"rate_limit_exceeded"}
        eventually(lambda: several.usage()["requests"] == 20)
        rejected = sum(
            each.metrics().value("llm_gateway_limit_rejections_total", tenant="acme", limit="requests-per-hour")
            for each in several.gateways
        )
        assert rejected == 40


def test_a_rate_admits_its_burst_and_what_is_refilled_and_no_more() -> None:
    """Three seconds of far too many calls over three processes."""
    with fleet([limit("requests", 20, "second", burst=10)], size=3) as several:
        started = time.monotonic()
        answers: list[Response] = []
        while time.monotonic() - started < 3:
            answers += several.ask_many(48, callers=16)
        most = 10 + 20 * (time.monotonic() - started)
        admitted = statuses(answers)[200]
        assert most * 0.9 - 5 <= admitted <= most, (admitted, most, len(answers))
        assert statuses(answers).keys() == {200, 429}
        assert len(several.upstream.requests) == admitted


def test_workers_of_one_gateway_share_their_limits() -> None:
    """Four processes on one port, with a Valkey of their own."""
    env = {"LLM_GATEWAY_WORKERS": "4", "LLM_GATEWAY_REDIS_URL": "embedded"}
    with fleet([limit("requests", 20, "hour")], env=env) as one:
        assert statuses(one.ask_many(50)) == {200: 20, 429: 30}
        assert len(one.upstream.requests) == 20


def test_places_are_held_to_the_last_byte() -> None:
    """As many calls at once as there are places, over two processes; a finished one makes room."""
    gate = Gate()
    with fleet([limit("concurrency", 4)], size=2) as several:
        several.upstream.behaviour = lambda request: Script((gate, *Chat()(request).steps))
        answers: list[Response] = []
        threads = [
            threading.Thread(target=lambda turn=turn: answers.append(several.ask(at=turn % 2))) for turn in range(10)
        ]
        for each in threads:
            each.start()
        eventually(lambda: len(answers) == 6)
        assert statuses(answers) == {429: 6}
        assert "concurrent" in answers[0].json()["error"]["message"]
        gate.open()
        for each in threads:
            each.join()
        assert statuses(answers) == {200: 4, 429: 6}
        assert several.ask().status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 37},
        {"max_completion_tokens": 80},
        {"n": 1, "max_tokens": 500},
        {"max_tokens": 3, "max_completion_tokens": 300},
        {"max_tokens": 300, "max_completion_tokens": 3},
    ],
)
def test_a_budget_is_never_exceeded_by_one_token(fields: dict[str, Any]) -> None:
    """Callers at once over two processes, on a backend that makes all the tokens that it may."""
    spender = Spender(most=400, prompt=25)
    with fleet([limit("tokens", 2000, "day")], size=2, maxOutputTokens=400) as several:
        several.upstream.behaviour = spender
        answers = several.ask_many(40, callers=8, fields=body(**fields))
        answers += spend_up(lambda: several.ask(body(**fields)), spender, 2000 - 200)
        assert statuses(answers).keys() <= {200, 429}
        last = answers[-1]
        assert code(last) == "budget_exceeded"
        assert last.json()["error"]["type"] == "insufficient_quota"
        assert 0 < int(last.header("retry-after") or "") <= 86_400
        assert spender.tokens <= 2000
        eventually(lambda: several.usage()["input"] + several.usage()["output"] == spender.tokens)


def test_a_budget_of_money_lowers_what_a_backend_may_answer_with() -> None:
    """0.01 USD is 10 tokens of input here; a backend without a price is not asked, and nothing is spent beyond."""
    spender = Spender(most=4000, prompt=5)
    with fleet([limit("cost", "0.5", "month")], size=2) as several:
        several.upstream.behaviour = spender
        answers = several.ask_many(20, callers=6, fields=body(max_tokens=50))
        while (last := several.ask(body(max_tokens=50))).status == 200:
            answers.append(last)
        spent = sum(prompt * 0.001 + output * 0.002 for prompt, output in spender.reported)
        assert 0.3 < spent <= 0.5
        assert code(last) == "budget_exceeded"
        assert max(output for _, output in spender.reported) <= 50


def test_a_backend_without_a_price_is_left_out_under_a_limit_of_cost() -> None:
    """It is dropped from the plan; where nothing else is there, nobody can answer."""
    with fleet([limit("cost", "400", "month")]) as one:
        one.gateways[0].write_registry(
            [
                backend("free", f"{one.upstream.url}/v1"),
                backend("paid", f"{one.upstream.url}/v1", model="paid", price={"inputPerMillion": "1"} | OUTPUT),
                scenario("mixed", "free", "paid"),
                scenario("only-free", "free"),
            ],
            "more.yaml",
        )
        eventually(lambda: one.ask(body("mixed")).status == 200, what="the registry's new scenarios")
        assert {request.model() for request in one.upstream.requests} == {"paid"}
        assert code(one.ask(body("only-free"))) == "no_backend"


def test_a_call_is_admitted_after_the_wait_that_it_was_told() -> None:
    """Of a rate and of a debt of tokens; not before."""
    with fleet([limit("requests", 60, "minute", burst=1)]) as one:
        assert one.ask().status == 200
        refused = one.ask()
        assert refused.status == 429
        time.sleep(int(refused.header("retry-after") or "0"))
        assert one.ask().status == 200
    with fleet([limit("tokens", 100, "second", burst=150)]) as one:
        one.upstream.behaviour = Spender(most=300)
        assert one.ask().status == 200
        refused = one.ask()
        assert (refused.status, code(refused)) == (429, "rate_limit_exceeded")
        time.sleep(int(refused.header("retry-after") or "0"))
        assert one.ask().status == 200


def test_headers_are_those_of_the_tightest_limit_on_every_answer() -> None:
    """Of an answer, of a stream, of a refusal and of a backend's failure; none without limits of that unit."""
    limits = [limit("requests", 100, "hour"), limit("requests", 3, "minute", name="tight"), limit("concurrency", 9)]
    with fleet(limits) as one:
        plain, streamed = one.ask(), one.ask(body(stream=True))
        for answer, left in ((plain, "2"), (streamed, "1")):
            assert [answer.header(name) for name in RATE_NAMES[:2]] == ["3", left]
            assert (answer.header(RATE_NAMES[2]) or "").endswith("s")
            assert answer.header("x-ratelimit-limit-tokens") is None
            assert answer.header("x-llm-gateway-degraded") is None
        one.upstream.refuse()
        one.upstream.close_connections()
        failed = one.ask()
        assert (failed.status, failed.header("x-ratelimit-remaining-requests")) == (502, "0")
        refused = one.ask()
        assert (refused.status, refused.header("x-ratelimit-remaining-requests")) == (429, "0")
        assert int(refused.header("retry-after") or "") >= 1


def test_a_shadow_limit_counts_and_refuses_nobody() -> None:
    """It is seen in a metric of its own; the limits beside it hold."""
    limits = [limit("requests", 2, "hour", mode="shadow"), limit("requests", 5, "hour", name="real")]
    with fleet(limits) as one:
        assert statuses([one.ask() for _ in range(7)]) == {200: 5, 429: 2}
        metrics = one.gateways[0].metrics()
        shadowed = metrics.value("llm_gateway_limit_shadow_rejections_total", tenant="acme", limit="requests-per-hour")
        assert shadowed >= 3
        assert metrics.value("llm_gateway_limit_rejections_total", limit="requests-per-hour") == 0
        assert metrics.value("llm_gateway_limit_rejections_total", limit="real") == 2
        one.gateways[0].wait_for_metric("llm_gateway_limit_utilization_ratio", 1.0, tenant="acme", limit="real")


def test_limits_of_keys_and_of_scenarios_hold_beside_those_of_the_tenant() -> None:
    """Each key has its own, on top of the tenant's; one that names a scenario counts that one's calls only."""
    narrow = new_key()
    documents = [
        scenario("other", "main"),
        api_key("narrow", narrow, limits=[limit("requests", 1, "hour"), limit("requests", 9, "day", scenario="other")]),
    ]
    with fleet(
        [limit("requests", 5, "hour"), limit("requests", 1, "hour", scenario="other")], documents=documents
    ) as one:
        assert statuses([one.ask(key=narrow) for _ in range(3)]) == {200: 1, 429: 2}
        assert statuses([one.ask(body("other")) for _ in range(3)]) == {200: 1, 429: 2}
        assert statuses([one.ask() for _ in range(4)]) == {200: 3, 429: 1}


def test_a_changed_amount_holds_at_once_and_forgets_nothing() -> None:
    """Raised from 3 to 5 with 3 used, 2 are left; lowered, none."""
    with fleet([limit("requests", 3, "day")]) as one:
        assert statuses([one.ask() for _ in range(4)]) == {200: 3, 429: 1}
        one.change_limits([limit("requests", 5, "day")], "raised")
        assert statuses([one.ask() for _ in range(3)]) == {200: 2, 429: 1}
        one.change_limits([limit("requests", 2, "day")], "lowered")
        assert statuses([one.ask() for _ in range(3)]) == {429: 3}


def test_a_first_call_without_a_limit_of_its_own_fits_a_small_rate() -> None:
    """Nothing is known of the scenario yet and the backend could make 4096 tokens: it is admitted all the same."""
    with fleet([limit("tokens", 1000, "minute")]) as one:
        one.upstream.behaviour = Spender(most=20)
        assert one.ask().status == 200
        assert [one.ask().status for _ in range(5)] == [200] * 5


def test_a_fallback_that_is_dearer_is_reserved_for() -> None:
    """The plan's dearest attempt decides, so that a failing cheap backend does not overspend."""
    dear = {"inputPerMillion": "1000", "outputPerMillion": "100000"}
    cheap = backend("cheap", "http://127.0.0.1:9/v1", price={"inputPerMillion": "1"} | OUTPUT)
    spender = Spender(most=4000, prompt=5)
    with fleet([limit("cost", "2", "month")], documents=[cheap]) as one:
        one.gateways[0].write_registry(
            [backend("dear", f"{one.upstream.url}/v1", price=dear), scenario("falls", "cheap", "dear")], "more.yaml"
        )
        one.upstream.behaviour = spender
        eventually(lambda: one.ask(body("falls", max_tokens=10)).status != 404)
        while (last := one.ask(body("falls", max_tokens=10))).status == 200:
            pass
        assert code(last) == "budget_exceeded"
        spent = sum(prompt * 0.001 + output * 0.1 for prompt, output in spender.reported)
        assert 0 < spent <= 2
