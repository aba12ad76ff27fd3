"""What goes wrong reaches the official ``openai`` client as the exception that it would raise against OpenAI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support import faults
from tests.support.openai_api import KINDS, Api, text_of
from tests.support.scripts import error_reply
from tests.support.surface import MESSAGES, Surface, chat_body, surface


@pytest.fixture(scope="module")
def surface_process() -> Iterator[Surface]:
    """One gateway for this module."""
    with surface() as running:
        yield running


@pytest.fixture
def place(surface_process: Surface) -> Surface:
    """The gateway with its upstream as new."""
    surface_process.upstream.forget()
    return surface_process


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, place: Surface) -> Callable[..., Api]:
    """Makes clients of one kind."""
    return lambda **options: Api(request.param, place.gateway, **options)


def refusal(call: Callable[..., Any], **fields: Any) -> openai.APIStatusError:
    """The exception with a status that a call raises."""
    with pytest.raises(openai.APIStatusError) as caught:
        call(**chat_body(**fields))
    return caught.value


@pytest.mark.parametrize("model", ["no-such-model", "of-others", "off", "CHAT", "x" * 500, "chat "])
def test_unknown_model(make: Callable[..., Api], place: Surface, model: str) -> None:
    """A model that does not exist, is disabled or is for others is one and the same 404, and nobody is called."""
    error = refusal(make().complete, model=model)
    assert isinstance(error, openai.NotFoundError)
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error")
    shown = model if len(model) <= 128 else model[:125] + "..."
    assert error.body is not None
    assert error.body["message"] == f"The model `{shown}` does not exist or you do not have access to it."  # type: ignore[index]
    assert not place.upstream.requests


def test_bad_key(make: Callable[..., Api], place: Surface) -> None:
    """Unknown, malformed, expired and disabled keys, and keys of a disabled tenant, get one and the same 401."""
    keys = place.keys
    bad = [keys.expired, keys.disabled, keys.of_disabled_tenant, "sk-" + "0" * 40, "short", "x" * 300, "not a key!"]
    errors = [refusal(make(key=key).complete) for key in bad]
    assert {type(error) for error in errors} == {openai.AuthenticationError}
    told = {"message": "Incorrect API key provided.", "type": "authentication_error", "param": None}
    assert all(error.body == told | {"code": "invalid_api_key"} for error in errors)
    assert not place.upstream.requests


def test_good_key_beside_an_expired_digest(make: Callable[..., Api], place: Surface) -> None:
    """While a key rotates, the new one works although the old one is over."""
    assert make(key=place.keys.rotated).complete(**chat_body()).choices[0].message.content


def test_backend_timeout(make: Callable[..., Api], place: Surface) -> None:
    """A backend that does not answer in time is a 504 for the caller, and it is told to stop."""
    place.upstream.enqueue(faults.hang_before_first_byte())
    error = refusal(make().complete, model="impatient")
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code, error.type) == (504, "upstream_timeout", "upstream_error")
    place.upstream.wait_for_disconnect()


@pytest.mark.parametrize("streamed", [False, True])
def test_client_timeout(make: Callable[..., Api], place: Surface, *, streamed: bool) -> None:
    """A client that runs out of patience cancels the call at the backend; the log says 499."""
    place.upstream.enqueue(faults.hang_before_first_byte())
    request_id = f"patience-{make().kind}-{streamed}"
    api = make(timeout=0.5, default_headers={"x-request-id": request_id})
    with pytest.raises(openai.APITimeoutError):
        (api.stream if streamed else api.complete)(**chat_body())
    gone = place.upstream.wait_for_disconnect()
    assert gone.request is not None
    place.gateway.wait_for_log(lambda line: (line.get("request_id"), line.get("status")) == (request_id, 499))
    place.gateway.assert_nothing_in_flight()


def test_leaving_a_stream(make: Callable[..., Api], place: Surface) -> None:
    """A client that closes a stream in the middle cancels the call at the backend."""
    place.upstream.enqueue(faults.endless_stream(delay_s=0.01, count=2_000))

    def leave(client: OpenAI) -> None:
        with client.chat.completions.create(stream=True, **chat_body()) as stream:
            next(iter(stream))

    async def leave_async(client: AsyncOpenAI) -> None:
        async with await client.chat.completions.create(stream=True, **chat_body()) as stream:
            await anext(aiter(stream))

    make().run(leave, leave_async)
    assert place.upstream.wait_for_disconnect().sent > 0


def test_retry_after_is_honoured(make: Callable[..., Api], place: Surface) -> None:
    """An overloaded backend's ``retry-after`` reaches the client, which waits that long and then succeeds."""
    place.upstream.enqueue(error_reply(503, headers=[("retry-after", "1")]))
    assert make(max_retries=1).complete(**chat_body()).choices[0].message.content
    first, second = place.upstream.requests
    assert 1.0 <= second.received_at - first.received_at < 5.0


