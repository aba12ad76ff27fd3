"""What goes wrong is told to callers of Messages as the Anthropic API tells it, before an answer and in the middle."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.support.client import request_bytes
from tests.support.documents import api_key, backend, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.messages_api import KINDS, MessagesApi
from tests.support.scripts import Close, Gate, Reset, Step, error_reply, event, stream
from tests.support.upstream import ScriptedUpstream

Pair = tuple[GatewayProcess, ScriptedUpstream]

ASK: dict[str, Any] = {"model": "chat", "max_tokens": 10, "messages": [{"role": "user", "content": "Good morning"}]}
LIMITED_KEY = new_key()
MANY = 1_000_000


@pytest.fixture(scope="module")
def running() -> Iterator[Pair]:
    """A gateway with a tenant that has limits, one that may call once, and one without any."""
    key = new_key()
    with ScriptedUpstream() as upstream:
        documents = [
            backend("main", f"{upstream.url}/v1", model="upstream-model"),
            backend("full", f"{upstream.url}/v1", model="upstream-model", maxConcurrentRequests=1),
            scenario("chat", "main"),
            scenario("full", "full"),
            tenant("acme", limits=[{"unit": unit, "per": "hour", "amount": MANY} for unit in ("requests", "tokens")]),
            api_key("acme-key", key),
            tenant("small", limits=[{"unit": "requests", "per": "hour", "amount": 1}]),
            api_key("small-key", LIMITED_KEY, "small"),
        ]
        env = {"LLM_GATEWAY_REDIS_URL": "embedded", "LLM_GATEWAY_MAX_BODY_BYTES": "10000"}
        with GatewayProcess(documents, key=key, env=env) as gateway:
            yield gateway, upstream


@pytest.fixture
def pair(running: Pair) -> Pair:
    """The same, as new."""
    running[1].forget()
    return running


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest, pair: Pair) -> MessagesApi:
    """The client in front of the gateway."""
    return MessagesApi(request.param, pair[0])


def refused(api: MessagesApi, **fields: Any) -> anthropic.APIStatusError:
    """The error of a call; whatever it is, its body and head have the id of the request."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        api.create(**ASK | fields)
    error = caught.value
    assert isinstance(error.body, dict)
    assert error.body.get("type") == "error", (error.body, error.status_code)
    assert error.request_id == error.response.headers["x-request-id"] == error.body["request_id"]
    return error


def details_of(error: anthropic.APIStatusError) -> Any:
    """What programs go by."""
    assert isinstance(error.body, dict)
    return error.body["error"]["details"]


@pytest.mark.parametrize(
    ("status", "told", "kind", "type_"),
    [
        (400, 400, anthropic.BadRequestError, "invalid_request_error"),
        (422, 422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (401, 502, anthropic.InternalServerError, "api_error"),
        (404, 502, anthropic.InternalServerError, "api_error"),
        (429, 529, anthropic.OverloadedError, "overloaded_error"),
        (500, 502, anthropic.InternalServerError, "api_error"),
    ],
)
def test_errors_of_a_backend(
    pair: Pair, status: int, told: int, kind: type[anthropic.APIStatusError], type_: str
) -> None:
    """The table of the contract in this dialect: what is the caller's passes, what is ours is told as a failure."""
    pair[1].enqueue(error_reply(status, "it said no", headers=[("retry-after", "7")]))
    error = refused(MessagesApi("sync", pair[0]))
    assert (error.status_code, error.type) == (told, type_)
    assert isinstance(error, kind)
    assert ("it said no" in error.message) == (status in (400, 422))
    if status == 429:
        assert error.response.headers["retry-after"] == "7"


def test_a_wrong_key(pair: Pair) -> None:
    """The same text for every reason."""
    error = refused(MessagesApi("sync", pair[0], key="wrong-key-of-nobody"))
    assert (type(error), error.type, error.error_code) == (
        anthropic.AuthenticationError, "authentication_error", "invalid_api_key",
    )  # fmt: skip


def test_an_unknown_model(api: MessagesApi) -> None:
    """A model that is not there, or not for this caller."""
    error = refused(api, model="other")
    assert (type(error), error.type, error.error_code) == (
        anthropic.NotFoundError,
        "not_found_error",
        "model_not_found",
    )


def test_a_field_that_is_wrong(api: MessagesApi) -> None:
    """The message, and the details, name the place."""
    error = refused(api, messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}])
    assert isinstance(error, anthropic.BadRequestError)
    assert "messages.0.content.0.text" in error.message
    assert details_of(error) == {"error_code": "invalid_type", "param": "messages.0.content.0.text"}


