"""Kept answers: who gets them, in which form, at what charge, and until when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import admin
from tests.support.cached import OTHER_TENANT, CachedFleet, cached_fleet, result, text
from tests.support.documents import Document, api_key, backend, new_key, scenario
from tests.support.gateway import ROOT
from tests.support.limited import body
from tests.support.openai_api import KINDS, Api, text_of
from tests.support.scripts import Chat, Script, error_reply, event, json_reply, stream
from tests.support.surface import MESSAGES
from tests.support.waiting import eventually


def completion(**choice: Any) -> Script:
    """A whole answer whose only choice is like this."""
    complete = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return json_reply({"id": "x", "choices": [complete | choice]})


@pytest.fixture(scope="module")
def shared_pair_of_gateways() -> Iterator[CachedFleet]:
    """Two gateways for all tests of this module; reached through ``both``."""
    with cached_fleet(2) as fleet:
        yield fleet


@pytest.fixture
def both(shared_pair_of_gateways: CachedFleet) -> CachedFleet:
    """Nothing is kept and nothing was asked."""
    fleet = shared_pair_of_gateways
    fleet.upstream.forget()
    for tenant in ("acme", OTHER_TENANT):
        admin.post(fleet.gateways[0], "/cache/purge", {"tenant": tenant})
    return fleet


@pytest.mark.parametrize("first", [False, True], ids=["whole", "stream"])
def test_an_answer_serves_every_replica_and_both_forms(both: CachedFleet, first: bool) -> None:
    """Whichever way it came: one call of the backend, the same text, the usage where it is asked for."""
    answers = [both.say(0, stream=first)]
    answers += [both.say(at, stream=streamed) for at in (0, 1) for streamed in (False, True)]
    answers.append(both.say(1, stream=True, stream_options={"include_usage": True}))
    assert [result(each) for each in answers] == ["miss"] + ["hit"] * 5
    assert {text(each) for each in answers} == {"Hello from upstream"}
    assert both.calls() == 1
    assert [each.header("age") is None for each in answers] == [True] + [False] * 5
    assert answers[1].json()["usage"]["completion_tokens"] == 3
    assert b'"usage":{' not in answers[2].body
    assert b'"completion_tokens":3' in answers[-1].body
    assert answers[2].header("content-type") == "text/event-stream"


@pytest.mark.parametrize("kind", KINDS)
def test_the_official_client_takes_hits(both: CachedFleet, kind: Any) -> None:
    """Whole and streamed, with usage."""
    api = Api(kind, both.gateways[0])
    whole = [api.raw(model="chat", messages=MESSAGES) for _ in range(2)]
    assert [each.headers["x-llm-gateway-cache"] for each in whole] == ["miss", "hit"]
    assert whole[0].completion == whole[1].completion
    chunks = api.stream(model="chat", messages=MESSAGES, stream_options={"include_usage": True})
    assert text_of(chunks) == whole[0].completion.choices[0].message.content
    assert chunks[-1].usage == whole[0].completion.usage
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert both.calls() == 1


def test_a_hit_is_a_request_without_tokens(both: CachedFleet) -> None:
    """In the ledger, in the metrics and in the log line; its usage is that of the answer all the same."""
    one = both.gateways[0]
    before, tokens = both.usage(), one.metrics().value("llm_gateway_tokens_total")
    hits = both.counted("hit")
    answers = [both.say() for _ in range(3)]
    assert answers[0].json() == answers[2].json()
    eventually(lambda: (both.usage() - before)["requests"] == 3, what="three calls in the ledger")
    used = both.usage() - before
    assert (used["input"], used["output"], used["hits"]) == (11, 3, 2)
    assert one.metrics().value("llm_gateway_tokens_total") == tokens + 14
    assert both.counted("hit") == hits + 2
    line = one.wait_for_log(lambda line: line.get("request_id") == answers[1].header("x-request-id"))
    assert (line["cache"], line["tokens"], line["backend"], line["attempts"]) == ("hit", None, "", [])
    with one.client() as client:
        usage = client.request("/v1/usage", key=both.key).json()["total"]
    assert usage["cached_requests"] >= 2


def test_two_tenants_share_nothing(both: CachedFleet) -> None:
    """The same question, each answered by the backend."""
    answers = [both.say(key=key, stream=streamed) for key in (both.key, both.other_key) for streamed in (False, True)]
    assert [result(each) for each in answers] == ["miss", "hit", "miss", "hit"]
    assert both.calls() == 2


def test_the_same_bytes_of_two_tenants_share_nothing_however_often(both: CachedFleet) -> None:
    """Once answered from memory, each goes on to get the answer that was made for it, in the form that it asks for."""
    told = {both.key: "for acme", both.other_key: "for beta"}
    for key, words in told.items():
        both.upstream.behaviour = Chat(pieces=(words,))
        assert text(both.say(key=key)) == words
    for round_ in range(4):
        for key, words in told.items():
            for streamed in (False, True):
                answer = both.say(key=key, stream=streamed)
                assert (result(answer), text(answer)) == ("hit", words), round_
            with both.gateways[0].client() as client:
                answer = client.request("/v1/chat/completions", spaced(), key=key)
            assert (result(answer), text(answer)) == ("hit", words), round_
    assert both.calls() == 2


def spaced() -> bytes:
    """The same question, written with other bytes."""
    return json.dumps(body(), indent=1).encode()


def test_a_scenario_without_a_cache_has_nothing_of_it(both: CachedFleet) -> None:
    """No header, no series, no entry."""
    answers = [both.say(model="plain") for _ in range(2)]
    assert [result(each) for each in answers] == [None, None]
    assert both.calls() == 2
    assert both.gateways[0].metrics().value("llm_gateway_cache_requests_total", scenario="plain") == 0


def test_the_simple_endpoints_use_it_too(both: CachedFleet) -> None:
    """Their answers are chat completions inside."""
    with both.gateways[0].client() as client:
        answers = [client.request("/generate", {"model": "chat", "prompt": "hi"}, key=both.key) for _ in range(2)]
    assert [result(each) for each in answers] == ["miss", "hit"]
    assert {each.json()["generated_text"] for each in answers} == {"Hello from upstream"}
    assert both.calls() == 1


def test_what_the_caller_says_of_kept_answers_holds(both: CachedFleet) -> None:
    """``no-store`` leaves no trace, ``no-cache`` brings a new answer that replaces the old."""
    no_store, no_cache = {"cache-control": "no-store"}, {"cache-control": "no-cache"}
    assert [result(both.say(headers=no_store)) for _ in range(2)] == ["bypass", "bypass"]
    assert result(both.say()) == "miss"
    both.upstream.behaviour = Chat(pieces=("new",))
    assert text(both.say()) == "Hello from upstream"
    fresh = both.say(headers=no_cache)
    assert (result(fresh), text(fresh)) == ("refresh", "new")
    again = both.say(1)
    assert (result(again), text(again)) == ("hit", "new")
    assert result(both.say(n=2)) == "bypass"


@pytest.mark.parametrize(
    "answer",
    [
        completion(finish_reason="length"),
        completion(finish_reason="content_filter"),
        completion(message={"role": "assistant", "content": "", "tool_calls": [{"id": "t"}]}),
        completion(message={"role": "assistant", "content": "x" * 1_100_000}),
        error_reply(400),
        error_reply(500),
        error_reply(429),
    ],
    ids=["length", "filter", "tools", "large", "400", "500", "429"],
)
def test_what_is_no_complete_plain_answer_is_not_kept(both: CachedFleet, answer: Script) -> None:
    """It is the business of the call that it came to."""
    both.upstream.enqueue(answer)
    both.say()
    second = both.say()
    assert (result(second), text(second)) == ("miss", "Hello from upstream")


def test_a_stream_that_broke_off_is_not_kept(both: CachedFleet) -> None:
    """Nor one without its end."""
    events = [each for each in Chat().events("m") if b"DONE" not in each]
    both.upstream.enqueue(stream(events), stream([*events[:2], event({"error": {"message": "no"}})], delay_s=0.05))
    assert [result(both.say(stream=True)) for _ in range(4)] == ["miss", "miss", "miss", "hit"]


def test_a_purge_holds_everywhere_at_once(both: CachedFleet) -> None:
    """Of one scenario or all of a tenant's, by the command line; the other tenant's answers stay; it is audited."""

    def results(key: str) -> list[str | None]:
        return [result(both.say(at, key=key, model=model)) for at, model in enumerate(("chat", "second"))]

    for key in (both.key, both.other_key):
        assert results(key) == ["miss", "miss"]
    purge(both, "--tenant", "acme", "--scenario", "chat")
    assert results(both.key) == ["miss", "hit"]
    purge(both, "--tenant", "acme")
    assert results(both.key) == ["miss", "miss"]
    assert results(both.other_key) == ["hit", "hit"]
    wanted = "admin cache.purge tenant=acme scenario=chat"
    both.gateways[0].wait_for_log(lambda line: line.get("message") == wanted)
    refused = [{"tenant": "nobody"}, {"tenant": "acme", "scenario": "nothing"}]
    codes = [admin.error(admin.call(both.gateways[0], "POST", "/cache/purge", each)) for each in refused]
    assert codes == [(404, "tenant_not_found"), (404, "scenario_not_found")]
    for field in ("tenant", "scenario"):  # half a surrogate pair is no text, and no fault of the gateway
        wrong = admin.call(both.gateways[0], "POST", "/cache/purge", {"tenant": "acme", field: "\ud800"})
        assert (wrong.status, wrong.json()["error"]["param"]) == (400, field)
    read_only = admin.call(both.gateways[0], "POST", "/cache/purge", {"tenant": "acme"}, token=admin.READ_TOKEN)
    assert read_only.status == 403


def purge(fleet: CachedFleet, *args: str) -> None:
    """Run the command."""
    url = fleet.gateways[0].management_url
    command = [sys.executable, "-m", "gateway.cli", "cache", "purge", "--url", url, *args]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **admin.ADMIN_ENV}
    done = subprocess.run(command, env=env, cwd=fleet.gateways[0].folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_changed_scenario_finds_nothing_of_before() -> None:
    """Nor does a shorter time find what is older than it; a changed description changes nothing."""
    with cached_fleet(cache={"ttl": "1h"}) as one:
        gateway = one.gateways[0]
        held = one.documents
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        for change, expected in (
            ({"description": "Better"}, "hit"),
            ({"parameters": {"defaults": {"seed": 1}}}, "miss"),
            ({"cache": {"mode": "exact", "ttl": "1ms"}}, "miss"),
            ({"cache": {"mode": "none"}}, None),
        ):
            held[1]["spec"] |= change
            generation = gateway.metrics().value("llm_gateway_registry_generation")
            gateway.write_registry(held)
            gateway.wait_for_metric("llm_gateway_registry_generation", generation + 1)
            assert result(one.say()) == expected, change


def test_an_answer_expires() -> None:
    """After the scenario's time."""
    with cached_fleet(cache={"ttl": "300ms"}) as one:
        assert result(one.say()) == "miss"
        eventually(lambda: result(one.say()) == "miss" and one.calls() == 2, what="a second call")


