"""Moderations, rerank, images and speech through the official client: what passes, what is counted, what is cut."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.support.client import Response
from tests.support.operations import SOUND, Operating, operating
from tests.support.scripts import Hang, Reset, Script, Send, chunk, error_reply, event, head, json_reply, stream


@pytest.fixture(scope="module")
def running() -> Iterator[Operating]:
    """One gateway for all."""
    with operating() as found:
        yield found


@pytest.fixture
def api(running: Operating) -> Iterator[Operating]:
    """It, with upstreams as new; nothing is left of a test."""
    running.upstream.forget()
    running.other.forget()
    yield running
    running.gateway.assert_nothing_in_flight()


def post(api: Operating, path: str, body: dict[str, Any], request_id: str = "operations-0000") -> Response:
    """A request without a client's help."""
    with api.gateway.client() as client:
        headers = {"connection": "close", "x-request-id": request_id}
        return client.request(path, body, key=api.gateway.key, headers=headers)


def test_moderation(api: Operating) -> None:
    """Passes, is counted as a request, and uses no tokens."""
    answer = api.client("operations-0001").moderations.create(model="all", input=["a", "b"])
    assert answer.results[0].flagged is False
    assert api.upstream.requests[0].target == "/v1/moderations"
    assert api.asked() == [{"model": "upstream-model", "input": ["a", "b"]}]
    line = api.log_of("operations-0001")
    assert (line["tokens"], line["status"], line["outcome"]) == (None, 200, "ok")
    labels = {"gen_ai_operation_name": "moderation", "gen_ai_provider_name": "openai"}
    assert api.gateway.metrics().value("gen_ai_server_request_duration_count", **labels) == 1


def test_images(api: Operating) -> None:
    """Pass, with the tokens that the backend reports and their price; fields that nobody knows here pass too."""
    answer = api.client("operations-0002").images.generate(
        model="all", prompt="a boat", n=2, size="1024x1024", extra_body={"new": {"a": [1]}}
    )
    assert answer.data is not None
    assert [base64.b64decode(each.b64_json or "") for each in answer.data] == [b"png", b"png"]
    asked = api.asked()[0]
    assert asked == {"model": "upstream-model", "prompt": "a boat", "n": 2, "size": "1024x1024", "new": {"a": [1]}}
    line = api.log_of("operations-0002")
    assert line["tokens"] == {"input": 7, "cached": 0, "output": 100, "estimated": False}
    assert line["cost_usd"] == "0.207000000"


def test_a_stream_of_images(api: Operating) -> None:
    """Events pass as they come, and the usage of the last one is counted."""
    usage = {"input_tokens": 5, "output_tokens": 50, "total_tokens": 55}
    events = [
        event({"type": "image_generation.partial_image", "b64_json": "cG5n", "partial_image_index": 0}),
        event({"type": "image_generation.completed", "b64_json": "cG5n", "usage": usage}),
    ]
    api.upstream.enqueue(stream(events))
    answer = post(api, "/v1/images/generations", {"model": "all", "prompt": "x", "stream": True}, "operations-0003")
    assert answer.body == b"".join(events)
    line = api.log_of("operations-0003")
    assert line["tokens"]["output"] == 50
    assert line["stream_end"] == "complete"


def test_speech(api: Operating) -> None:
    """The bytes that the backend gives, with its type, as they come."""
    with api.client().audio.speech.with_streaming_response.create(model="all", voice="alloy", input="hello") as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        assert answer.read() == SOUND
    assert api.asked() == [{"model": "upstream-model", "voice": "alloy", "input": "hello"}]


def test_speech_reaches_the_caller_as_it_is_made(api: Operating) -> None:
    """The first bytes are there while the backend has yet to make the others; a caller who leaves ends it."""
    first = head(200, [("content-type", "audio/mpeg"), ("transfer-encoding", "chunked")]) + chunk(b"first")
    api.upstream.enqueue(Script((Send(first), Hang())))
    with api.client("operations-0004").audio.speech.with_streaming_response.create(
        model="all", voice="alloy", input="hello"
    ) as answer:
        assert next(answer.iter_bytes()) == b"first"
    api.upstream.wait_for_disconnect()
    assert api.log_of("operations-0004")["status"] == 499


def test_speech_that_breaks_off_is_cut(api: Operating) -> None:
    """Nobody takes the part that came for all of it."""
    first = head(200, [("content-type", "audio/mpeg"), ("transfer-encoding", "chunked")]) + chunk(b"first")
    api.upstream.enqueue(Script((Send(first), Reset())))
    with (
        pytest.raises(httpx2.RemoteProtocolError, match="incomplete"),
        api.client("operations-0005").audio.speech.with_streaming_response.create(
            model="all", voice="alloy", input="hello"
        ) as answer,
    ):
        answer.read()
    line = api.log_of("operations-0005")
    assert (line["status"], line["stream_end"]) == (502, "reset")


