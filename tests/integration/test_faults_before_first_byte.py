"""A backend that fails before its first byte: the next attempt, or an honest error, and nothing left behind."""

from __future__ import annotations

import time

import pytest

from tests.support import faults
from tests.support.lane import Lane, attempts
from tests.support.scripts import DONE, Behaviour, Chat, Gate, Received, Script, Send, error_reply, reply, stream

LATE_S = 3.0
"""How late a loaded machine may be with an answer whose deadline is 0.4 s."""

FAULTS = [
    pytest.param(faults.hang_before_first_byte(), 504, "first_byte_timeout", id="hangs"),
    pytest.param(faults.hang_after_head(), 504, "first_byte_timeout", id="hangs after the head"),
    pytest.param(faults.endless_head(), 504, "first_byte_timeout", id="endless head"),
    pytest.param(faults.reset_before_reply(), 502, "reset", id="resets"),
    pytest.param(faults.close_before_reply(), 502, "reset", id="closes"),
    pytest.param(faults.reset_in_head(), 502, "reset", id="resets in the head"),
    pytest.param(faults.close_in_head(), 502, "reset", id="closes in the head"),
    pytest.param(faults.garbage(), 502, "protocol_error", id="garbage"),
    pytest.param(faults.both_lengths(), 502, "protocol_error", id="both lengths"),
    pytest.param(faults.two_content_lengths(), 502, "protocol_error", id="two lengths"),
    pytest.param(faults.bad_chunk_size(0), 502, "protocol_error", id="bad chunk"),
    pytest.param(faults.switching_protocols(), 502, "protocol_error", id="101"),
    pytest.param(faults.huge_header(), 502, "protocol_error", id="huge header"),
    pytest.param(faults.many_headers(), 502, "protocol_error", id="many headers"),
    pytest.param(faults.error_in_json_body(), 502, "error_in_body", id="200 with an error"),
    pytest.param(faults.no_json(), 502, "protocol_error", id="no JSON"),
    pytest.param(faults.wrong_type(), 502, "protocol_error", id="a page"),
    pytest.param(faults.empty_reply(), 502, "protocol_error", id="empty"),
    pytest.param(faults.empty_reply(204), 502, "protocol_error", id="204"),
    pytest.param(faults.large_error(500), 502, "server_error", id="large error"),
    pytest.param(faults.large_error(500, framing="chunked"), 502, "server_error", id="large error in chunks"),
    pytest.param(error_reply(500), 502, "server_error", id="500"),
    pytest.param(error_reply(408), 502, "server_error", id="408"),
    pytest.param(error_reply(401), 502, "unauthorized", id="401"),
    pytest.param(error_reply(403), 502, "unauthorized", id="403"),
    pytest.param(error_reply(404), 502, "misconfigured", id="404"),
    pytest.param(reply(302, headers=[("location", "/elsewhere")]), 502, "misconfigured", id="302"),
    pytest.param(error_reply(503), 503, "server_error", id="503"),
    pytest.param(error_reply(429), 503, "rate_limited", id="429"),
]
STREAM_FAULTS = [
    pytest.param(faults.error_in_stream(0), 502, "error_in_body", id="error as first event"),
    pytest.param(faults.stream_answered_plain(), 502, "protocol_error", id="plain for a stream"),
    pytest.param(stream([]), 502, "protocol_error", id="empty stream"),
    pytest.param(stream([b": comment\n\n"]), 502, "protocol_error", id="nothing but comments"),
    pytest.param(faults.huge_event(), 502, "protocol_error", id="huge first event"),
]
PLAIN_FAULTS = [
    pytest.param(faults.hang_mid_body(), 504, "idle_timeout", id="hangs in the body"),
    pytest.param(faults.reset_mid_body(), 502, "reset", id="resets in the body"),
    pytest.param(faults.close_mid_body(), 502, "reset", id="closes in the body"),
    pytest.param(stream(faults.events()), 502, "protocol_error", id="stream for plain"),
    pytest.param(faults.compression_bomb(), 502, "protocol_error", id="compression bomb"),
]
CODES = {502: "upstream_failed", 503: "overloaded", 504: "upstream_timeout"}
KINDS = {502: "upstream_error", 503: "overloaded_error", 504: "upstream_error"}