def test_who_may_ask_no_backend_gets_no_kept_answer() -> None:
    """A key with a limit of cost, where no backend has a price: refused without a look, without a copy for a shadow."""
    poor = new_key()
    limits = [{"unit": "requests", "per": "minute", "amount": 2}, {"unit": "cost", "per": "month", "amount": "1"}]
    shadow = {"percent": 100, "override": {"targets": [{"backend": "main"}]}}

    def more(url: str) -> list[Document]:
        return [
            backend("unpriced", f"{url}/v1", model="other"),
            scenario("free", "unpriced", cache={"mode": "exact"}, shadow=shadow),
            api_key("poor-key", poor, limits=limits),
        ]

    with cached_fleet(more=more) as one:
        refused = [one.say(model="free", key=poor, headers={"x-request-id": "refused"})]
        assert [result(one.say(model="free", headers={"x-request-id": "served"})) for _ in range(2)] == ["miss", "hit"]
        refused += [one.say(model="free", key=poor, headers={"x-request-id": "refused"}) for _ in range(3)]
        assert [(each.status, result(each)) for each in refused] == [(503, None)] * 4
        assert {each.json()["error"]["code"] for each in refused} == {"no_backend"}
        assert result(one.say(model="free", headers={"x-request-id": "last"})) == "hit"
        gateway = one.gateways[0]
        gateway.wait_for_log(lambda line: line["event"] == "shadow" and line["request_id"] == "last")
        assert not [line for line in gateway.logs() if line["event"] == "shadow" and line["request_id"] == "refused"]


def test_what_is_asked_again_at_once_costs_no_look() -> None:
    """A worker answers for a moment without Redis, older by the moment; a purge holds when it is over."""
    with cached_fleet(env={"LLM_GATEWAY_CACHE_LOCAL_S": "2s"}) as one:
        assert [result(one.say()) for _ in range(2)] == ["miss", "hit"]
        before = looks(one)
        answers = [one.say(stream=streamed) for streamed in (False, True, False)]
        assert [result(each) for each in answers] == ["hit"] * 3
        assert {text(each) for each in answers} == {"Hello from upstream"}
        assert looks(one) == before
        admin.post(one.gateways[0], "/cache/purge", {"tenant": "acme"})
        eventually(lambda: result(one.say()) == "miss", 10, what="the end of what was held", every_s=0.1)
        one.upstream.behaviour = Chat(pieces=("new",))
        assert result(one.say(headers={"cache-control": "no-cache"})) == "refresh"
        assert text(one.say()) == "new"


def looks(fleet: CachedFleet) -> int:
    """How many scripts the server has run that were no settlements: it counts calls of GET, which only looks make."""
    found = [line for line in fleet.command("INFO", "commandstats").split("\r\n") if line.startswith("cmdstat_get:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0
