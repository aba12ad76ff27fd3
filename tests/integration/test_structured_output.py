"""Scenarios that promise answers of a schema: how they are asked for, judged, asked for again, counted and charged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.support.client import Response, request_bytes
from tests.support.documents import Document, api_key, backend, new_key, scenario, tenant
from tests.support.limited import PATH, PRICE, Fleet, body, code, fleet, limit
from tests.support.scripts import Chat, Gate, Hang, Script, Tokens, error_reply
from tests.support.waiting import eventually

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
GOOD = Chat(pieces=('{"city":', '"Oslo"}'), usage=Tokens(prompt=10, completion=3))
BAD = Chat(pieces=("It is ", "Oslo."), usage=Tokens(prompt=10, completion=5))
FREE = new_key()
QUEUED = "llm_gateway_backend_queued_requests"
CHECKS = "llm_gateway_answer_checks_total"


def documents() -> list[Document]:
    """Scenarios with a schema; each under a name of its own, so that each test counts alone."""
    promised: dict[str, Any] = {"answer": {"schema": SCHEMA}}
    retried: dict[str, Any] = {"answer": {"schema": SCHEMA, "retry": True}}
    strict: dict[str, Any] = {"answer": {"schema": SCHEMA, "strict": True}}
    names = ("again", "again-bad", "again-down", "left", "budget")
    return [
        tenant("free"),
        api_key("free-key", FREE, "free"),
        scenario("once", "main", **promised),
        scenario("streamed", "main", **retried),
        scenario("strict.v1", "main", **strict),
        scenario("long", "main", **promised),
        *(scenario(name, "main", **retried) for name in names),
    ]


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    """One gateway with a Valkey, its tenant with a budget; text of at most 1000 bytes is looked at."""
    limits = [limit("tokens", 1_000_000, "day"), limit("tokens", 2_500, "day", scenario="budget")]
    env = {"LLM_GATEWAY_ANSWER_CHECK_MAX_BYTES": "1024"}
    with fleet(limits, env=env, documents=documents(), maxOutputTokens=1000) as found:
        url = f"{found.upstream.url}/v1"
        further = [
            backend("old", url, unsupportedFields=["response_format"]),
            scenario("old", "old", answer={"schema": SCHEMA}),
            backend("narrow", url, maxConcurrentRequests=1, queue={}, price=PRICE),
            scenario("waits", "narrow", answer={"schema": SCHEMA, "retry": True}),
            scenario("waits-shared", "narrow", answer={"schema": SCHEMA, "retry": True}, cache={"mode": "exact"}),
            scenario("narrow", "narrow"),
            scenario("shared", "main", answer={"schema": SCHEMA}, cache={"mode": "exact"}),
        ]
        found.gateways[0].write_registry(further, "further.yaml")
        found.gateways[0].wait_for_metric("llm_gateway_registry_generation", 2)
        yield found


@pytest.fixture
def one(running: Fleet) -> Fleet:
    """The gateway, its upstream as new."""
    running.upstream.forget()
    return running


def checked(one: Fleet, name: str, result: str) -> float:
    """How often an answer of a scenario was counted so."""
    scrape = one.gateways[0].metrics()
    return scrape.value(CHECKS, scenario=name, result=result) if scrape.has(CHECKS, scenario=name, result=result) else 0


def text_of(answer: Response) -> str:
    """The text of a whole answer."""
    return str(answer.json()["choices"][0]["message"]["content"])


def test_the_schema_is_asked_for(one: Fleet) -> None:
    """As response_format, unless the caller asks for a form itself or the backend does not take the field."""
    one.upstream.behaviour = GOOD
    assert one.ask(body("strict.v1")).header("x-llm-gateway-answer") == "valid"
    own = {"type": "json_object"}
    assert one.ask(body("strict.v1", response_format=own)).status == 200
    assert one.ask(body("old")).header("x-llm-gateway-answer") == "valid"
    asked, theirs, without = (request.json() for request in one.upstream.requests)
    wanted = {"name": "strict_v1", "schema": SCHEMA, "strict": True}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": wanted}
    assert theirs["response_format"] == own
    assert "response_format" not in without


def test_an_answer_that_does_not_conform_is_told_and_counted(one: Fleet) -> None:
    """Without retry the caller gets it with a header that says so; other scenarios have no such header."""
    one.upstream.behaviour = BAD
    answer = one.ask(body("once"))
    assert (answer.status, text_of(answer)) == (200, "It is Oslo.")
    assert answer.header("x-llm-gateway-answer") == "invalid"
    assert checked(one, "once", "invalid") == 1
    assert len(one.upstream.requests) == 1
    assert one.ask(body("chat")).header("x-llm-gateway-answer") is None


def test_an_answer_is_asked_for_again(one: Fleet) -> None:
    """The second one is what the caller gets; the use of both is charged and shown by the metrics and the log."""
    before = one.usage()
    one.upstream.enqueue(BAD, GOOD)
    answer = one.ask(body("again"))
    assert (text_of(answer), answer.header("x-llm-gateway-answer")) == ('{"city":"Oslo"}', "valid")
    first, second = (request.json() for request in one.upstream.requests)
    assert first == second
    assert checked(one, "again", "valid_after_retry") == 1
    eventually(lambda: (one.usage() - before) == {"requests": 1, "input": 20, "output": 8, "cost": 36_000_000})
    line = one.gateways[0].wait_for_log(lambda found: found.get("scenario") == "again")
    assert (line["tokens"]["input"], line["tokens"]["output"]) == (20, 8)
    assert len(line["attempts"]) == 2


def test_a_second_answer_that_does_not_conform_is_told(one: Fleet) -> None:
    """It is asked for once more, not for ever; what does not report its use is estimated, of both answers."""
    one.upstream.behaviour = Chat(pieces=("x" * 40,), usage=None)
    before = one.usage()
    answer = one.ask(body("again-bad"))
    assert (answer.status, answer.header("x-llm-gateway-answer")) == (200, "invalid")
    assert len(one.upstream.requests) == 2
    assert checked(one, "again-bad", "invalid_after_retry") == 1
    eventually(lambda: (one.usage() - before)["output"] == 20)
    assert (one.usage() - before)["estimated"] == 1


@pytest.mark.parametrize("failure", [error_reply(500), error_reply(400)], ids=["failed", "refused"])
def test_an_answer_is_better_than_none(one: Fleet, failure: Any) -> None:
    """Where no second answer is to be had, the caller gets the first with its header, and is charged for it alone."""
    before, counted = one.usage(), checked(one, "again-down", "invalid_after_retry")
    one.upstream.enqueue(BAD, failure)
    answer = one.ask(body("again-down"))
    assert (answer.status, text_of(answer)) == (200, "It is Oslo.")
    assert answer.header("x-llm-gateway-answer") == "invalid"
    assert checked(one, "again-down", "invalid_after_retry") == counted + 1
    eventually(lambda: (one.usage() - before) == {"requests": 1, "input": 10, "output": 5, "cost": 20_000_000})


def test_streams_are_judged_at_their_end(one: Fleet) -> None:
    """Byte for byte what the backend said, counted, never asked for again."""
    for behaviour, result in ((GOOD, "valid"), (BAD, "invalid")):
        one.upstream.forget()
        one.upstream.behaviour = behaviour
        answer = one.ask(body("streamed", stream=True))
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert answer.header("x-llm-gateway-answer") is None
        eventually(lambda result=result: checked(one, "streamed", result) == 1)  # type: ignore[misc]
        assert len(one.upstream.requests) == 1


def test_streams_that_are_shared_are_judged_at_their_end(one: Fleet) -> None:
    """By what the backend said, however far those who read it are: one that is said at once, too."""
    one.upstream.behaviour = GOOD
    for number in range(8):
        assert one.ask(body("shared", f"{number}", stream=True)).header("x-llm-gateway-cache") == "miss"
    eventually(lambda: checked(one, "shared", "valid") == 8)


def test_long_answers_are_not_judged(one: Fleet) -> None:
    """Text beyond the bound of the settings passes as it is, whole and streamed, and is counted as unchecked."""
    long = json.dumps({"city": "x" * 2000})
    one.upstream.behaviour = Chat(pieces=(long[:1000], long[1000:]))
    assert one.ask(body("long")).header("x-llm-gateway-answer") == "unchecked"
    assert one.ask(body("long", stream=True)).status == 200
    eventually(lambda: checked(one, "long", "unchecked") == 2)


def test_a_client_that_leaves_while_it_is_asked_again(one: Fleet) -> None:
    """The reservation of both stays charged, as for any plain call that is left while the backend works; where nothing
    was reserved, what the first one used.
    """
    before = one.usage()
    for key in (one.key, FREE):
        one.upstream.forget()
        one.upstream.enqueue(BAD, Script((Hang(),)))
        with one.gateways[0].client() as client:
            client.send(request_bytes(PATH, body("left"), key=key))
            one.upstream.wait_for_requests(2)
        one.upstream.wait_for_disconnect()
    eventually(lambda: (one.usage() - before)["requests"] == 1)
    assert (one.usage() - before)["estimated"] == 1
    eventually(lambda: one.usage("free") == {"requests": 1, "input": 10, "output": 5, "cost": 20_000_000})


@pytest.mark.parametrize("name", ["waits", "waits-shared"])
@pytest.mark.parametrize("of", ["acme", "free"])
def test_a_client_that_leaves_while_the_second_call_waits(one: Fleet, name: str, of: str) -> None:
    """What the first answer used is charged, with and without limits and a cache: no backend works on the second."""
    gateway, gate = one.gateways[0], Gate()
    mine, other, of_other = (one.key, FREE, "free") if of == "acme" else (FREE, one.key, "acme")
    before, before_other = one.usage(of), one.usage(of_other)
    one.upstream.enqueue(lambda request: Script((gate, *BAD(request).steps)), Script((Hang(),)))
    with gateway.client() as next_one:
        with gateway.client() as client:
            client.send(request_bytes(PATH, body(name), key=mine))
            gate.wait_reached()
            next_one.send(request_bytes(PATH, body("narrow"), key=other))
            gateway.wait_for_metric(QUEUED, 1, backend="narrow")
            gate.open()  # the place goes to the one who waits, and the second call of this one waits behind it
            one.upstream.wait_for_requests(2)
            gateway.wait_for_metric(QUEUED, 1, backend="narrow")
        gateway.wait_for_metric(QUEUED, 0, backend="narrow")
        eventually(lambda: (one.usage(of) - before)["requests"] == 1, what="the end of the call in the ledger")
        assert one.usage(of) - before == {"requests": 1, "input": 10, "output": 5, "cost": 20_000_000}
    eventually(lambda: (one.usage(of_other) - before_other)["requests"] == 1, what="the other's in the ledger")


def test_limits_reserve_for_both(one: Fleet) -> None:
    """A budget that has room for one answer and not for two lowers the output of both, and never is exceeded."""
    one.upstream.behaviour = lambda request: Chat(
        pieces=("no JSON",), usage=Tokens(prompt=10, completion=request.json()["max_tokens"])
    )(request)
    answer = one.ask(body("budget"))
    assert answer.status == 200
    first, second = (request.json()["max_tokens"] for request in one.upstream.requests)
    assert first == second
    assert 2 * (first + 10) <= 2_500
    while (refused := one.ask(body("budget"))).status == 200:
        assert len(one.upstream.requests) < 50
    assert (refused.status, code(refused)) == (429, "budget_exceeded")
    spent = sum(request.json()["max_tokens"] + 10 for request in one.upstream.requests)
    assert spent <= 2_500


def test_the_official_client_parses_the_answer(one: Fleet) -> None:
    """What comes through a call by name is what the schema promises, and the list tells of the schema."""
    one.upstream.behaviour = GOOD
    base = f"{one.gateways[0].base_url}/v1"
    with OpenAI(base_url=base, api_key=one.key, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="once", messages=[{"role": "user", "content": "Where?"}]
        )
    assert raw.headers["x-llm-gateway-answer"] == "valid"
    assert json.loads(raw.parse().choices[0].message.content or "") == {"city": "Oslo"}
    with one.gateways[0].client() as connection:
        card = connection.request("/v1/scenarios/once", key=one.key).json()
        assert card["answer"] == SCHEMA
        called = connection.request("/v1/scenarios/again", {"input": "Where?"}, key=one.key)
    assert called.header("x-llm-gateway-answer") == "valid"