def check_alone(faulty: Lane, script: Behaviour, status: int, outcome: str, streamed: bool) -> None:
    """Without a fallback the caller is told; the operator sees why."""
    faulty.main.behaviour = script
    labels = {"backend": "main", "outcome": outcome}
    with faulty.counts("llm_gateway_upstream_attempts_total", 1, **labels):
        started = time.monotonic()
        answer = faulty.call("alone", stream=streamed)
        assert time.monotonic() - started < LATE_S
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["type"]) == (status, CODES[status], KINDS[status])
    assert (answer.header("retry-after") is not None) == (status == 503)
    line = faulty.log_of(answer)
    assert (line["status"], line["code"]) == (status, CODES[status])
    assert attempts(line) == [("main", outcome)]
    assert line["attempts"][0]["detail"]
    assert line["attempts"][0]["detail"] not in answer.body.decode()


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("script", "status", "outcome"), FAULTS)
def test_without_a_fallback(faulty: Lane, script: Script, status: int, outcome: str, streamed: bool) -> None:
    """The status table holds for every fault, with the public text only."""
    check_alone(faulty, script, status, outcome, streamed)


@pytest.mark.parametrize(("script", "status", "outcome"), STREAM_FAULTS)
def test_faults_of_streams(faulty: Lane, script: Script, status: int, outcome: str) -> None:
    """A stream counts as begun with its first event; what fails before it is an error with a status."""
    check_alone(faulty, script, status, outcome, streamed=True)


@pytest.mark.parametrize(("script", "status", "outcome"), PLAIN_FAULTS)
def test_faults_of_whole_replies(faulty: Lane, script: Script, status: int, outcome: str) -> None:
    """A whole reply is checked before anything of it is sent."""
    check_alone(faulty, script, status, outcome, streamed=False)


@pytest.mark.parametrize(("script", "status", "outcome"), FAULTS + STREAM_FAULTS)
def test_with_a_fallback(faulty: Lane, script: Script, status: int, outcome: str) -> None:
    """The caller gets the second backend's answer and never hears of the first; the operator sees both attempts."""
    faulty.main.behaviour = script
    with faulty.counts("llm_gateway_upstream_attempts_total", 1, backend="second", outcome="ok"):
        answer = faulty.call("safe", stream=True)
    assert answer.status == 200
    assert answer.body == b"".join(Chat().events("safe"))
    assert attempts(faulty.log_of(answer)) == [("main", outcome), ("second", "ok")]
    assert len(faulty.second.requests) == 1


def test_a_whole_reply_with_a_fallback(faulty: Lane) -> None:
    """The same for an answer that is not streamed."""
    faulty.main.behaviour = faults.error_in_json_body()
    answer = faulty.call("safe")
    assert (answer.status, answer.body) == (200, Chat().body("safe"))
    assert attempts(faulty.log_of(answer)) == [("main", "error_in_body"), ("second", "ok")]


@pytest.mark.parametrize(
    ("model", "status", "outcome"), [("dead", 502, "connect_error"), ("hole", 504, "connect_timeout")]
)
def test_backends_that_cannot_be_reached(faulty: Lane, model: str, status: int, outcome: str) -> None:
    """Refused and silent hosts fail within the connect timeout; a fallback serves."""
    started = time.monotonic()
    answer = faulty.call(model)
    assert time.monotonic() - started < LATE_S
    assert (answer.status, answer.json()["error"]["code"]) == (status, CODES[status])
    assert attempts(faulty.log_of(answer)) == [(model, outcome)]
    saved = faulty.call(f"{model}-safe", stream=True)
    assert saved.body.endswith(DONE)
    assert attempts(faulty.log_of(saved)) == [(model, outcome), ("second", "ok")]