@pytest.mark.parametrize("status", [429, 503])
def test_overload_of_the_backend(make: Callable[..., Api], place: Surface, status: int) -> None:
    """A backend that is rate limited or overloaded is a 503 with its ``retry-after``: no limit of the tenant's."""
    place.upstream.enqueue(error_reply(status, headers=[("retry-after", "17")]))
    error = refusal(make().complete)
    assert (error.status_code, error.code, error.type) == (503, "overloaded", "overloaded_error")
    assert error.response.headers["retry-after"] == "17"


def test_refusal_of_the_backend(make: Callable[..., Api], place: Surface) -> None:
    """What the backend says about a bad request is what the client is told."""
    place.upstream.enqueue(error_reply(400, "max_tokens is too large", code="context_length_exceeded"))
    error = refusal(make().complete)
    assert isinstance(error, openai.BadRequestError)
    assert error.code == "context_length_exceeded"
    assert "max_tokens is too large" in str(error)


def test_stream_that_breaks(make: Callable[..., Api], place: Surface) -> None:
    """A backend that dies in mid-stream is an exception for who reads the stream, after every chunk that came."""
    place.upstream.enqueue(faults.close_mid_stream(after=3))
    seen: list[Any] = []

    def collect(client: OpenAI) -> None:
        for chunk in client.chat.completions.create(stream=True, **chat_body()):
            seen.append(chunk)  # noqa: PERF402 - what came before the failure has to be kept

    async def collect_async(client: AsyncOpenAI) -> None:
        async for chunk in await client.chat.completions.create(stream=True, **chat_body()):
            seen.append(chunk)  # noqa: PERF401 - as above

    with pytest.raises(openai.APIError, match="broke off its answer") as caught:
        make().run(collect, collect_async)
    assert caught.value.code == "upstream_failed"
    assert text_of(seen) == "Hello from"


def test_concurrent_streams_of_one_client(place: Surface) -> None:
    """Fifty streams of one async client at once each get their own words, whole."""

    async def main() -> list[str]:
        options: dict[str, Any] = {"base_url": f"{place.gateway.base_url}/v1", "api_key": place.keys.main}
        async with AsyncOpenAI(**options) as client:
            return await asyncio.gather(*(_echoed(client, number) for number in range(50)))

    assert asyncio.run(main()) == [f"number {number}" for number in range(50)]


async def _echoed(client: AsyncOpenAI, number: int) -> str:
    messages: Any = [{"role": "user", "content": f"number {number}"}]
    stream: Any = await client.chat.completions.create(model="echo", messages=messages, stream=True)
    return text_of([chunk async for chunk in stream])


def test_answer_names_the_scenario_and_the_request(make: Callable[..., Api], place: Surface) -> None:
    """The response names the scenario behind an alias and echoes a well-formed request id; never the backend."""
    answer = make(default_headers={"x-request-id": "abc-123_4.5"}).raw(**chat_body(model="gpt-4o"))
    assert answer.headers["x-llm-gateway-scenario"] == "chat"
    assert answer.headers["x-request-id"] == "abc-123_4.5"
    assert answer.completion._request_id == "abc-123_4.5"
    assert "x-llm-gateway-backend" not in answer.headers
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>"])
def test_malformed_request_id_is_replaced(make: Callable[..., Api], given: str) -> None:
    """A request id that is not well-formed is replaced by one of ours."""
    answer = make(default_headers={"x-request-id": given}).raw(model="chat", messages=MESSAGES)
    made = answer.headers["x-request-id"]
    assert made.startswith("req_")
    assert len(made) == 36