def test_a_body_that_is_too_large(pair: Pair) -> None:
    """The type is Anthropic's own."""
    error = refused(MessagesApi("sync", pair[0]), system="x" * 10_000)
    assert (error.status_code, error.type) == (413, "request_too_large")


def test_limits(pair: Pair) -> None:
    """What is left stands in Anthropic's headers, with times; a refusal says when to come again."""
    before = datetime.datetime.now(datetime.UTC)
    with anthropic.Anthropic(base_url=pair[0].base_url, api_key=pair[0].key, max_retries=0) as client:
        headers = client.messages.with_raw_response.create(**ASK).headers
    for unit in ("requests", "tokens"):
        assert headers[f"anthropic-ratelimit-{unit}-limit"] == str(MANY)
        assert 0 < int(headers[f"anthropic-ratelimit-{unit}-remaining"]) < MANY
        reset = datetime.datetime.fromisoformat(headers[f"anthropic-ratelimit-{unit}-reset"])
        assert before <= reset + datetime.timedelta(seconds=1)
        assert reset <= before + datetime.timedelta(hours=1)
    assert not [name for name in headers if name.startswith("x-ratelimit")]
    small = MessagesApi("sync", pair[0], key=LIMITED_KEY)
    small.create(**ASK)
    error = refused(small)
    assert (type(error), error.type, error.error_code) == (
        anthropic.RateLimitError, "rate_limit_error", "rate_limit_exceeded",
    )  # fmt: skip
    assert 3000 < int(error.response.headers["retry-after"]) <= 3600
    assert error.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_a_full_backend(pair: Pair) -> None:
    """Overload has Anthropic's own status, which its client knows."""
    gateway, upstream = pair
    gate = Gate()
    upstream.enqueue(stream([begun()], ending=[gate, Close()]))
    body = ASK | {"model": "full", "stream": True}
    with gateway.client() as client:
        client.send(request_bytes("/v1/messages", body, key=gateway.key))
        gate.wait_reached()
        error = refused(MessagesApi("sync", gateway), model="full")
        gate.open()
    assert (type(error), error.status_code, error.type) == (anthropic.OverloadedError, 529, "overloaded_error")


def begun() -> bytes:
    """The first event of an answer."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": "Good"}, "finish_reason": None}
    return event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )


@pytest.mark.parametrize(
    ("rest", "ending", "said"),
    [
        ([event({"error": {"message": "out of memory", "type": "server_error"}})], None, "out of memory"),
        ([], [Reset()], "backend"),
        ([b"data: {]\n\n"], None, "backend"),
    ],
)
def test_a_stream_that_breaks(
    api: MessagesApi, pair: Pair, rest: list[bytes], ending: list[Step] | None, said: str
) -> None:
    """After its beginning an error is an event, which the client raises, and nothing follows it."""
    pair[1].enqueue(stream([begun(), *rest], ending=ending, delay_s=0.1))
    with pytest.raises(anthropic.APIStatusError) as caught:
        api.stream(**ASK)
    assert (caught.value.type, caught.value.status_code) == ("api_error", 200)
    assert said in caught.value.message
    pair[1].enqueue(stream([begun(), *rest], ending=ending, delay_s=0.1))
    with pair[0].client() as client:
        response = client.request("/v1/messages", ASK | {"stream": True}, key=pair[0].key)
    names = [line for line in response.body.decode().splitlines() if line.startswith("event:")]
    assert names[0] == "event: message_start"
    assert names[-1] == "event: error"
    assert names.count("event: error") == 1


def test_other_methods_and_a_wrong_header(pair: Pair) -> None:
    """A GET is refused in the same envelope, and a header that is no list of names by its name."""
    with pair[0].client() as client:
        answer = client.request("/v1/messages", key=pair[0].key)
        assert (answer.status, answer.json()["type"], answer.header("allow")) == (405, "error", "POST")
        wrong = client.request("/v1/messages", ASK, key=pair[0].key, headers={"anthropic-beta": "a b"})
    assert (wrong.status, wrong.json()["error"]["details"]["param"]) == (400, "anthropic-beta")
