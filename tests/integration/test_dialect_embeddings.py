"""``POST /v1/embeddings`` as OpenAI's client uses it: forms, batches, limits, metering, cache and faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.client import Response
from tests.support.operations import Operating, operating, vector
from tests.support.scripts import error_reply, json_reply, reply

LIMITS = {
    "few": [{"unit": "inputTokens", "per": "day", "amount": 150, "name": "small"}],
    "poor": [{"unit": "cost", "per": "month", "amount": "0.05", "name": "purse"}],
    "once": [{"unit": "requests", "per": "hour", "amount": 1, "name": "once"}],
}


@pytest.fixture(scope="module")
def running() -> Iterator[Operating]:
    """One gateway for all."""
    with operating(**LIMITS) as found:  # type: ignore[arg-type]
        yield found


@pytest.fixture
def api(running: Operating) -> Iterator[Operating]:
    """It, with upstreams as new; nothing is left of a test."""
    running.upstream.forget()
    running.other.forget()
    yield running
    running.gateway.assert_nothing_in_flight()


def post(api: Operating, body: dict[str, Any], path: str = "/v1/embeddings", key: str = "") -> Response:
    """A request without a client's help."""
    with api.gateway.client() as client:
        return client.request(path, body, key=key or api.gateway.key, headers={"connection": "close"})


def test_a_text_has_its_vector(api: Operating) -> None:
    """The client asks for base64 by itself and gives numbers; the backend is asked for its own model."""
    answer = api.client("embeddings-0001").embeddings.create(model="all", input="Hello", user="u1")
    assert answer.data[0].embedding == vector("Hello")
    assert answer.usage.prompt_tokens == 10
    [request] = api.upstream.requests
    assert request.target == "/v1/embeddings"
    assert request.json() == {"model": "upstream-model", "input": "Hello", "user": "u1", "encoding_format": "base64"}


@pytest.mark.parametrize("given", [["a", "bb"], [1, 2, 3], [[1, 2], [3]]])
def test_every_form_of_input_passes(api: Operating, given: list[object]) -> None:
    """Texts, tokens, and several of either, with numbers in the answer and fewer dimensions."""
    answer = api.client().embeddings.create(
        model="all",
        input=given,  # type: ignore[arg-type]
        encoding_format="float",
        dimensions=3,
    )
    inputs = [given] if isinstance(given[0], int) else given
    assert {each.index: each.embedding for each in answer.data} == {i: vector(each) for i, each in enumerate(inputs)}
    assert api.asked()[0]["input"] == given
    assert api.asked()[0]["dimensions"] == 3


def test_azure_is_called_at_the_deployment(api: Operating) -> None:
    """With the version of the API."""
    api.client().embeddings.create(model="azure", input="x")
    assert api.upstream.requests[0].target == "/openai/deployments/emb/embeddings?api-version=2024-10-21"


def test_what_was_used_is_counted(api: Operating) -> None:
    """In the log, in the metrics of GenAI under their name for it, in the tenant's usage, and with its price."""
    before = api.gateway.metrics()
    labels = {"gen_ai_operation_name": "embeddings", "gen_ai_request_model": "all", "gen_ai_token_type": "input"}
    api.client("embeddings-0002").embeddings.create(model="all", input=["a", "b"])
    line = api.log_of("embeddings-0002")
    assert line["tokens"] == {"input": 20, "cached": 0, "output": 0, "estimated": False}
    assert line["cost_usd"] == "0.020000000"
    assert line["provider"] == "openai"
    name = "gen_ai_client_token_usage"
    api.gateway.wait_for_metric(f"{name}_sum", before.value(f"{name}_sum", **labels) + 20, 5.0, **labels)
    spent = before.value("llm_gateway_tokens_total", tenant="acme", scenario="all", type="input")
    api.gateway.wait_for_metric("llm_gateway_tokens_total", spent + 20, tenant="acme", scenario="all", type="input")


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_large_batch_is_split_and_joined(api: Operating, encoding: str) -> None:
    """Five inputs of which the backend takes two at once are three calls; the answer is as if it was one."""
    texts = ["a", 'b","x', "[c]", "dddd", "\u00e9\\"]
    answer = api.client("embeddings-" + encoding).embeddings.create(
        model="batched",
        input=texts,
        encoding_format=encoding,  # type: ignore[arg-type]
    )
    assert [each.index for each in answer.data] == [0, 1, 2, 3, 4]
    assert sorted(len(each["input"]) for each in api.asked()) == [1, 2, 2]
    assert sorted(text for each in api.asked() for text in each["input"]) == sorted(texts)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 50
    if encoding == "float":
        assert [each.embedding for each in answer.data] == [vector(text) for text in texts]
    assert api.log_of("embeddings-" + encoding)["tokens"]["input"] == 50
    assert len(api.log_of("embeddings-" + encoding)["attempts"]) == 1


