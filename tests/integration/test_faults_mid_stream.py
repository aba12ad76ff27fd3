"""A backend that fails after its first byte: the stream ends in an error frame, and log and metrics call it failed."""

from __future__ import annotations

import json

import openai
import pytest

from tests.support import faults
from tests.support.lane import Lane, ask_for, attempts
from tests.support.scripts import DONE, Chat, Close, Hang, Pause, Script, Send, chunk, event, stream

TWO = faults.events()[:2]
HUGE = event({"choices": [{"index": 0, "delta": {"content": "x" * 2_000_000}}]})
FAULTS = [
    pytest.param(faults.hang_mid_stream(), 504, "idle_timeout", id="hangs"),
    pytest.param(faults.reset_mid_stream(), 502, "reset", id="resets"),
    pytest.param(faults.close_mid_stream(), 502, "reset", id="closes"),
    pytest.param(faults.garbage_mid_stream(), 502, "protocol_error", id="garbage"),
    pytest.param(faults.bad_chunk_size(2), 502, "protocol_error", id="bad chunk"),
    pytest.param(stream([*TWO, HUGE, DONE]), 502, "protocol_error", id="huge event"),
    pytest.param(stream(TWO, framing="close"), 502, "reset", id="close without an end"),
    pytest.param(stream([*TWO, b"data: {"], ending=[Pause(0.05), Close()]), 502, "reset", id="closes in an event"),
]


@pytest.mark.parametrize(("script", "status", "outcome"), FAULTS)
def test_a_broken_stream(faulty: Lane, script: Script, status: int, outcome: str) -> None:
    """The good events arrive, then one error frame; no other backend is asked; the connection is still in order."""
    faulty.main.behaviour = script
    labels = {"scenario": "safe", "backend": "main", "reason": outcome}
    with faulty.counts("llm_gateway_stream_ends_total", 1, **labels), faulty.client() as client:
        client.send(faulty.request("safe", stream=True))
        head = client.read_head()
        *good, last = client.events(head)
        assert head.status == 200
        assert good == TWO
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert error["type"] == "upstream_error"
        assert error["code"] == {502: "upstream_failed", 504: "upstream_timeout"}[status]
        faulty.main.forget()
        client.send(faulty.request("safe"))
        assert client.read_response().body == Chat().body("safe")
    line = faulty.log_of(head)
    assert (line["status"], line["outcome"], line["stream_end"]) == (status, outcome, outcome)
    assert attempts(line) == [("main", "ok")]
    assert line["detail"]
    assert line["detail"].encode() not in last
    assert line["tokens"]["estimated"]
    assert faulty.second.requests == []


@pytest.mark.parametrize(("script", "status", "outcome"), FAULTS[:3])
def test_the_official_client_raises(faulty: Lane, script: Script, status: int, outcome: str) -> None:
    """To the openai client a broken stream is an APIError, after the good chunks."""
    faulty.main.behaviour = script
    seen: list[str | None] = []
    with openai.OpenAI(base_url=f"{faulty.gateway.base_url}/v1", api_key=faulty.gateway.key, max_retries=0) as client:
        chunks = client.chat.completions.create(**ask_for("alone", stream=True))
        with pytest.raises(openai.APIError) as caught:
            seen.extend(chunk.choices[0].delta.content for chunk in chunks)
    assert seen == ["", "Hello"]
    assert caught.value.code == {502: "upstream_failed", 504: "upstream_timeout"}[status]
    assert caught.value.type == "upstream_error"


def test_http_1_0_learns_it_by_the_close(faulty: Lane) -> None:
    """Without chunks, only the end of the connection ends the stream, after the error frame."""
    faulty.main.behaviour = faults.reset_mid_stream()
    with faulty.client() as client:
        client.send(faulty.request("alone", stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head = client.read_head()
        assert head.header("transfer-encoding") is None
        body = client.read_to_end()
    assert body.startswith(b"".join(TWO))
    assert b'"upstream_error"' in body


def test_a_backend_that_reports_an_error_in_its_stream(faulty: Lane) -> None:
    """Its own error event is passed on as it came, with all that follows; the operator sees a failed stream."""
    broken = event({"error": {"message": "CUDA out of memory", "code": 500}})
    faulty.main.behaviour = stream([*TWO, broken, DONE], delay_s=0.05)
    with faulty.counts("llm_gateway_stream_ends_total", 1, scenario="alone", reason="error_in_body"):
        answer = faulty.call("alone", stream=True)
    assert answer.body == b"".join([*TWO, broken, DONE])
    line = faulty.log_of(answer)
    assert (line["status"], line["outcome"], line["stream_end"]) == (502, "error_in_body", "error_in_body")


def test_a_connection_that_dies_after_the_end(faulty: Lane) -> None:
    """Once ``[DONE]`` was passed on the stream is complete, however the connection ends."""
    faulty.main.behaviour = stream(faults.events(), ending=[Pause(0.05), Close()])
    answer = faulty.call("alone", stream=True)
    assert answer.body == b"".join(faults.events())
    line = faulty.log_of(answer)
    assert (line["status"], line["stream_end"]) == (200, "complete")


@pytest.mark.parametrize("script", [faults.stream_without_done(), stream(faults.events(), framing="close")])
def test_unusual_but_complete_streams(faulty: Lane, script: Script) -> None:
    """Without ``[DONE]``, or ended by the close after it: what came is passed on and is complete."""
    faulty.main.behaviour = script
    answer = faulty.call("alone", stream=True)
    assert answer.body.removesuffix(DONE) == b"".join(faults.events()[:-1])
    assert faulty.log_of(answer)["stream_end"] == "complete"
    assert b'"error"' not in answer.body


def test_a_pause_shorter_than_the_timeout(faulty: Lane) -> None:
    """A backend that thinks for a while in mid-stream is not dead; comments keep a stream alive."""
    alive = [*TWO, *[b": thinking\n\n"] * 8, *faults.events()[2:]]
    faulty.main.behaviour = stream(alive, delay_s=0.1)
    assert faulty.call("alone", stream=True).body == b"".join(alive)


def test_the_first_event_is_not_held_back(faulty: Lane) -> None:
    """It reaches the client while the backend is silent, and so does each later one."""
    faulty.main.behaviour = Script(
        (
            Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"),
            Send(chunk(TWO[0])),
            Pause(0.2),
            Send(chunk(TWO[1])),
            Hang(),
        )
    )
    with faulty.client() as client:
        client.send(faulty.request("patient", stream=True))
        events = client.events(client.read_head())
        assert [next(events), next(events)] == TWO