def test_the_plan_is_tried_in_order(faulty: Lane) -> None:
    """Target, then the fallbacks as listed; the last failure decides the status."""
    faulty.main.behaviour = error_reply(500)
    answer = faulty.call("hopeless")
    assert answer.status == 502
    expected = [("dead", "connect_error"), ("hole", "connect_timeout"), ("main", "server_error")]
    assert attempts(faulty.log_of(answer)) == expected


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refusal_is_the_callers(faulty: Lane, status: int) -> None:
    """A backend that finds the request wrong is believed: no other is asked, its body passes through."""
    script = error_reply(status, "too many tokens")
    faulty.main.behaviour = script
    answer = faulty.call("safe", stream=True)
    assert (answer.status, answer.json()["error"]["message"]) == (status, "too many tokens")
    assert attempts(faulty.log_of(answer)) == [("main", "refused")]
    assert faulty.second.requests == []


def test_a_large_refusal_is_not_passed_on(faulty: Lane) -> None:
    """Ten megabytes of explanation end at the bound; the caller still learns that it was the request."""
    faulty.main.behaviour = faults.large_error(400)
    answer = faulty.call("safe")
    assert (answer.status, answer.json()["error"]["code"]) == (400, "upstream_refused")
    assert attempts(faulty.log_of(answer)) == [("main", "refused")]


def test_no_second_attempt_after_the_first_byte_of_a_body(faulty: Lane) -> None:
    """A whole reply that broke off may have been paid for: it is not asked for again elsewhere."""
    faulty.main.behaviour = faults.reset_mid_body()
    answer = faulty.call("safe")
    assert answer.status == 502
    assert attempts(faulty.log_of(answer)) == [("main", "reset")]


def test_a_reply_that_trickles_in(faulty: Lane) -> None:
    """Bytes that come slowly but steadily are no fault."""
    faulty.main.behaviour = faults.slow_drip(piece=20, delay_s=0.01)
    assert faulty.call("alone").body == faults.plain_body()


@pytest.mark.parametrize(
    "death", [faults.reset_on_first_byte(), faults.close_on_first_byte(), faults.close_before_reply()]
)
def test_a_kept_connection_dies_as_the_next_request_arrives(faulty: Lane, death: Script) -> None:
    """The caller does not notice and the attempt counts once: the request goes out again on a new connection."""
    faulty.call("alone")
    faulty.main.enqueue(death)
    answer = faulty.call("alone")
    assert answer.status == 200
    assert attempts(faulty.log_of(answer)) == [("main", "ok")]


def test_kept_connections_that_die_at_any_moment(faulty: Lane) -> None:
    """Closed or reset just before the next request, which may meet it half dead: never an error for the caller."""
    with faulty.client() as client:
        for turn in range(60):
            faulty.main.wait_for_idle()
            faulty.main.close_connections(reset=turn % 2 == 0)
            client.send(faulty.request("alone"))
            answer = client.read_response()
            assert answer.status == 200, answer


def test_early_bytes_do_not_become_an_answer(faulty: Lane) -> None:
    """What a backend sends unasked on an idle connection is nobody's answer."""
    faulty.main.close_connections()
    faulty.main.wait_for_open_connections(0)
    gate = Gate()
    unasked = Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    faulty.main.enqueue(reply(body=faults.plain_body()).then(gate, unasked))
    assert faulty.call("alone").body == faults.plain_body()
    faulty.gateway.assert_nothing_in_flight()
    gate.open()
    faulty.main.wait_for_open_connections(0)
    assert faulty.call("alone").body == Chat().body("alone")


def test_each_caller_gets_its_own_answer(faulty: Lane) -> None:
    """On one kept connection, answers and requests stay together whatever broke before."""

    def named(request: Received) -> Script:
        return reply(body=Chat(pieces=(request.json()["user"],)).body("m"))

    for turn in range(30):
        faulty.main.behaviour = named
        if turn % 3 == 0:
            faulty.main.enqueue(faults.extra_bytes())
            faulty.call("alone", user="broken")
        answer = faulty.call("alone", user=f"caller-{turn}")
        assert answer.json()["choices"][0]["message"]["content"] == f"caller-{turn}"