def test_arrays_of_tokens_are_split_too(api: Operating) -> None:
    """And one array of tokens is one input, however long."""
    answer = api.client().embeddings.create(model="batched", input=[[1], [2, 3], [4]], encoding_format="float")
    assert [each.embedding for each in answer.data] == [vector(each) for each in ([1], [2, 3], [4])]
    api.upstream.forget()
    api.client().embeddings.create(model="batched", input=list(range(50)))
    assert len(api.upstream.requests) == 1


def test_a_part_that_is_refused_refuses_all(api: Operating) -> None:
    """The caller reads the backend's words; the other parts are not waited for, nor charged."""
    api.upstream.enqueue(error_reply(400, "part is bad"))
    with pytest.raises(openai.BadRequestError, match="part is bad"):
        api.client("embeddings-0003").embeddings.create(model="batched", input=list("abcdefgh"))
    assert api.log_of("embeddings-0003")["tokens"] is None


def test_parts_that_mix_texts_and_tokens_are_refused(api: Operating) -> None:
    """By the name of the field."""
    answer = post(api, {"model": "batched", "input": ["a", [1], "b"]})
    assert answer.status == 200  # as the backend takes it: three items, whatever they are
    answer = post(api, {"model": "batched", "input": ["a", 1, "b"]})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "input")


def test_another_backend_is_tried(api: Operating) -> None:
    """Before anything of an answer has come; what is none is a failure, too."""
    api.other.enqueue(error_reply(500), json_reply({"object": "list"}), reply(body=b"{}"), error_reply(429))
    for _ in range(4):
        answer = api.client().embeddings.create(model="safe", input="x", encoding_format="float")
        assert answer.data[0].embedding == vector("x")
    outcomes = ("server_error", "protocol_error", "rate_limited")
    counted = [
        api.gateway.metrics().value("llm_gateway_upstream_attempts_total", backend="other", outcome=each)
        for each in outcomes
    ]
    assert counted == [1, 2, 1]


def test_an_error_in_a_200_is_none(api: Operating) -> None:
    """As on the chat endpoint."""
    api.upstream.enqueue(json_reply({"error": {"message": "out of memory at 10.0.0.7"}}))
    with pytest.raises(openai.InternalServerError) as caught:
        api.client().embeddings.create(model="all", input="x")
    assert caught.value.status_code == 502
    assert "10.0.0.7" not in str(caught.value)


def test_a_budget_of_input_holds(api: Operating) -> None:
    """Each byte is reserved as a token at most; what was reported is charged, and the next call sees it."""
    key = "key-of-tenant-few"
    answer = post(api, {"model": "all", "input": "x"}, key=key)
    assert answer.status == 200
    refused = post(api, {"model": "all", "input": "x" * 200}, key=key)
    assert refused.status == 429
    assert refused.json()["error"]["code"] == "budget_exceeded"
    api.gateway.wait_for_log(lambda line: line.get("tenant") == "few" and line["status"] == 200)