def test_speech_as_events(api: Operating) -> None:
    """Usage is in the last one; a stream of events that breaks off ends with one that says so."""
    usage = {"input_tokens": 3, "output_tokens": 30, "total_tokens": 33}
    delta = event({"type": "speech.audio.delta", "audio": "c291bmQ="})
    api.upstream.enqueue(
        stream([delta, event({"type": "speech.audio.done", "usage": usage})]), stream([delta], ending=[Reset()])
    )
    asked = {"model": "all", "voice": "alloy", "input": "hello", "stream_format": "sse"}
    whole = post(api, "/v1/audio/speech", asked, "operations-0006")
    assert whole.body.endswith(b'"total_tokens":33}}\n\n')
    assert api.log_of("operations-0006")["tokens"]["output"] == 30
    cut = post(api, "/v1/audio/speech", asked)
    assert cut.body.startswith(delta)
    assert b'"code":"upstream_failed"' in cut.body


def test_rerank(api: Operating) -> None:
    """Cohere's form, with its own count of tokens."""
    documents = ["a", "bbb", "cc"]
    asked = {"model": "all", "query": "q", "documents": documents, "top_n": 2}
    answer = post(api, "/v1/rerank", asked, "operations-0007")
    assert [each["index"] for each in answer.json()["results"]] == [1, 2]
    assert api.asked() == [asked | {"model": "upstream-model"}]
    assert api.log_of("operations-0007")["tokens"] == {"input": 3, "cached": 0, "output": 0, "estimated": False}


@pytest.mark.parametrize("objects", [False, True])
def test_rerank_of_many_documents_is_split(api: Operating, objects: bool) -> None:
    """The best of all are the best of the parts, with the places that they have in the whole."""
    texts = ["a" * size for size in (3, 1, 5, 2, 4)]
    documents: list[Any] = [{"text": text} for text in texts] if objects else texts
    asked = {"model": "batched", "query": "q", "documents": documents, "top_n": 3}
    answer = post(api, "/v1/rerank", asked, "operations-0008" + str(objects))
    assert answer.status == 200, answer
    assert [each["index"] for each in answer.json()["results"]] == [2, 4, 0]
    assert len(api.upstream.requests) == 3
    assert all("top_n" not in each for each in api.asked())
    assert answer.json()["meta"]["billed_units"] == {"search_units": 3, "input_tokens": 5.0}
    assert api.log_of("operations-0008" + str(objects))["tokens"]["input"] == 5


def test_refusals_pass_and_faults_do_not(api: Operating) -> None:
    """What is wrong with a request is said in the backend's words; what is wrong with the backend is a 502."""
    api.upstream.enqueue(error_reply(400, "no such size", code="invalid_size"), error_reply(401), error_reply(404))
    with pytest.raises(openai.BadRequestError, match="no such size"):
        api.client().images.generate(model="all", prompt="x")
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as caught:
            api.client().images.generate(model="all", prompt="x")
        assert caught.value.status_code == 502


def test_an_answer_that_is_none_fails(api: Operating) -> None:
    """And is not passed on."""
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/images/generations", {"model": "all", "prompt": "x"}),
        ("/v1/rerank", {"model": "all", "query": "x", "documents": ["a"]}),
        ("/v1/moderations", {"model": "all", "input": "x"}),
    ]
    for path, body in asked:
        api.upstream.enqueue(json_reply({"secret": "inside"}))
        answer = post(api, path, body)
        assert answer.status == 502
        assert b"inside" not in answer.body


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/images/generations", {"model": "all"}, "prompt"),
        ("/v1/images/generations", {"model": "all", "prompt": "x", "n": 0}, "n"),
        ("/v1/images/generations", {"model": "all", "prompt": "x", "stream": 1}, "stream"),
        ("/v1/rerank", {"model": "all", "query": "x"}, "documents"),
        ("/v1/audio/speech", {"model": "all", "voice": "a"}, "input"),
        ("/v1/moderations", {"model": "chats", "input": "x"}, "model"),
    ],
)
def test_what_is_wrong_is_named(api: Operating, path: str, body: dict[str, Any], param: str) -> None:
    """And no backend hears of it."""
    answer = post(api, path, body)
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    assert not api.upstream.requests


def test_only_post(api: Operating) -> None:
    """Other methods are told which one is meant."""
    with api.gateway.client() as client:
        answer = client.request("/v1/rerank", method="GET", key=api.gateway.key, headers={"connection": "close"})
    assert (answer.status, answer.header("allow")) == (405, "POST")
