"""What goes wrong at Bedrock: what callers are told, what operators are, and who answers instead.

Errors as https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html lists them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.support.bedrock import encode_event, encode_exception, end_events, text_events
from tests.support.bedrock_gateway import HELLO, PROFILE, Running, serving
from tests.support.openai_api import Api, text_of
from tests.support.scripts import Close, Gate


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """See ``serving``."""
    with serving() as running:
        yield running


@pytest.fixture
def world(running: Running) -> Iterator[Running]:
    """The same, as new; afterwards nothing was asked that the service does not allow."""
    running.upstream.forget()
    yield running
    assert running.bedrock.faults == []


def test_why_a_request_was_refused_is_told(world: Running) -> None:
    """A ValidationException in the caller's own form, without the account that an ARN holds."""
    world.upstream.enqueue(world.bedrock.fails(400, "ValidationException", f"Too long for {PROFILE}."))
    with pytest.raises(openai.BadRequestError) as caught:
        Api("sync", world.gateway).complete(model="claude", messages=HELLO)
    assert caught.value.body == {
        "message": "Too long for (a resource)",
        "type": "invalid_request_error",
        "param": None,
        "code": "upstream_refused",
    }


@pytest.mark.parametrize(
    ("status", "name", "outcome", "told"),
    [
        (429, "ThrottlingException", "rate_limited", 503),
        (429, "ModelNotReadyException", "rate_limited", 503),
        (400, "ServiceQuotaExceededException", "rate_limited", 503),
        (403, "AccessDeniedException", "unauthorized", 502),
        (400, "UnrecognizedClientException", "unauthorized", 502),
        (404, "ResourceNotFoundException", "misconfigured", 502),
        (408, "ModelTimeoutException", "server_error", 502),
        (424, "ModelErrorException", "server_error", 502),
        (500, "InternalServerException", "server_error", 502),
        (503, "ServiceUnavailableException", "server_error", 503),
    ],
)
def test_failures_are_the_operators(world: Running, status: int, name: str, outcome: str, told: int) -> None:
    """Another backend answers; without one the caller learns nothing of the account. The log names the error."""
    secret = "User: arn:aws:iam::123456789012:user/x is not authorized"
    world.upstream.enqueue(*[world.bedrock.fails(status, name, secret)] * 2)
    request_id = f"bedrock-{name}-{status}"
    api = Api("sync", world.gateway, default_headers={"x-request-id": request_id})
    assert api.complete(model="spare", messages=HELLO).choices[0].message.content == "Hello"
    line = world.gateway.wait_for_log(lambda line: line.get("request_id") == request_id)
    assert line["attempts"][0]["outcome"] == outcome
    assert name in line["attempts"][0]["detail"]
    with pytest.raises(openai.InternalServerError) as caught:
        api.complete(model="claude", messages=HELLO)
    assert caught.value.status_code == told
    assert "123456789012" not in caught.value.response.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("modelStreamErrorException", "upstream_error"),
        ("internalServerException", "upstream_error"),
        ("throttlingException", "overloaded_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("validationException", "invalid_request_error"),
    ],
)
def test_an_exception_within_a_stream(world: Running, name: str, kind: str) -> None:
    """An error event after what was said; before anything was, another backend answers."""
    begun = [encode_event(*each) for each in text_events("Good")[:2]]
    failure = encode_exception(name, "at arn:aws:bedrock:eu-central-1:123456789012:x")
    gate = Gate()
    world.upstream.enqueue(world.bedrock.says([*begun, failure], gate=gate))
    api = Api("sync", world.gateway)

    def read(client: openai.OpenAI) -> None:
        for _ in client.chat.completions.create(stream=True, model="claude", messages=HELLO):  # type: ignore[arg-type]
            gate.open()

    with pytest.raises(openai.APIError) as caught:
        api.run(read, lambda client: asyncio.sleep(0))
    assert caught.value.type == kind
    assert "123456789012" not in str(caught.value.body)
    world.upstream.enqueue(world.bedrock.says([failure]))
    assert text_of(api.stream(model="spare", messages=HELLO)) == "Hello"


def test_a_stream_that_breaks(world: Running) -> None:
    """A wrong checksum, an end within a message, an end before the answer's: each is an error event, never a stop."""
    events = [encode_event(*each) for each in text_events("Good", " day")]
    wrong = events[2][:-1] + bytes([events[2][-1] ^ 1])
    api = Api("sync", world.gateway)
    for said, ending in (
        ([*events[:2], wrong, *events[3:]], None),
        ([*events[:2], events[2][:20]], None),
        (events[:3], None),
        (events[:3], [Close()]),
    ):
        world.upstream.enqueue(world.bedrock.says(said, ending=ending))
        with pytest.raises(openai.APIError) as caught:
            api.stream(model="claude", messages=HELLO)
        assert caught.value.type == "upstream_error"


def test_an_answer_that_nobody_can_use(world: Running) -> None:
    """Malformed output is a failure: whole, another backend answers; in a stream it is told."""
    api = Api("sync", world.gateway)
    world.upstream.enqueue(world.bedrock.answers([{"text": "{"}], stop="malformed_tool_use"))
    assert api.complete(model="spare", messages=HELLO).choices[0].message.content == "Hello"
    world.upstream.enqueue(world.bedrock.streams(*text_events("{", stop="malformed_model_output")))
    with pytest.raises(openai.APIError):
        api.stream(model="claude", messages=HELLO)


def test_which_sequence_ended_an_answer(world: Running) -> None:
    """Of models that say so: it is asked for with the sequences."""
    told = {"additionalModelResponseFields": {"stop_sequence": "END"}}
    world.upstream.enqueue(world.bedrock.answers([{"text": "Hi"}], stop="stop_sequence", **told))
    api = Api("sync", world.gateway)
    choice = api.complete(model="claude", messages=HELLO, stop="END").choices[0]
    assert choice.model_dump()["stop_sequence"] == "END"
    stop = ("messageStop", {"stopReason": "stop_sequence"} | told)
    world.upstream.enqueue(world.bedrock.streams(*text_events("Hi")[:-2], stop, *end_events()[1:]))
    assert api.stream(model="claude", messages=HELLO, stop="END")[-1].choices[0].model_dump()["stop_sequence"] == "END"


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("stop_sequence", "stop"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("model_context_window_exceeded", "length"),
    ],
)
def test_why_an_answer_ended(world: Running, stop: str, finish: str) -> None:
    """Each reason in the caller's words; an answer may be empty."""
    world.upstream.enqueue(world.bedrock.answers([], stop=stop))
    api = Api("sync", world.gateway)
    choice = api.complete(model="claude", messages=HELLO).choices[0]
    assert (choice.finish_reason, choice.message.content) == (finish, None)
    world.upstream.enqueue(world.bedrock.streams(("messageStart", {"role": "assistant"}), *end_events(stop)))
    chunks = api.stream(model="claude", messages=HELLO)
    assert (chunks[-1].choices[0].finish_reason, text_of(chunks)) == (finish, "")
