"""A kept answer to a similar question: where all else is the same, and the scenario asks for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import admin
from tests.support.cached import OTHER_TENANT, CachedFleet, cached_fleet, result, text
from tests.support.documents import backend, scenario
from tests.support.scripts import Chat, Received, Script, error_reply, json_reply, reply
from tests.support.waiting import eventually

DEGREES = {"How do I pay?": 0.0, "How can I pay?": 10.0, "How may I pay?": 12.0, "Where are you?": 80.0}
"""Questions as directions: the cosine of 10 degrees is 0.985, of 12 degrees 0.978."""


def answer(request: Received) -> Script:
    """Embeddings by ``DEGREES``; chats say what they were asked."""
    if request.target.endswith("/embeddings"):
        turned = math.radians(DEGREES[request.json()["input"]])
        return json_reply({"data": [{"embedding": [math.cos(turned), math.sin(turned)]}], "model": "embed"})
    return Chat(pieces=(f"You asked: {request.json()['messages'][-1]['content']}",))(request)


def chats(fleet: CachedFleet) -> int:
    """How many chats the backend has had."""
    return sum(each.target.endswith("/chat/completions") for each in fleet.upstream.requests)


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[CachedFleet]:
    """Reached through ``both``."""
    with cached_fleet(2, more=documents) as fleet:
        yield fleet


def documents(url: str) -> list[dict[str, Any]]:
    """A scenario ``faq`` that takes answers to similar questions, and ``strict`` that hardly does."""
    embeddings = {"backend": "embed", "timeout": "1s"}
    return [
        backend("embed", f"{url}/v1", model="embed-model"),
        scenario("faq", "main", cache={"mode": "semantic", "embeddings": embeddings, "threshold": 0.98}),
        scenario("strict", "main", cache={"mode": "semantic", "embeddings": embeddings, "threshold": 0.99}),
    ]


@pytest.fixture
def both(two_gateways: CachedFleet) -> CachedFleet:
    """Nothing is kept."""
    fleet = two_gateways
    fleet.upstream.forget()
    fleet.upstream.behaviour = answer
    for tenant in ("acme", OTHER_TENANT):
        admin.post(fleet.gateways[0], "/cache/purge", {"tenant": tenant})
    return fleet


def test_a_similar_question_has_the_answer_on_every_replica(both: CachedFleet) -> None:
    """In both forms, without tokens, with its similarity in a metric; another question is asked."""
    before = both.usage()
    first = both.say(model="faq", text="How do I pay?")
    similar = [
        both.say(at, model="faq", text="How can I pay?", stream=streamed) for at in (0, 1) for streamed in (False, True)
    ]
    other = both.say(model="faq", text="Where are you?")
    assert [result(each) for each in (first, *similar, other)] == ["miss", *["similar"] * 4, "miss"]
    assert {text(each) for each in similar} == {"You asked: How do I pay?"}
    assert all(each.header("age") is not None for each in similar)
    assert chats(both) == 2
    eventually(lambda: (both.usage() - before)["hits"] == 4, what="four hits in the ledger")
    assert (both.usage() - before)["output"] == 6
    assert both.counted("similar") >= 4
    shown = both.gateways[1].metrics()
    assert shown.value("llm_gateway_cache_similarity_count", scenario="faq") == 2
    assert shown.value("llm_gateway_cache_similarity_sum", scenario="faq") == pytest.approx(2 * 0.985, abs=0.01)
    asked = next(each for each in both.upstream.requests if each.target.endswith("/embeddings"))
    assert asked.json() == {"model": "embed-model", "input": "How do I pay?"}


def test_the_threshold_and_all_else_decide(both: CachedFleet) -> None:
    """Less similar, another parameter, another scenario, another tenant, a new answer wanted: the backend is asked."""
    assert result(both.say(model="faq", text="How do I pay?")) == "miss"
    assert result(both.say(model="strict", text="How do I pay?")) == "miss"
    misses = [
        both.say(model="strict", text="How can I pay?"),
        both.say(model="faq", text="How can I pay?", temperature=0.5),
        both.say(model="faq", text="How can I pay?", key=both.other_key),
    ]
    assert [result(each) for each in misses] == ["miss"] * 3
    assert {text(each) for each in misses} == {"You asked: How can I pay?"}
    assert result(both.say(model="faq", text="How can I pay?", headers={"cache-control": "no-cache"})) == "refresh"
    assert result(both.say(model="faq", text="How may I pay?")) == "similar"
    admin.post(both.gateways[0], "/cache/purge", {"tenant": "acme", "scenario": "faq"})
    assert result(both.say(1, model="faq", text="How may I pay?")) == "miss"


@pytest.mark.parametrize(
    "broken",
    [
        error_reply(500),
        error_reply(404),
        json_reply({"data": []}),
        json_reply({"data": [{"embedding": []}]}),
        reply(body=b"x" * 2_000_000),
    ],
    ids=["500", "404", "none", "empty", "large"],
)
def test_without_an_embedding_it_is_a_miss(both: CachedFleet, broken: Script) -> None:
    """And the same question still has its answer."""
    both.upstream.behaviour = lambda request: broken if request.target.endswith("/embeddings") else answer(request)
    answers = [both.say(model="faq", text=asked) for asked in ("How do I pay?", "How can I pay?", "How do I pay?")]
    assert [(each.status, result(each)) for each in answers] == [(200, "miss"), (200, "miss"), (200, "hit")]