def test_a_budget_of_money_holds(api: Operating) -> None:
    """No output is reserved: an answer has none. Images may have a thousand tokens of it, and so find no room."""
    key = "key-of-tenant-poor"
    assert post(api, {"model": "all", "input": "x"}, key=key).status == 200
    refused = post(api, {"model": "all", "prompt": "x"}, path="/v1/images/generations", key=key)
    assert (refused.status, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    assert len(api.upstream.requests) == 1
    used = post_usage(api, key)
    assert used["input_tokens"] == 10


def post_usage(api: Operating, key: str) -> dict[str, int]:
    """The usage that a tenant reads of itself."""
    with api.gateway.client() as client:
        answer = client.request("/v1/usage", method="GET", key=key, headers={"connection": "close"})
    assert answer.status == 200, answer
    total: dict[str, int] = answer.json()["total"]
    return total


def test_a_limit_of_requests_tells_what_is_left(api: Operating) -> None:
    """In the headers of the answer, and of the refusal."""
    first = post(api, {"model": "all", "input": "x"}, key="key-of-tenant-once")
    assert (first.status, first.header("x-ratelimit-remaining-requests")) == (200, "0")
    second = post(api, {"model": "all", "input": "x"}, key="key-of-tenant-once")
    assert second.status == 429
    assert int(second.header("retry-after") or 0) > 0


def test_a_cached_scenario_answers_again(api: Operating) -> None:
    """Without the backend and without tokens; other inputs and other operations are other questions."""
    asked = {"model": "cached", "input": "once"}
    answers = [post(api, asked) for _ in range(2)]
    assert [each.header("x-llm-gateway-cache") for each in answers] == ["miss", "hit"]
    assert answers[0].body == answers[1].body
    assert len(api.upstream.requests) == 1
    assert post(api, asked | {"dimensions": 2}).header("x-llm-gateway-cache") == "miss"
    moderated = [post(api, asked, path="/v1/moderations") for _ in range(2)]
    assert [each.header("x-llm-gateway-cache") for each in moderated] == ["bypass", "bypass"]


def test_the_rules_of_a_scenario_hold(api: Operating) -> None:
    """Fields that it denies, sets or gives where the request is silent."""
    api.upstream.behaviour = lambda _: json_reply({"object": "list", "data": [], "model": "m"})
    answer = post(api, {"model": "ruled", "input": "x", "user": "me"})
    assert answer.status == 200
    assert api.asked() == [{"model": "upstream-model", "input": "x", "user": "us", "x": 1}]
    denied = post(api, {"model": "ruled", "input": "x", "dimensions": 2})
    assert (denied.status, denied.json()["error"]["param"]) == (400, "dimensions")


def test_usage_that_is_not_reported_is_estimated(api: Operating) -> None:
    """From the bytes of the input, or its tokens."""
    api.upstream.behaviour = lambda _: json_reply({"object": "list", "data": [], "model": "m"})
    for name, given, tokens in (("text", "x" * 38, 10), ("tokens", [1, 2, 3, 4, 5], 5)):
        api.client(f"embeddings-{name}").embeddings.create(
            model="all",
            input=given,
            encoding_format="float",
        )
        assert api.log_of(f"embeddings-{name}")["tokens"] == {
            "input": tokens,
            "cached": 0,
            "output": 0,
            "estimated": True,
        }


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": "x"}, "missing_field", "model"),
        ({"model": "all"}, "missing_field", "input"),
        ({"model": "all", "input": []}, "invalid_value", "input"),
        ({"model": "all", "input": ""}, "invalid_value", "input"),
        ({"model": 1, "input": "x"}, "invalid_type", "model"),
        ({"model": "all", "Model": "other", "input": "x"}, "unsupported_field", "Model"),
        ({"model": "nobody", "input": "x"}, "model_not_found", "model"),
        ({"model": "chats", "input": "x"}, "unsupported_operation", "model"),
        ({"model": "prompted", "input": "x"}, "unsupported_operation", "model"),
    ],
)
def test_what_is_wrong_is_named(api: Operating, body: dict[str, Any], code: str, param: str) -> None:
    """And no backend hears of it."""
    answer = post(api, body)
    assert answer.status == (404 if code == "model_not_found" else 400)
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
    assert not api.upstream.requests


def test_a_backend_without_embeddings_is_left_out(api: Operating) -> None:
    """The next one of the plan is asked."""
    assert post(api, {"model": "mixed", "input": "x"}).status == 200


def test_an_unknown_key_is_refused_before_its_body(api: Operating) -> None:
    """As everywhere."""
    assert post(api, {"model": "all", "input": "x"}, key="nobody-has-this-key").status == 401


def test_an_echo_has_small_vectors(api: Operating) -> None:
    """The same for the same text, of as many numbers as are asked for, so that a gateway can be tried."""
    one, two = (api.client().embeddings.create(model="echo", input=["a b", "c"], dimensions=4) for _ in range(2))
    assert [each.embedding for each in one.data] == [each.embedding for each in two.data]
    assert one.data[0].embedding != one.data[1].embedding
    assert len(one.data[0].embedding) == 4
    assert one.usage.prompt_tokens == 3
    plain = api.client().embeddings.create(model="echo", input="a b", dimensions=4, encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(one.data[0].embedding, abs=1e-6)
